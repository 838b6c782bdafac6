"""What tests share: files outside the project (that they are missing is a failure with OMNISAPIENS_REQUIRE_ALL=1),
the command line as users call it, a small Atlas and a model that was warmed up on it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
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
def golden(shared):
    "Read a file of recorded values by its name."
    return lambda name: json.loads((shared / 'golden' / f'{name}.json').read_text(encoding='utf-8'))


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


@contextmanager
def one_at_a_time(tmp_path_factory, name):
    "The folder that all processes of pytest-xdist share, for one of them at a time."
    shared_by_all = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared_by_all = shared_by_all.parent
    with open(shared_by_all / f'{name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield shared_by_all


@pytest.fixture(scope='session')
def mini_sources(tmp_path_factory):
    "A folder with four small synthetic sources, written once for all tests; copy what you change."
    from omnisapiens_nb.atlas.sources.registry import WRITERS

    sizes = dict(
        cremad=dict(actors=8),
        meld=dict(dialogues=(5, 2, 2)),
        mustard=dict(rows=60),
        siq2=dict(videos=(8, 2, 2)),
    )
    with one_at_a_time(tmp_path_factory, 'mini_sources') as shared_by_all:
        folder = shared_by_all / 'mini_sources'
        if not folder.exists():
            for name, size in sizes.items():
                WRITERS[name](shared_by_all / 'mini_sources.partial' / name, 0, **size)
            (shared_by_all / 'mini_sources.partial').rename(folder)
    return folder


@pytest.fixture(scope='session')
def mini_atlas(tmp_path_factory, mini_sources):
    "An Atlas of voices, remarks and films with open questions, curated once for all tests; not to be changed."
    from omnisapiens_nb.atlas.curate import curate

    with one_at_a_time(tmp_path_factory, 'mini_atlas') as shared_by_all:
        folder = shared_by_all / 'mini_atlas'
        if not folder.exists():
            curate({name: mini_sources / name for name in ('cremad', 'mustard', 'siq2')}, folder)
    return folder


@pytest.fixture(scope='session')
def warm_start(tmp_path_factory, mini_atlas):
    "A tiny model after a few steps on the small Atlas, made once for all tests; not to be changed."
    from omnisapiens_nb.runs.recipes import SFTRecipe
    from omnisapiens_nb.runs.train import run_sft, start_model
    from omnisapiens_nb.sft.warmstart import SFTConfig

    with one_at_a_time(tmp_path_factory, 'warm_start') as shared_by_all:
        folder = shared_by_all / 'warm_start'
        if not folder.exists():
            start = start_model(mini_atlas, shared_by_all / 'start')
            run_sft(SFTRecipe(atlas=mini_atlas, out=folder, model=str(start), train=SFTConfig(steps=20)))
    return folder


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The docs, built once for all tests, also where several processes share them."
    if not shutil.which('npm'):
        required('no npm: install Node.js to build the docs')
    if not find_spec('sphinx'):
        required('no sphinx: `make docs` installs it')
    with one_at_a_time(tmp_path_factory, 'docs') as shared_by_all:
        done = shared_by_all / 'docs.built'
        if not done.exists():
            result = subprocess.run([sys.executable, 'tools/build.py'], cwd=ROOT, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr[-3000:]
            done.touch()
    return ROOT / '_site'
