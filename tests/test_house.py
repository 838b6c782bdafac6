"The house is in order: exports, README and notebooks in step, cells as long as agreed, pins in one place."

import re
import subprocess
import sys
from configparser import ConfigParser

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'tools'))
import house

SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']


@pytest.mark.parametrize('path', house.notebooks(), ids=lambda p: p.stem)
@pytest.mark.parametrize('name', house.CHECKS)
def test_notebooks(name, path):
    assert not list(house.CHECKS[name](path))


def test_lengths_all_together():
    assert not house.too_long()


def test_exported_names_are_described():
    assert not list(house.undescribed())


def test_exported_names_are_demonstrated():
    assert not list(house.undemonstrated())


def test_readme_is_in_step(tmp_path):
    subprocess.run([sys.executable, ROOT / 'tools' / 'readme.py', tmp_path / 'README.md'], check=True)
    assert (ROOT / 'README.md').read_text(encoding='utf-8') == (tmp_path / 'README.md').read_text(encoding='utf-8')


def test_one_owner():
    address = SETTINGS['git_url']
    assert address == f'https://github.com/{SETTINGS["user"]}/{SETTINGS["repo"]}'
    for name in ('README.md', 'CITATION.cff', '.github/ISSUE_TEMPLATE/config.yml'):
        found = set(re.findall(r'https://github\.com/[\w-]+/omnisapiens_nb', (ROOT / name).read_text(encoding='utf-8')))
        assert found == {address}
    assert f'version: {SETTINGS["version"]}' in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')


def test_every_requirement_is_pinned():
    def name(line):
        return re.split(r'[<>=!~\[ ]', line.strip())[0].lower().replace('_', '-')

    pinned = {name(l) for l in (ROOT / 'constraints.txt').read_text().splitlines() if '==' in l}
    wanted = {name(r) for key in SETTINGS if key.endswith('requirements') for r in SETTINGS[key].split()}
    assert wanted <= pinned, wanted - pinned


def test_imports_go_one_way():
    order = ['atlas', 'evaluation', 'sft', 'rl']
    for i, room in enumerate(order):
        for path in (ROOT / 'omnisapiens_nb' / room).glob('*.py'):
            reached = set(re.findall(r'^\s*from \.\.(\w+)', path.read_text(encoding='utf-8'), re.M))
            assert not reached & set(order[i + 1 :]), path


def test_light_import():
    code = "import sys, omnisapiens_nb; print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
    )


def test_cards_are_in_step():
    from omnisapiens_nb.atlas.cards import DATASETS, card

    committed = {p.stem: p.read_text(encoding='utf-8') for p in (ROOT / 'data_cards').glob('*.md')}
    assert committed == {key: card(key) for key in DATASETS}


def test_recipes_of_the_readme_are_valid():
    import yaml

    from omnisapiens_nb.runs.recipes import RLRecipe, SFTRecipe

    found = re.findall(r'```yaml\n(.*?)```', (ROOT / 'README.md').read_text(encoding='utf-8'), re.S)
    for kind, text in zip((SFTRecipe, RLRecipe), found, strict=True):
        kind.model_validate(yaml.safe_load(text))


def test_contributing_names_what_is_there():
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        '\n'
    )
    named = set(re.findall(r'`?\b((?:nbs|tests|benchmarks|docs|\.github)/[\w./]+\.\w+)', text))
    assert named and named <= set(tracked), named - set(tracked)
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M))
    assert (
        set(re.findall(r'\bmake ([a-z-]+)`?(?= |\n|,|;|`)', '\n'.join(re.findall(r'`[^`\n]+`|^make .*', text, re.M))))
        <= targets
    )
    mapped = set(re.findall(r'^\| `([^`]+)` \|', text, re.M))
    folders = {p.split('/')[0] for p in tracked if '/' in p} | {
        '/'.join(p.split('/')[:2]) for p in tracked if p.startswith('nbs/') and p.count('/') > 1
    }
    assert mapped == folders


@pytest.mark.parametrize(
    'path',
    sorted(p for p in (ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml') if p.stem != 'config'),
    ids=lambda p: p.stem,
)
def test_issue_forms_are_what_github_reads(path):
    import yaml

    form = yaml.safe_load(path.read_text(encoding='utf-8'))
    assert set(form) == {'name', 'description', 'labels', 'body'}
    fields = [b for b in form['body'] if b['type'] != 'markdown']
    assert {b['type'] for b in fields} <= {'input', 'textarea', 'dropdown', 'checkboxes'}
    assert len({b['id'] for b in fields}) == len({b['attributes']['label'] for b in fields}) == len(fields)
    for b in fields:
        assert bool(b['attributes'].get('options')) == (b['type'] in ('dropdown', 'checkboxes'))


def test_hooks_are_local_and_have_every_check():
    import yaml

    repos = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))['repos']
    assert [r['repo'] for r in repos] == ['local']
    entries = {h['id']: h['entry'] for h in repos[0]['hooks']}
    assert {k: v for k, v in entries.items() if 'tools/house.py' in v} == {
        k: f'.venv/bin/python tools/house.py {k}' for k in house.CHECKS
    }
