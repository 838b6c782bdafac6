"An Atlas described in one go, by two processes, and killed at any moment: the same bytes; a damaged medium is named."

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas, open_splits, rewrite_atlas
from omnisapiens_nb.runs.describe import BLOCK, describe_atlas

CALL = 'import sys; from omnisapiens_nb.runs.describe import describe_atlas; describe_atlas(sys.argv[1], sys.argv[2])'


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp('describe')
    write_cremad(folder / 'cremad', actors=6)
    write_siq2(folder / 'siq2', videos=(6, 2, 1))
    write_mustard(folder / 'mustard', rows=12)
    return curate({n: folder / n for n in ('cremad', 'siq2', 'mustard')}, folder / 'atlas').folder


@pytest.fixture(scope='module')
def whole(atlas):
    return contents(describe_atlas(atlas, atlas.with_name('whole')))


def test_two_processes_give_the_same_bytes(atlas, whole):
    assert contents(describe_atlas(atlas, atlas.with_name('two'), workers=2)) == whole


@pytest.mark.parametrize('seed', range(3))
def test_killed_at_a_random_moment(atlas, whole, seed):
    "So many blocks are there, and a moment more; in that moment a fast machine may have renamed the folder."
    draw, out = random.Random(seed), atlas.with_name(f'killed{seed}')
    partial, blocks = (
        atlas.with_name(out.name + '.partial'),
        sum(-(-len(s) // BLOCK) for s in open_splits(atlas).values()),
    )
    run = subprocess.Popen([sys.executable, '-c', CALL, str(atlas), str(out)], stderr=subprocess.DEVNULL)
    target, limit = draw.randrange(blocks - 1), time.monotonic() + 120
    while run.poll() is None and len(list(partial.glob('blocks/*.parquet'))) < target and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(draw.random() * 0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait() in (-signal.SIGKILL, 0)  # 0: it was faster than we
    if not out.exists():
        assert len(list(partial.glob('blocks/*.parquet'))) >= target
        describe_atlas(atlas, out)
        assert not partial.exists()
    assert contents(out) == whole


def test_finished_blocks_are_not_made_again(atlas, whole, monkeypatch):
    from omnisapiens_nb.runs import describe

    made, usual = [], describe._describe_block

    def until(block):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(block.file.name)
        usual(block)

    monkeypatch.setattr(describe, '_describe_block', until)
    with pytest.raises(KeyboardInterrupt):
        describe_atlas(atlas, atlas.with_name('again'))
    monkeypatch.setattr(describe, '_describe_block', lambda block: (made.append(block.file.name), usual(block)))
    assert contents(describe_atlas(atlas, atlas.with_name('again'))) == whole
    assert len(made) == len(set(made))


@pytest.mark.parametrize(
    'workers, name, column, data',
    (
        (1, 'prosody', 'audios', b''),
        (1, 'motion', 'videos', b'no video'),
        (1, 'prosody', 'audios', b'RIFF noise'),
        (2, 'prosody', 'audios', b'RIFF noise'),
    ),
)
def test_a_damaged_medium_is_named(atlas, tmp_path, workers, name, column, data):
    row = next(r for r in reversed(open_atlas(atlas)) if r[column])
    damaged = rewrite_atlas(
        atlas, tmp_path / 'damaged', lambda r: r | {column: [data]} if r['id'] == row['id'] else r, {}
    )
    with pytest.raises(SourceError, match=f'damaged.*row {row["id"]}: {name}: the file'):
        describe_atlas(damaged, tmp_path / 'out', [name], workers)
    assert not (tmp_path / 'out').exists()


def test_a_worker_that_is_killed(atlas, whole, tmp_path, monkeypatch):
    "As by the kernel when memory runs out."
    from omnisapiens_nb.runs import describe

    monkeypatch.setattr(describe, '_describe_block', _die_after_the_first)
    with pytest.raises(SourceError, match='run again with fewer workers; the blocks that are done are kept'):
        describe_atlas(atlas, tmp_path / 'out', workers=2)
    monkeypatch.undo()
    kept = {file: file.stat().st_mtime_ns for file in _blocks_of(tmp_path)}
    assert kept
    monkeypatch.setattr(describe, '_fill', _stop)
    with pytest.raises(KeyboardInterrupt):
        describe_atlas(atlas, tmp_path / 'out')
    monkeypatch.undo()
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert contents(describe_atlas(atlas, tmp_path / 'out')) == whole


def _blocks_of(folder):
    return list(folder.glob('out.partial/blocks/*.parquet'))


def _die_after_the_first(block):
    from omnisapiens_nb.runs.describe import _describe_block

    if block.rows.start == 0:
        _describe_block(block)
        return
    while not _blocks_of(block.file.parents[2]):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(*_):
    raise KeyboardInterrupt
