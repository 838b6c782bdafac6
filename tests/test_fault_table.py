"The table of faults: made from its log, which has every fault, and names what exists."

import json
import re
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import faults


def test_the_log_has_every_fault_and_the_readme_shows_it():
    log = json.loads(faults.LOG.read_text(encoding='utf-8'))
    stated = [(row['fault'], row['promise'], row['where']) for row in log['rows']]
    assert stated == faults.TABLE
    assert all(row['tried'] > 0 and row['failed'] == 0 for row in log['rows'])
    assert faults.README.read_text(encoding='utf-8') == faults.readme(log)


def test_as_many_damages_as_the_table_says():
    source = (ROOT / 'tests' / 'test_faults.py').read_text(encoding='utf-8')
    assert 'two thousand' in faults.TABLE[0][0] and re.search(r'^DAMAGED = 2000 if', source, re.M)


def test_what_is_named_exists():
    source = (ROOT / 'tests' / 'faults' / 'fuzz.py').read_text(encoding='utf-8')
    targets = set(re.findall(r'^def fuzz_(\w+)', source, re.M))
    source = (ROOT / 'tests' / 'faults' / 'stops.py').read_text(encoding='utf-8')
    kinds = set(re.findall(r'^- `(\w+)`', source, re.M)) - {'sample'}
    for _, _, where in faults.TABLE:
        kind, _, target = where.partition(' ')
        if kind == 'fuzz':
            assert target in targets
            targets.remove(target)
        elif kind == 'stops':
            assert target in kinds
            kinds.remove(target)
        else:
            assert (ROOT / 'tests' / f'{where}.py').is_file(), where
    assert not targets and not kinds


def test_every_command_that_writes_from_data_is_stopped():
    from omnisapiens_nb.cli import app

    named = {info.name or info.callback.__name__.replace('_', '-') for info in app.registered_commands}
    source = (ROOT / 'tests' / 'faults' / 'starts.py').read_text(encoding='utf-8')
    stopped = set(re.findall(r"^    '([\w-]+)[\w, ]*': Command\(", source, re.M))
    assert named - stopped == {'check', 'cards', 'mini', 'start'}  # The last is init-model's older name
    assert stopped - named == {'judge'}  # `evaluate` with a judge
    page = (ROOT / 'nbs' / 'guides' / '12_faults.ipynb').read_text(encoding='utf-8')
    assert 'each command but `check`, `cards` and `mini`' in page
