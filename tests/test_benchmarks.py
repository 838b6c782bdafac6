"The one script for a card, and the bench: what they keep of their parts, and what they say of faults."

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import bench
import gpu
import pandas as pd
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
        bench.need('no_such_thing', 'no-such-thing')
    with pytest.raises(SystemExit, match='no part nothing; choose among rows_bootstrap'):
        bench.main('nothing')


def test_both_sides_are_timed():
    clock = iter(range(1000))

    def row(within):
        return bench.beside(
            'x', lambda: None, lambda: None, 'y', times=4, within=within, share=0.2, clock=lambda: next(clock)
        )

    found = row(None)
    assert (found['ours'], found['theirs'], found['ratio'], found['spread']) == ('1 s', '5 s', '5', '5 to 5')
    assert (found['goal'], found['reached']) == ('≥ 4×', 'yes')
    assert (row(0.5)['goal'], row(0.5)['reached']) == ('≥ 4×, ≤ 0.5 s', 'no')


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
