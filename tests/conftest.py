"Where files outside the project are, what it means that they are not (OMNISAPIENS_REQUIRE_ALL=1: a failure), and the command line as users call it."

import fcntl
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def required(reason):
    "Skip with a reason; fail where the whole check is asked for."
    if os.environ.get('OMNISAPIENS_REQUIRE_ALL') == '1':
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope='session')
def shared():
    "The folder of reference values and real annotation files beside the project."
    folder = ROOT.parent / 'shared'
    if not folder.is_dir():
        required(f'no reference files at {folder}: put the folder `shared` beside the project')
    return folder


@pytest.fixture(scope='session')
def golden():
    "Read a file of recorded values by its name, see tests/golden/README.md."
    return lambda name: json.loads((ROOT / 'tests' / 'golden' / f'{name}.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='session')
def cli():
    "Call the command line in a process of its own."
    environment = os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
    return lambda *args, **kwargs: subprocess.run(
        [sys.executable, '-m', 'omnisapiens_nb.cli', *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
        **kwargs,
    )


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The docs, built once for all tests, also where several processes share them."
    if not shutil.which('npm'):
        required('no npm: install Node.js to build the docs')
    if not find_spec('sphinx'):
        required('no sphinx: `make docs` installs it')
    shared_by_all = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared_by_all = shared_by_all.parent
    with open(shared_by_all / 'docs.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := shared_by_all / 'docs.built').exists():
            result = subprocess.run([sys.executable, 'tools/build.py'], cwd=ROOT, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr[-3000:]
            done.touch()
    return ROOT / '_site'
