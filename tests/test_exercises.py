"Every notebook of the derivation ends in exercises, and their solutions are folded and assert what they say."

import json
import re

import pytest
from conftest import ROOT
from test_house import SETTINGS

NOTEBOOKS = sorted((ROOT / 'nbs' / 'rl').glob('0?_*.ipynb')) + [ROOT / 'nbs' / 'rl' / '10_when_does_harpo_help.ipynb']
CHECKS = r'(^|: )\s*(assert |same\(|test_(eq|close|fail|ne)\()'  # `same` is the check of the page on properties


def source(cell):
    return ''.join(cell['source'])


def exercises(path):
    "Questions of a notebook, each with the code cells that follow it."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    starts = [i for i, c in enumerate(cells) if c['cell_type'] == 'markdown' and source(c).startswith('## Exercises\n')]
    assert len(starts) == 1, 'no section of exercises'
    found = []
    for cell in cells[starts[0] + 1 :]:
        if 'nbdev.nbdev_export()' in source(cell):
            break
        if cell['cell_type'] == 'markdown':
            found.append((source(cell), []))
        else:
            found[-1][1].append(cell)
    return found


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_exercises(path):
    found = exercises(path)
    assert len(found) >= 2
    for number, (question, solution) in enumerate(found, 1):
        assert re.match(rf'\*\*{number}\. [^*]+\*\* \S', question), question
        assert 1 <= len(solution) <= 2, question
        assert any(re.search(CHECKS, source(c), re.M) for c in solution), f'nothing is asserted: {question}'
        for cell in solution:
            assert source(cell).startswith('#| code-fold: true\n#| code-summary: Solution\n'), cell['id']
            assert cell['metadata'] == {'jupyter': {'source_hidden': True}}, cell['id']
            assert not cell['outputs'] or 'fig-alt:' in source(cell), (
                f'the output of {cell["id"]} gives the answer away'
            )


def test_cleaning_keeps_the_fold():
    assert 'jupyter' in SETTINGS['allowed_cell_metadata_keys'].split()


def test_none_is_missing():
    numbers = [f'{i:02}' for i in range(11)]
    assert [p.stem[:2] for p in NOTEBOOKS] == sorted([*numbers, '01'])  # Two pages have the number 01
