"""The one script for a card: what it keeps of parts that end, fail or are stopped."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import gpu

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
