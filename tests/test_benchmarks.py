"The one script for a card, and the bench: what they keep of their parts, and what they say of faults."

import json
import sys

import pytest
from conftest import ROOT
from growth import growth

sys.path.insert(0, str(ROOT / 'benchmarks'))
import bench
import bench_data
import gpu
import pandas as pd
import sides
import whole_report

from omnisapiens_nb.evaluation.evaluate import score_models

WRITES = "import json, sys; json.dump(dict(peak_gib=3), open(sys.argv[1], 'w'))"
SCRIPTS = dict(
    good=WRITES,
    bad="raise MemoryError('80 GiB are too few')",
    slow=f'{WRITES}; sys.argv[1] and open(sys.argv[1]).close(); import time; time.sleep(60)',
)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    for name, text in SCRIPTS.items():
        (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
    monkeypatch.setattr(gpu, 'HERE', tmp_path)
    monkeypatch.setattr(gpu, 'PARTS', {name: (2 if name == 'slow' else 60, [f'{name}.py', ...]) for name in SCRIPTS})


def test_every_part_is_kept(parts, tmp_path):
    "A part that fails or is stopped takes none of the others with it; each is in the log, with the end of its words."
    out = tmp_path / 'log.json'
    with pytest.raises(SystemExit, match=r'bad: MemoryError: 80 GiB are too few\nslow: stopped after 2 seconds'):
        gpu.main(out)
    log = json.loads(out.read_text(encoding='utf-8'))
    assert list(log) == ['good', 'bad', 'slow']
    assert log['good']['peak_gib'] == log['slow']['peak_gib'] == 3 and log['good']['failed'] == []
    assert 'peak_gib' not in log['bad']


def test_a_part_again(parts, tmp_path):
    out = tmp_path / 'log.json'
    out.write_text(json.dumps(dict(slow=dict(peak_gib=5))), encoding='utf-8')
    gpu.main(out, 'good')
    assert json.loads(out.read_text(encoding='utf-8'))['slow'] == dict(peak_gib=5)
    with pytest.raises(SystemExit, match='no part is called fast; there are good, bad, slow'):
        gpu.main(out, 'fast')


def test_it_fits():
    "In the order of its worth, within fifteen minutes; each part names a script and a recipe that are there."
    assert list(gpu.PARTS) == ['rl_7b', 'sft_7b', 'rl_3b_in_16_gb']
    assert sum(limit for limit, _ in gpu.PARTS.values()) < 15 * 60
    for _, (script, what, *_) in gpu.PARTS.values():
        assert (gpu.HERE / script).is_file() and (script == 'gpu_sft.py' or what.is_file())


def test_a_missing_peer_is_named():
    with pytest.raises(SystemExit, match='beside no-such-thing: python -m pip install no-such-thing'):
        sides.need('no_such_thing', 'no-such-thing')
    with pytest.raises(SystemExit, match='no part nothing; choose among rows_bootstrap'):
        bench.main('nothing')


def row(**goals):
    "A row whose sides take a second each, of which the other one's counts fivefold."
    clock = iter(range(1000))
    how = dict(peer='y', share=0.2, clock=lambda: next(clock))
    return sides.beside('x', lambda: None, lambda: None, **how, **goals)


def test_both_sides_are_timed():
    found = row(times=4)
    assert (found['ours'], found['theirs'], found['ratio'], found['spread']) == ('1 s', '5 s', '5', '5 to 5')
    assert found['our_memory'] == found['their_memory'] == ''


@pytest.mark.parametrize(
    'goals, said, reached',
    [
        (dict(times=4), '≥ 4×', 'yes'),
        (dict(times=6), '≥ 6×', 'no'),
        (dict(times=4, within=0.5), '≥ 4×, ≤ 0.5 s', 'no'),
        (dict(more=-4), '≤ -4 s more', 'yes'),
        (dict(more=-5), '≤ -5 s more', 'no'),
    ],
)
def test_goals(goals, said, reached):
    found = row(**goals)
    assert (found['goal'], found['reached']) == (said, reached)


def test_a_side_says_what_it_took():
    "Its own seconds count; memory is that of the turns."
    took = [sides.Took(2, 30, 'a'), sides.Took(10, 200, 'a')]
    how = dict(peer='y', times=5, turns=2, calls=1, same=str)
    found = sides.beside('x', lambda: took[0], lambda: took[1], memory=0.2, **how)
    assert (found['ratio'], found['our_memory'], found['their_memory']) == ('5', '30 MiB', '200 MiB')
    assert (found['goal'], found['reached']) == ('≥ 5×, ≤ 0.2 of the memory', 'yes')
    assert sides.beside('x', lambda: took[0], lambda: took[1], memory=0.1, **how)['reached'] == 'no'
    with pytest.raises(ValueError, match='x: the two sides do not give the same'):
        sides.beside('x', lambda: took[0], lambda: sides.Took(1, result='b'), **how)


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is read where Linux has it')
def test_a_process_of_its_own():
    "Its memory is without ours, and without what it began with."
    ours = bytearray(300 << 20)
    small, large = (sides.apart(growth, size) for size in (1, 100))
    assert (small.result, large.result) == (1 << 20, 100 << 20) and len(ours) > large.result
    assert small.mebibytes < 20 and 90 < large.mebibytes < 130


def test_rows_of_the_bench_are_merged(tmp_path):
    path = tmp_path / 'bench.csv'
    first = pd.DataFrame([dict(what='a', ours='1 s'), dict(what='b', ours='2 s')])
    bench.merged(first, path).to_csv(path, index=False)
    again = bench.merged(pd.DataFrame([dict(what='c', ours='4 s', commit='x'), dict(what='a', ours='3 s')]), path)
    assert list(again.what) == ['a', 'b', 'c']
    assert list(again.ours) == ['3 s', '2 s', '4 s']
    assert list(again.commit) == ['', '', 'x']


def test_the_plain_report_scores_what_ours_scores(tmp_path, monkeypatch):
    "All models, on every dataset; blind answers are other ones, since ours learn them from the training split."
    monkeypatch.setattr(whole_report, 'SIZES', {key: 30 for key in whole_report.SIZES})
    atlas, files = whole_report.write_atlas(tmp_path)
    ours = score_models(atlas, files, grader=whole_report.same_text).scores
    plain = whole_report.plain_tables(whole_report.read(atlas, files), 3).set_index(['dataset', 'model']).score
    for name in files:
        for key, score in ours[name].items():
            assert score.value == pytest.approx(plain[key, name], abs=1e-12)


def test_the_plain_curation_is_ours(tmp_path):
    "The same rows in the same splits; some are dropped, since their words are in a later split."
    bench_data.write_meld(tmp_path / 'meld', 2_000)
    ours = bench_data.our_curation(tmp_path / 'meld', tmp_path / 'ours')()
    theirs = bench_data.plain_curation(tmp_path / 'meld', tmp_path / 'theirs')()
    assert dict(ours) == theirs and sum(theirs.values()) < 2_000
    rows = [bench_data.curated(tmp_path / side) for side in ('ours', 'theirs')]
    pd.testing.assert_frame_equal(*rows, check_dtype=False)


def test_rows_read_in_other_ways_are_ours(tmp_path):
    bench_data.write_store(tmp_path / 'store', 3_600_000, dict(meld_emotion=('video', 'audio'), tess=('audio',)))
    numbers = [3, 15, 3, 0]
    ours = bench_data.our_rows(tmp_path / 'store', numbers)()
    by_shard = bench_data.pandas_rows(tmp_path / 'store', numbers)()
    from_copy = bench_data.datasets_rows(tmp_path / 'store', tmp_path / 'cache', numbers)()
    assert [row['id'] for row in ours] == ['meld_emotion/3', 'tess/7', 'meld_emotion/3', 'meld_emotion/0']
    assert bench_data.compared(ours) == bench_data.compared(by_shard) == bench_data.compared(from_copy)
    epochs = bench_data.our_epoch(tmp_path / 'store'), bench_data.streamed_epoch(tmp_path / 'store', tmp_path / 'cache')
    ours, streamed = map(bench_data.sizes, epochs)
    assert ours == streamed and len(ours) == 16


def test_planted_near_duplicates():
    texts, made = bench_data.write_texts(100)
    assert len(set(texts)) == 100
    assert sorted(made) == [(n - 1, n) for n in range(20, 100, 20)]
    words = [texts[n].split() for n in (19, 20)]
    assert sum(a != b for a, b in zip(*words)) == 1
