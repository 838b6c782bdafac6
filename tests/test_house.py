"""The house is in order: notebooks, modules and texts have the form that was agreed, and what is made from them is
in step.
"""

import json
import re
import subprocess
import sys
from configparser import ConfigParser

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import described
import house
import measures
import prose

SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']
ORDER = ['atlas', 'evaluation', 'sft', 'rl', 'runs', 'studies']  # A room imports from those before it
TRAINERS = {
    'rl.trl_trainer',
    'rl.trl_estimators',
    'rl.trl_grpo',
    'sft.trl_trainer',
}  # Need TRL at once


def read(name):
    "A file of the repository."
    return (ROOT / name).read_text(encoding='utf-8')


def tracked():
    "Names of the files that git tracks."
    found = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return found.splitlines()


@pytest.mark.parametrize('name', house.CHECKS)
def test_notebooks(name):
    found = house.CHECKS[name]
    assert not [f'{path.relative_to(ROOT)}: {fault}' for path in house.notebooks() for fault in found(path)]


PARTS = (measures.YOU_WILL_LEARN, '**You need**', '## What we saw', '## Next')


@pytest.mark.parametrize('path', measures.learning_path(), ids=lambda path: path.stem)
def test_a_page_of_the_learning_path_says_what_it_gives_and_needs(path):
    text = '\n\n'.join(''.join(cell['source']) for cell in measures.cells(path, 'markdown'))
    places = [text.find(part) for part in PARTS]
    assert -1 not in places and places == sorted(places)


def test_the_learning_path_speaks_to_its_reader():
    "More than ten times in a thousand words, in sentences of sixteen words or fewer in the mean."
    parts = [prose.counted(prose.prose_of(path)) for path in measures.learning_path()]
    total = prose.Prose(*map(sum, zip(*parts)))
    assert 1000 * total.reader / total.words > 10
    assert total.words / total.sentences < 16


@pytest.mark.parametrize(
    'source, faults',
    [
        ('plot()', 1),
        ('#| fig-alt: short\nplot()', 1),
        ('#| fig-alt: A curve that rises from zero to one.\nplot()', 0),
    ],
)
def test_a_picture_without_a_text_is_told(tmp_path, source, faults):
    cell = dict(cell_type='code', id='x', source=source, outputs=[dict(data={'image/png': ''})])
    page = tmp_path / 'page.ipynb'
    page.write_text(json.dumps(dict(cells=[cell])), encoding='utf-8')
    assert len(list(house.pictures(page))) == faults


@pytest.mark.parametrize(
    'source, faults',
    [
        ('test_eq(left.read_bytes(), right.read_bytes())', 1),
        ('assert left.read_bytes() == right.read_bytes()', 0),
        ('test_eq(len(names), 2)', 0),
    ],
)
def test_files_compared_byte_by_byte_are_told(tmp_path, source, faults):
    page = tmp_path / 'page.ipynb'
    page.write_text(json.dumps(dict(cells=[dict(cell_type='code', id='x', source=source)])), encoding='utf-8')
    assert len(list(house.comparisons(page))) == faults


def test_code_can_be_read_aloud():
    "Lines of cells and functions, all together; width and nodes per line, each module by itself too."
    assert not measures.too_long()
    assert not list(measures.too_wide())
    assert not list(measures.dense())


def test_a_dense_module_is_told(tmp_path):
    path = tmp_path / 'dense.py'
    path.write_text('def f(x): return {k: [g(v) for v in vs if v] for k, vs in h(x).items() if k in x and vs}\n')
    assert measures.nodes_per_line(path)['f:1'] > measures.BOUNDS['nodes']['p90']
    path.write_text('def f(x):\n    "Doc."\n    y = x\n    # Why\n    return y\n')
    assert measures.nodes_per_line(path) == {'f:1': 2.5}


