"Extreme values and files: each lands in the Atlas or in rejected.jsonl with file, row and reason."

import json

import numpy as np
import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.media import write_mp4, write_wav
from omnisapiens_nb.atlas.mini.files import write_table
from omnisapiens_nb.atlas.sources.meld import MELD_COLUMNS, MELD_FILES
from omnisapiens_nb.atlas.store import open_atlas

HUGE = 2**53 + 1


def outcome(result):
    rejected = [
        json.loads(line) for line in (result.folder / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()
    ]
    assert all(r['dataset'] and r['file'] and r['row'] > 0 and r['reason'] for r in rejected)
    assert sum(c['kept'] + c['rejected'] for c in result.counts.values()) == sum(
        c['read'] for c in result.counts.values()
    )
    splits = sorted({p.name.split('-')[0] for p in (result.folder / 'data').iterdir()})
    return [row for s in splits for row in open_atlas(result.folder, s)], rejected


def utterance(number, dialogue, start, end, text='what a day'):
    return [number, text, 'Ada', 'joy', 'positive', dialogue, 0, 1, 1, start, end]


def test_ids_beyond_a_double(tmp_path):
    "Two numbers that are one as floats stay two ids."
    rows = [utterance(1, HUGE, '00:00:01,000', '00:00:02,000'), utterance(2, HUGE - 1, '00:00:03,000', '00:00:04,000')]
    for split, (file, _) in MELD_FILES.items():
        write_table(
            tmp_path / 'meld' / file,
            MELD_COLUMNS,
            rows if split == 'train' else [utterance(1, 1, '00:00:01,000', '00:00:02,000')],
        )
    kept, _ = outcome(curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas'))
    assert {f'meld_senti/train/dia{n}_utt0' for n in (HUGE, HUGE - 1)} <= {r['id'] for r in kept}


def test_numeric_ids_in_json(tmp_path):
    question = dict(
        q='why?', vid_name='v', ts='0.00-1.0', a0='to wave', a1='no', a2='b', a3='c', ans_corr='to wave', answer_idx=0
    )
    (tmp_path / 'siq2' / 'qa').mkdir(parents=True)
    for file in ('train', 'val', 'test'):
        (tmp_path / 'siq2' / 'qa' / f'qa_{file}.json').write_text(
            ''.join(json.dumps(question | dict(qid=q)) + '\n' for q in ('a', HUGE))
        )
    kept, rejected = outcome(curate({'siq2': tmp_path / 'siq2'}, tmp_path / 'atlas'))
    assert len(kept) == len(rejected) == 3 and all(str(HUGE) in r['reason'] for r in rejected)


def test_spans_that_run_backwards_or_start_before_zero(tmp_path):
    rows = [
        utterance(1, 1, '00:00:05,000', '00:00:02,000'),
        utterance(2, 2, '-00:00:05,000', '00:00:02,000'),
        utterance(3, 3, '00:00:05,000', '00:00:06,000'),
    ]
    for split, (file, _) in MELD_FILES.items():
        write_table(tmp_path / 'meld' / file, MELD_COLUMNS, rows if split == 'train' else rows[2:])
    kept, rejected = outcome(curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas'))
    assert len(kept) == 6 and sorted(r['row'] for r in rejected) == [1, 1, 2, 2]
    assert any('not after its start' in r['reason'] for r in rejected) and any(
        'HH:MM:SS' in r['reason'] for r in rejected
    )


def clip(seconds):
    pictures = np.random.default_rng(0).integers(0, 255, (seconds, 32, 32, 3), np.uint8)
    return write_mp4(pictures, np.sin(np.arange(16_000 * seconds) / 20).astype(np.float32) * 0.2, fps=1)


@pytest.mark.parametrize('seconds', [1, 600])
def test_a_clip_of_ten_minutes(tmp_path, seconds):
    rows = [utterance(1, 1, '00:00:01,000', '00:11:02,000')]
    for split, (file, clips) in MELD_FILES.items():
        write_table(tmp_path / 'meld' / file, MELD_COLUMNS, rows)
        if split == 'train':
            (tmp_path / 'meld' / clips).mkdir()
            (tmp_path / 'meld' / clips / 'dia1_utt0.mp4').write_bytes(clip(seconds))
    kept, rejected = outcome(curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas'))
    with_media = [r for r in kept if r['videos']]
    assert not rejected and len(with_media) == 2
    assert abs(len(with_media[0]['audios'][0]) / 32_000 - seconds) < 0.2  # 16-bit mono at 16 kHz


@pytest.mark.parametrize(
    'name, data, reason',
    [
        ('pointer', b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 32044\n', 'git-LFS pointer'),
        ('empty', b'', 'empty'),
        ('half', write_wav(np.ones(16_000, np.float32) * 0.1)[:9_000], 'truncated'),
        ('noise', bytes(range(256)) * 9, 'cannot be decoded'),
        ('short', write_wav(np.ones(80, np.float32) * 0.1), 'shorter than'),
    ],
)
def test_media_that_are_there_and_cannot_be_used(tmp_path, name, data, reason):
    write_table(
        tmp_path / 'cremad' / 'SentenceFilenames.csv',
        ['Stimulus_Number', 'Filename'],
        [[1, '1001_DFA_ANG_XX'], [2, '1002_DFA_HAP_XX']],
    )
    (tmp_path / 'cremad' / 'AudioWAV').mkdir()
    (tmp_path / 'cremad' / 'AudioWAV' / '1001_DFA_ANG_XX.wav').write_bytes(data)
    (tmp_path / 'cremad' / 'AudioWAV' / '1002_DFA_HAP_XX.wav').write_bytes(
        write_wav(np.sin(np.arange(16_000) / 9).astype(np.float32))
    )
    kept, rejected = outcome(curate({'cremad': tmp_path / 'cremad'}, tmp_path / 'atlas'))
    assert [r['id'] for r in kept] == ['cremad/1002_DFA_HAP_XX']
    assert len(rejected) == 1 and reason in rejected[0]['reason'] and '1001_DFA_ANG_XX.wav' in rejected[0]['reason']
