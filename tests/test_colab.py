"""The notebooks for Colab: their cells in step with tools/colab.py, pins with constraints.txt, torch never among
them, nothing done elsewhere.
"""

import json
import re
import sys

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import colab

CELLS = ['colab_badge', 'colab_install', 'colab_import', 'colab_versions']
ALL = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
LISTED = [ROOT / 'nbs' / f'{name}.ipynb' for name in colab.NOTEBOOKS]
listed = pytest.mark.parametrize('path', LISTED, ids=lambda p: p.stem)


def cells(path):
    return {c['id']: ''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']}


def pinned(cell):
    return dict(re.findall(r'([\w.-]+)==([\w.]+)', cell))


def test_cells_are_in_step():
    "`make export` would change nothing."
    for path, text in colab.notebooks():
        assert path.read_text(encoding='utf-8') == text, f'{path.relative_to(ROOT)}: run `make export`'


def test_no_other_notebook_has_a_badge():
    for path in set(ALL) - set(LISTED):
        found = cells(path)
        assert not any(name.startswith('colab_') for name in found) and not any(
            'colab.research.google.com/github' in text for text in found.values()
        ), path
        assert not {'accelerator', 'colab'} & set(json.loads(path.read_text(encoding='utf-8'))['metadata']), path


@listed
def test_install_follows_the_first_idea(path):
    "Title, badge, what the page is about; then the install cell, before any code that needs it."
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    ids = [cell['id'] for cell in found]
    place = ids.index('colab_install')
    assert ids[place : place + 3] == CELLS[1:]
    assert not any(map(colab.runs, found[:place]))
    prose = [cell['id'] for cell in found[:place] if cell['cell_type'] == 'markdown']
    assert len(prose) > 2, 'nothing between the badge and the install cell says what the page is about'


def test_install_cell_has_its_place():
    def cell(kind, source):
        return dict(cell_type=kind, source=source.splitlines(True))

    directive = cell('code', '#| default_exp rl.x')
    imports = cell('code', '#| export\nimport torch')
    text = cell('markdown', 'An idea.')
    learn = cell('markdown', '**You will learn**\n- this')
    assert colab.behind_the_idea([text, learn, imports, text]) == 2
    assert colab.behind_the_idea([directive, text, text, imports]) == 2
    assert colab.behind_the_idea([directive, imports, learn]) == 0


@listed
def test_setup_is_folded_on_colab(path):
    found = {c['id']: c for c in json.loads(path.read_text(encoding='utf-8'))['cells']}
    for name in ('colab_install', 'colab_import'):
        hide, title, *_ = ''.join(found[name]['source']).splitlines()
        assert (hide, found[name]['metadata']) == ('#| hide', dict(cellView='form'))
        assert title.startswith('# @title ')


@listed
def test_badge_is_under_the_title(path):
    assert list(cells(path))[1] == CELLS[0]
    badge = cells(path)['colab_badge']
    owner, branch, file = re.search(
        r'colab\.research\.google\.com/github/([\w-]+/[\w-]+)/blob/(\w+)/([^)]+)\)', badge
    ).groups()
    assert (
        ROOT / file == path
        and f'https://github.com/{owner}' == colab.SETTINGS['git_url']
        and branch == colab.SETTINGS['branch']
    )
    assert re.search(r'Needs a (CPU|GPU).* (minutes?|minute) and [\d.]+ GB', badge)


@listed
def test_pins_are_those_of_constraints(path):
    cell = cells(path)['colab_install']
    tested = {
        colab.canonical(l): l.split('==')[1].strip()
        for l in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
        if '==' in l
    }
    found = pinned(cell)
    if colab.NOTEBOOKS[path.relative_to(ROOT / 'nbs').with_suffix('').as_posix()] == 'GPU':
        found = dict(found.items() - pinned(' '.join(colab.FOUR_BIT)).items())
    assert found and {colab.canonical(n): v for n, v in found.items()} == {
        colab.canonical(n): tested[colab.canonical(n)] for n in found
    }
    never = re.compile(r'torch\w*|triton|nvidia.*|cuda.*|vllm|numpy|pandas|scipy')
    assert not [n for n in found if never.fullmatch(colab.canonical(n))]
    installs = [l.strip() for l in cell.splitlines() if 'pip install' in l]
    assert len(installs) == 1
    assert installs[0].startswith('%pip install -q -c /content/kept.txt "/content/omnisapiens_nb[all]" ')


def test_every_requirement_is_pinned_or_brought():
    named = re.search(r'omnisapiens_nb\[(.+)\]', colab.SETTINGS['all_requirements'])[1].split(',')
    keys = ['requirements', *(f'{extra}_requirements' for extra in (*named, colab.EXTRA))]
    wanted = {colab.canonical(r) for key in keys for r in colab.SETTINGS[key].split()}
    wanted.discard(colab.canonical(colab.SETTINGS['lib_name']))
    known = {colab.canonical(n) for n in colab.PINNED + colab.KEPT}
    assert wanted <= known, f'neither pinned in the install cell nor among what Colab brings: {wanted - known}'
    assert not set(map(colab.canonical, colab.PINNED)) & {*colab.KEPT, *colab.RELATIVES}


@listed
def test_nothing_is_done_elsewhere(path, monkeypatch, tmp_path):
    from execnb.shell import CaptureShell

    monkeypatch.chdir(tmp_path)
    shell = CaptureShell()
    ran = []
    for name in ('system', 'run_line_magic', 'run_cell_magic'):
        setattr(shell, name, lambda *args, **kwargs: ran.append(args))
    before = set(shell.user_ns)
    shell.run(cells(path)['colab_install'])
    assert (
        not ran
        and not {n for n in set(shell.user_ns) - before if not n.startswith('_')}
        and not list(tmp_path.iterdir())
    )


def test_something_is_done_on_colab():
    "The cell of one notebook in a shell that says it is Colab's and only writes down what it is told to do."
    from IPython.core.interactiveshell import InteractiveShell

    shell, ran = type('Shell', (InteractiveShell,), {'__module__': 'google.colab'})(), []
    shell.system = lambda command: ran.append(shell.var_expand(command))
    shell.run_line_magic = lambda name, line, *args, **kwargs: ran.append(f'%{name} {line}')
    shell.user_ns['get_ipython'] = lambda: shell
    shell.run_cell(cells(ROOT / 'nbs' / 'rl' / '11_loop.ipynb')['colab_install']).raise_error()
    assert [c.split()[0] for c in ran] == ['test', 'pip', '%pip', '%cd']
    assert (
        ran[1].startswith("pip list --format=freeze | grep -iE '^(")
        and ran[1].endswith('> /content/kept.txt')
        and ran[-1] == '%cd -q /content/omnisapiens_nb/nbs/rl'
    )
    assert pinned(ran[2]) == pinned(' '.join(colab.pins('rl/11_loop')))


@listed
def test_versions_table(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    found, names = cells(path), {}
    exec(found['colab_import'], names)
    table = eval(found['colab_versions'], names)
    assert {'torch', 'transformers', 'trl', 'peft', 'datasets'} <= set(table.index) and list(table.columns) == [
        'version',
        'tested with',
        'note',
    ]


def test_gpu_metadata():
    for path in LISTED:
        metadata = json.loads(path.read_text(encoding='utf-8'))['metadata']
        gpu = colab.NOTEBOOKS[path.relative_to(ROOT / 'nbs').with_suffix('').as_posix()] == 'GPU'
        assert (metadata.get('accelerator'), metadata.get('colab')) == (
            ('GPU', {'gpuType': 'T4'}) if gpu else (None, None)
        )


def test_a_missing_notebook_is_told(monkeypatch):
    monkeypatch.setitem(colab.NOTEBOOKS, 'rl/99_absent', 'CPU')
    with pytest.raises(SystemExit, match='rl/99_absent'):
        list(colab.notebooks())


def test_a_notebook_without_a_time_is_told():
    with pytest.raises(SystemExit, match='benchmarks/notebooks.py pinned rl/11_loop'):
        colab.needs('rl/11_loop', dict(notebooks={}))


def test_python_of_colab(tmp_path, capsys):
    "The weekly workflow takes Colab's own Python from the file in which Colab names it, and stops where it does not."
    file = tmp_path / 'os-info.txt'
    file.write_text('# python --version\nUbuntu 22.04.5 LTS\nPython 3.13.15\nR version 4.6.1\n')
    colab.own_python(file)
    assert capsys.readouterr().out == 'python=3.13\n'
    file.write_text('Ubuntu 22.04.5 LTS\n')
    with pytest.raises(SystemExit, match='no line Python'):
        colab.own_python(file)
    steps = yaml.safe_load((ROOT / '.github' / 'workflows' / 'colab.yml').read_text())['jobs']['install-cell']['steps']
    (set_up,) = [step for step in steps if 'setup-python' in step.get('uses', '')]
    (reads,) = [step for step in steps if 'tools/colab.py python' in step.get('run', '')]
    assert set_up['with']['python-version'] == f'${{{{ steps.{reads["id"]}.outputs.python }}}}'
    assert steps.index(reads) < steps.index(set_up)