def test_lint():
    result = subprocess.run([sys.executable, '-m', 'ruff', 'check', '.'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
    result = subprocess.run(
        [sys.executable, '-m', 'ruff', 'format', '--check', '.'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:]


def test_exported_names_are_described():
    assert not list(described.undescribed())


def test_exported_names_are_demonstrated():
    assert not list(described.undemonstrated())


def test_every_module_has_its_notebook_where_it_lies():
    for path in measures.modules():
        notebook = re.search(r'nbs/(\S+)\.ipynb', path.read_text(encoding='utf-8'))[1]
        room = measures.room_of(path, measures.PACKAGE)
        by_name = 'command' if path.stem == '__main__' else path.stem  # A page in underscores would be hidden
        assert notebook.split('/')[0] == (room if room != 'top' else by_name), path


def test_readme_is_in_step(tmp_path):
    subprocess.run([sys.executable, ROOT / 'tools' / 'readme.py', tmp_path / 'README.md'], check=True)
    assert read('README.md') == (tmp_path / 'README.md').read_text(encoding='utf-8')


def test_one_owner():
    address = SETTINGS['git_url']
    assert address == f'https://github.com/{SETTINGS["user"]}/{SETTINGS["repo"]}'
    for name in ('README.md', 'CITATION.cff', '.github/ISSUE_TEMPLATE/config.yml'):
        assert set(re.findall(r'https://github\.com/[\w-]+/omnisapiens_nb', read(name))) == {address}
    for name in ('CITATION.cff', 'README.md'):
        assert SETTINGS['version'] in re.findall(r'version(?:: | = \{)([\w.]+)', read(name)), name


def test_every_requirement_is_pinned():
    def name(line):
        return re.split(r'[<>=!~\[ ]', line.strip())[0].lower().replace('_', '-')

    pinned = {name(line) for line in read('constraints.txt').splitlines() if '==' in line}
    wanted = {name(r) for key in SETTINGS if key.endswith('requirements') for r in SETTINGS[key].split()}
    wanted.discard(name(SETTINGS['lib_name']))  # An extra that names others
    assert wanted <= pinned, wanted - pinned


def test_imports_go_one_way():
    for place, room in enumerate(ORDER):
        later = {*ORDER[place + 1 :], 'cli', 'colab', '__main__'}
        for path in (ROOT / 'omnisapiens_nb' / room).rglob('*.py'):
            text = path.read_text(encoding='utf-8')
            up = '.' * len(path.relative_to(ROOT / 'omnisapiens_nb').parts)
            reached = set(re.findall(rf'^\s*from {re.escape(up)}(\w+)', text, re.M))
            reached |= set(re.findall(r'^\s*from omnisapiens_nb\.(\w+)', text, re.M))
            assert not reached & later, path


def test_what_nobody_imports_at_its_head():
    "TRL but in the trainers, and what only the notebooks need."
    for path in measures.modules():
        text = path.read_text(encoding='utf-8')
        found = set(re.findall(r'^(?:import|from) (\w+)', text, re.M))
        allowed = {'trl'} if measures.module_name(path) in TRAINERS else set()
        assert not found & {'trl', 'nbdev', 'fastcore', 'execnb'} - allowed, path


def test_light_import():
    code = "import sys, omnisapiens_nb; print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'


def test_cards_are_in_step():
    from omnisapiens_nb.atlas.cards import DATASETS, card

    committed = {p.stem: p.read_text(encoding='utf-8') for p in (ROOT / 'data_cards').glob('*.md')}
    assert committed == {key: card(key) for key in DATASETS}


def test_recipes_of_the_guide_are_valid():
    from omnisapiens_nb.runs.recipes import RLRecipe, SFTRecipe

    page = ROOT / 'nbs' / 'guides' / '09_step_by_step.ipynb'
    prose = '\n'.join(''.join(cell['source']) for cell in measures.cells(page, 'markdown'))
    found = re.findall(r'```yaml\n(.*?)```', prose, re.S)
    for kind, text in zip((SFTRecipe, RLRecipe), found, strict=True):
        kind.model_validate(yaml.safe_load(text))


def test_contributing_names_what_is_there():
    text = read('CONTRIBUTING.md')
    files = tracked()
    named = set(re.findall(r'`?\b((?:nbs|tests|benchmarks|tools|\.github)/[\w./]+\.\w+)', text))
    assert named and named <= set(files), named - set(files)
    targets = set(re.findall(r'^([a-z-]+):', read('Makefile'), re.M))
    commands = '\n'.join(re.findall(r'`[^`\n]+`|^make .*', text, re.M))
    assert set(re.findall(r'\bmake ([a-z-]+)`?(?= |\n|,|;|`)', commands)) <= targets
    mapped = set(re.findall(r'^\| `([^`]+)` \|', text, re.M))
    folders = {f.split('/')[0] for f in files if '/' in f}
    rooms = {'/'.join(f.split('/')[:2]) for f in files if f.startswith('nbs/') and f.count('/') > 1}
    assert mapped == folders | rooms


FORMS = sorted(p for p in (ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml') if p.stem != 'config')


@pytest.mark.parametrize('path', FORMS, ids=lambda p: p.stem)
def test_issue_forms_are_what_github_reads(path):
    form = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert set(form) == {'name', 'description', 'labels', 'body'}
    fields = [b for b in form['body'] if b['type'] != 'markdown']
    assert {b['type'] for b in fields} <= {'input', 'textarea', 'dropdown', 'checkboxes'}
    assert len({b['id'] for b in fields}) == len({b['attributes']['label'] for b in fields}) == len(fields)
    for b in fields:
        assert bool(b['attributes'].get('options')) == (b['type'] in ('dropdown', 'checkboxes'))


def test_hooks_are_local_and_have_every_check():
    repos = yaml.safe_load(read('.pre-commit-config.yaml'))['repos']
    assert [r['repo'] for r in repos] == ['local']
    entries = {h['id']: h['entry'] for h in repos[0]['hooks']}
    checks = {k: v for k, v in entries.items() if 'tools/house.py' in v}
    assert checks == {k: f'.venv/bin/python tools/house.py {k}' for k in house.CHECKS}
    assert entries['lint'] == '.venv/bin/ruff check'
