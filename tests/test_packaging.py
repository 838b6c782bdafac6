"What is published and what it needs: files of wheel and source, and the package where its extras are missing."

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, required, shared_once
from packaging.requirements import Requirement

SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']
# What is read to build it, what a reader of the source wants, and what setuptools adds
SOURCE = {'CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'MANIFEST.in', 'README.md', 'constraints.txt', 'settings.ini'}
SOURCE |= {'pyproject.toml', 'setup.py', 'setup.cfg', 'PKG-INFO', 'omnisapiens_nb', 'omnisapiens_nb.egg-info'}


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    "A wheel and a source archive of the files that git tracks."

    def make(folder):
        tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        source = folder / 'source'
        for name in filter(None, tracked.split('\0')):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
        command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, source]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    return shared_once(tmp_path_factory, 'built', make)


def modules():
    "Files of the package in the repository."
    package = ROOT / 'omnisapiens_nb'
    return {p.relative_to(ROOT).as_posix() for p in package.rglob('*.py')}


def test_wheel_holds_the_package_alone(built):
    (wheel,) = built.glob('*.whl')
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {f for f in files if '.dist-info/' not in f} == modules()


def test_source_holds_what_it_is_built_from(built):
    (archive,) = built.glob('*.tar.gz')
    files = {f.name.partition('/')[2] for f in tarfile.open(archive).getmembers() if f.isfile()}
    assert {f.partition('/')[0] for f in files} <= SOURCE
    assert {f for f in files if f.startswith('omnisapiens_nb/')} == modules()


def test_requirements_are_ranges():
    "Exact versions stand in constraints.txt alone, so that the package installs beside others."
    every = [r for key in SETTINGS if key.endswith('requirements') for r in SETTINGS[key].split()]
    assert not [r for r in every if '==' in r]


def needed(names):
    "Distributions and all that they need here, without extras."
    found = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace('_', '-')
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(dict(extra='')):
                waiting.append(requirement.name)
    return found.values()


def environment(folder, built, *names):
    "A fresh virtual environment with the wheel and links to some distributions that are installed here."
    venv.create(folder, symlinks=True)
    (site,) = folder.glob('lib/python*/site-packages')
    for distribution in needed(names):
        for top in {f.parts[0] for f in distribution.files if f.parts[0] not in ('..', '__pycache__')}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    (wheel,) = built.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(site)
    return folder / 'bin' / 'python'


def run(python, *command):
    "A command in an environment, without the path of the tests."
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    return subprocess.run([python, *map(str, command)], capture_output=True, text=True, cwd='/', env=clean)


@pytest.fixture(scope='module')
def core(tmp_path_factory, built):
    "An environment with the requirements of the package and no extra."
    names = [Requirement(r).name for r in SETTINGS['requirements'].split()]
    return environment(tmp_path_factory.mktemp('core') / 'venv', built, *names)


HARPO = """
from omnisapiens_nb.rl.harpo import Harpo
step = Harpo()([1.0, 0.0, 0.5, 1.0], ['p', 'p', 'q', 'q'], ['a', 'a', 'b', 'b'])
print(step.advantages.tolist())
"""


def test_harpo_needs_torch_and_numpy_alone(tmp_path, built):
    python = environment(tmp_path / 'venv', built, 'torch', 'numpy')
    result = run(python, '-c', HARPO)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('[')
    assert 'No module named' in run(python, '-c', 'import pandas').stderr


WITHOUT_EXTRAS = ['atlas.curate', 'atlas.check', 'atlas.store', 'atlas.leakage', 'atlas.cards', 'cli', 'rl.advantages']
WITHOUT_EXTRAS += ['rl.harpo', 'rl.rewards', 'evaluation.metrics', 'evaluation.uncertainty', 'evaluation.comparison']
WITHOUT_EXTRAS += ['evaluation.scores', 'evaluation.seeds', 'sft.heads', 'sft.bam', 'runs.folders', 'runs.machine']


def test_core_needs_no_extra(core):
    lines = [f'import omnisapiens_nb.{name}' for name in WITHOUT_EXTRAS]
    lines.append('import sys; assert not {"transformers", "av", "matplotlib"} & set(sys.modules)')
    result = run(core, '-c', '\n'.join(lines))
    assert result.returncode == 0, result.stderr
    helped = run(core, '-m', 'omnisapiens_nb.cli', '--help')
    assert helped.returncode == 0 and 'curate' in helped.stdout


