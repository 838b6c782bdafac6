"""The results pages of the studies say what their logs say: every table is computed again, and compared with the
one that is stored.
"""

import json

import pytest
from conftest import ROOT
from execnb.shell import CaptureShell

NBS = ROOT / 'nbs'
PAGES = (
    'studies/03_method_results',
    'studies/04_ablations',
    'studies/06_transfer_results',
    'studies/08_descriptor_results',
    'index',
)
LOGS = {
    'A': {'steps', 'answers'},
    'B': {'steps', 'rewards', 'answers', 'traces'},
    'C': {'transfer', 'held_out'},
    'D': {'answers'},
}
HOURS = 6  # Core-hours that all four may take together


def tables(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    texts = {
        c['id']: [
            next(o['data'][k] for k in ('text/markdown', 'text/html', 'text/plain') if k in o['data'])
            for o in c.get('outputs', [])
            if 'data' in o and 'image/png' not in o['data']
        ]
        for c in cells
    }
    return {cell: [''.join(t) for t in found] for cell, found in texts.items() if found}


@pytest.mark.parametrize('name', PAGES)
def test_tables_are_those_of_the_log(name, tmp_path, monkeypatch):
    page = NBS / f'{name}.ipynb'
    monkeypatch.chdir(page.parent)
    CaptureShell(path=page.parent).execute(page, dest=tmp_path / 'again.ipynb', exc_stop=True)
    stored, again = tables(page), tables(tmp_path / 'again.ipynb')
    assert len(stored) >= 4
    for cell in stored.keys() | again.keys():
        assert again.get(cell) == stored.get(cell), cell


@pytest.mark.parametrize('study', LOGS)
def test_log_is_whole(study):
    folder = NBS / 'results' / f'study_{study}'
    run = json.loads((folder / 'run.json').read_text(encoding='utf-8'))
    assert {p.name.removesuffix('.csv.gz') for p in folder.glob('*.csv.gz')} == LOGS[study]
    assert run['command'].startswith(f'omnisapiens-nb study {study} --seeds {run["seeds"]}') and run['seeds'] >= 5
    assert {'commit', 'cores', 'machine', 'python', 'torch', 'transformers'} <= run.keys() and not run.get('resumed')


def test_all_studies_fit_the_budget():
    runs = [json.loads((NBS / 'results' / f'study_{study}' / 'run.json').read_text(encoding='utf-8')) for study in LOGS]
    assert sum(run['seconds'] * run['cores'] for run in runs) < HOURS * 3600
