"""The results pages of the studies say what their logs say: every table is computed again, and compared with the
one that is stored.
"""

import json
import re

import pytest
from conftest import ROOT
from execnb.shell import CaptureShell

NBS = ROOT / 'nbs'
PAGES = (
    'studies/03_method_results',
    'studies/04_ablations',
    'studies/06_transfer_results',
    'studies/08_descriptor_results',
    'studies/10_voice_results',
    'studies/12_word_results',
    'studies/13_summary',
    'index',
)
LOGS = {
    'A': {'steps', 'answers'},
    'B': {'steps', 'rewards', 'answers', 'traces'},
    'C': {'transfer', 'held_out'},
    'D': {'answers'},
    'F': {'answers', 'losses'},
}
SEEDS = {'F': 3}  # Where five are not asked for: each of its seeds trains seven models
HOURS = 8  # Core-hours that all of them may take together


def shown(output):
    "The text of an output that is a table or a value; None for a picture or a line of print."
    data = output.get('data', {})
    if 'image/png' in data:
        return None
    return next((''.join(data[kind]) for kind in ('text/markdown', 'text/html', 'text/plain') if kind in data), None)


def tables(path):
    "Id of a cell to what it shows."
    found = {}
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        texts = [text for text in map(shown, cell.get('outputs', [])) if text is not None]
        if texts:
            found[cell['id']] = texts
    return found


def without_export(page, copy):
    "A copy of a page that leaves the package as it is."
    notebook = json.loads(page.read_text(encoding='utf-8'))
    notebook['cells'] = [cell for cell in notebook['cells'] if 'nbdev_export()' not in ''.join(cell['source'])]
    copy.write_text(json.dumps(notebook), encoding='utf-8')
    return copy


@pytest.mark.parametrize('name', PAGES)
def test_tables_are_those_of_the_log(name, tmp_path, monkeypatch):
    page = NBS / f'{name}.ipynb'
    monkeypatch.chdir(page.parent)
    copy = without_export(page, tmp_path / 'page.ipynb')
    CaptureShell(path=page.parent).execute(copy, dest=tmp_path / 'again.ipynb', exc_stop=True)
    stored = tables(page)
    again = tables(tmp_path / 'again.ipynb')
    assert len(stored) >= (1 if name == 'index' else 4)
    for cell in stored.keys() | again.keys():
        assert again.get(cell) == stored.get(cell), cell


def test_only_these_pages_are_left_to_this_test():
    "`make test` runs every notebook once: those that it skips are run here."
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    skipped = re.search(r'^COMPARED := (.*)$', makefile, re.M)[1].split('|')
    assert sorted(skipped) == sorted(name.split('/')[-1] for name in PAGES)
    names = [path.stem for path in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts]
    assert all(names.count(name) == 1 for name in skipped)


@pytest.mark.parametrize('study', LOGS)
def test_log_is_whole(study):
    folder = NBS / 'results' / f'study_{study}'
    run = json.loads((folder / 'run.json').read_text(encoding='utf-8'))
    assert {p.name.removesuffix('.csv.gz') for p in folder.glob('*.csv.gz')} == LOGS[study]
    assert run['command'].startswith(f'omnisapiens-nb study {study} --seeds {run["seeds"]}')
    assert run['seeds'] >= SEEDS.get(study, 5)
    assert {'commit', 'cores', 'machine', 'python', 'torch', 'transformers'} <= run.keys() and not run.get('resumed')


def test_all_studies_fit_the_budget():
    runs = [json.loads((NBS / 'results' / f'study_{study}' / 'run.json').read_text(encoding='utf-8')) for study in LOGS]
    assert sum(run['seconds'] * run['cores'] for run in runs) < HOURS * 3600