@pytest.mark.parametrize(
    'extra, command',
    [
        ('train', ['sft', '--config', 'sft.yaml']),
        ('train', ['rl', '--config', 'rl.yaml']),
        ('train', ['predict', '--model', 'm', '--atlas', 'a', '--out', 'o']),
        ('media', ['mini', '--out', 'OUT']),
        ('report', ['evaluate', '--atlas', 'a', '--predictions', 'p', '--out', 'OUT']),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_missing_extra_is_named(core, tmp_path, extra, command):
    command = [str(tmp_path / 'out') if word == 'OUT' else word for word in command]
    result = run(core, '-m', 'omnisapiens_nb.cli', *command)
    assert result.returncode == 1
    assert f'pip install "omnisapiens_nb[{extra}]"' in result.stderr
    assert result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr


IMPORTS = """
import importlib, json, pkgutil
import omnisapiens_nb
said = {}
for module in pkgutil.walk_packages(omnisapiens_nb.__path__, 'omnisapiens_nb.'):
    try:
        importlib.import_module(module.name)
    except ImportError as e:
        said[module.name] = str(e)
    else:
        said[module.name] = ''
print(json.dumps(said))
"""


def test_every_import_names_its_extra(core):
    result = run(core, '-c', IMPORTS)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert len(said) > 90
    silent = {name: message for name, message in said.items() if message and 'pip install "omnisapiens' not in message}
    assert not silent
    assert 'pip install "omnisapiens_nb[train]"' in said['omnisapiens_nb.sft.model']


def test_core_curates_and_checks_rows_of_words(core, tmp_path):
    "Rows without media, from a source to an Atlas, where nothing can decode a clip."
    folder = Path(tmp_path)
    script = f"""
from pathlib import Path
from omnisapiens_nb.atlas.mini.mmpsy import write_mmpsy
write_mmpsy(Path({str(folder / 'mmpsy')!r}))
"""
    written = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=ROOT)
    assert written.returncode == 0, written.stderr
    made = run(
        core, '-m', 'omnisapiens_nb.cli', 'curate', '--source', f'mmpsy={folder}/mmpsy', '--out', folder / 'atlas'
    )
    assert made.returncode == 0, made.stderr
    checked = run(core, '-m', 'omnisapiens_nb.cli', 'check', folder / 'atlas')
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_python_is_tested():
    "A workflow installs and runs the whole check on every Python from the lowest that is allowed to Colab's own."
    workflow = (ROOT / '.github' / 'workflows' / 'test.yml').read_text(encoding='utf-8')
    job = yaml.safe_load(workflow)['jobs']['test']
    versions = job['strategy']['matrix']['python']
    lowest = int(SETTINGS['min_python'].partition('.')[2])
    assert versions == [f'3.{minor}' for minor in range(lowest, 14)] and not job['strategy']['fail-fast']
    (set_up,) = [step for step in job['steps'] if 'setup-python' in step.get('uses', '')]
    assert set_up['with']['python-version'] == '${{ matrix.python }}'
    commands = '\n'.join(step.get('run', '') for step in job['steps'])
    assert commands.index('make install') < commands.index('make lint') < commands.index('make test')


def test_licences_are_as_the_page_on_extras_says():
    "openSMILE's package says MIT and contains audEERING's terms; FFmpeg is under the LGPL and comes with x264."
    if find_spec('opensmile') is None:
        required('no opensmile: install the extra features')
    package = metadata.distribution('opensmile')
    terms = [file.read_text() for file in package.files if 'licenses' in file.parts]
    assert 'MIT' in str(package.metadata.json)
    assert any('audEERING Research License' in text for text in terms)
    said = run(Path(sys.executable), '-m', 'av', '--version').stdout
    assert 'library license: LGPL version 3 or later' in said and '--enable-libx264' in said


def commands_of(workflow, job):
    "What a workflow runs that installs every extra the whole check has, each week."
    read = yaml.safe_load((ROOT / '.github' / 'workflows' / f'{workflow}.yml').read_text(encoding='utf-8'))
    assert 'cron' in read[True]['schedule'][0]  # YAML reads the word `on` as true
    commands = '\n'.join(step.get('run', '') for step in read['jobs'][job]['steps'])
    ci = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
    ours, theirs = (re.search(r'make install EXTRAS=(\S+)', text)[1].split(',') for text in (commands, ci))
    assert ours == theirs and all(f'{extra}_requirements' in SETTINGS for extra in ours)
    return commands


def test_the_audit_reads_licences_and_known_holes():
    commands = commands_of('audit', 'packages')
    assert 'pip-licenses' in commands and '--fail-on' in commands and 'pip-audit --path' in commands


def test_what_is_sampled_is_tested_wholly_every_week():
    assert commands_of('everything', 'test-all').endswith('make test-all')
