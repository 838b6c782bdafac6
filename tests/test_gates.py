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
    "Rows kept and rows rejected by a curation, none lost and each rejection complete."
    lines = (result.folder / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()
    rejected = [json.loads(line) for line in lines]
    assert all(r['dataset'] and r['file'] and r['row'] > 0 and r['reason'] for r in rejected)
    for count in result.counts.values():
        assert count['read'] == count['kept'] + count['rejected']
    kept = []
    for split in sorted({path.name.split('-')[0] for path in (result.folder / 'data').iterdir()}):
        kept += open_atlas(result.folder, split)
    return kept, rejected


def utterance(number, dialogue, start, end, text='what a day'):
    return [number, text, 'Ada', 'joy', 'positive', dialogue, 0, 1, 1, start, end]


def write_meld_tables(folder, train, other):
    for split, (file, _) in MELD_FILES.items():
        write_table(folder / file, MELD_COLUMNS, train if split == 'train' else other)


def test_ids_beyond_a_double(tmp_path):
    "Two numbers that are one as floats stay two ids."
    train = [utterance(1, HUGE, '00:00:01,000', '00:00:02,000'), utterance(2, HUGE - 1, '00:00:03,000', '00:00:04,000')]
    write_meld_tables(tmp_path / 'meld', train, [utterance(1, 1, '00:00:01,000', '00:00:02,000')])
    kept, _ = outcome(curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas'))
    assert {f'meld_senti/train/dia{n}_utt0' for n in (HUGE, HUGE - 1)} <= {row['id'] for row in kept}


def test_numeric_ids_in_json(tmp_path):
    options = dict(a0='to wave', a1='no', a2='b', a3='c')
    question = dict(q='why?', vid_name='v', ts='0.00-1.0', ans_corr='to wave', answer_idx=0) | options
    lines = [json.dumps(question | dict(qid=qid)) + '\n' for qid in ('a', HUGE)]
    (tmp_path / 'siq2' / 'qa').mkdir(parents=True)
    for file in ('train', 'val', 'test'):
        (tmp_path / 'siq2' / 'qa' / f'qa_{file}.json').write_text(''.join(lines))
    kept, rejected = outcome(curate({'siq2': tmp_path / 'siq2'}, tmp_path / 'atlas'))
    assert len(kept) == len(rejected) == 3
    assert all(str(HUGE) in r['reason'] for r in rejected)


def test_spans_that_run_backwards_or_start_before_zero(tmp_path):
    rows = [
        utterance(1, 1, '00:00:05,000', '00:00:02,000'),
        utterance(2, 2, '-00:00:05,000', '00:00:02,000'),
        utterance(3, 3, '00:00:05,000', '00:00:06,000'),
    ]
    write_meld_tables(tmp_path / 'meld', rows, rows[2:])
    result = curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas')
    kept, rejected = outcome(result)
    assert (len(kept), len(rejected)) == (10, 0)
    spans = {row['source_row']: (row['start'], row['end']) for row in kept if row['split'] == 'train'}
    assert spans == {1: (None, None), 2: (0, 2), 3: (5, 6)}
    assert sorted(note.row for note in result.notes) == [1, 1, 2, 2]
    file = result.folder / 'notes.jsonl'
    notes = [json.loads(line)['note'] for line in file.read_text(encoding='utf-8').splitlines()]
    assert notes == [note.note for note in result.notes]
    assert sum('has no length' in note for note in notes) == sum('is taken from 0' in note for note in notes) == 2
    assert 'what is odd about 4 rows' in (result.folder / 'README.md').read_text(encoding='utf-8')


def clip(seconds):
    pictures = np.random.default_rng(0).integers(0, 255, (seconds, 32, 32, 3), np.uint8)
    sound = np.zeros(16_000 * seconds, np.float32)
    sound[::8_000] = 0.5  # Clicks, since a tone of ten minutes takes the encoder ten seconds
    return write_mp4(pictures, sound, fps=1)


@pytest.mark.parametrize('seconds', [1, 600])
def test_a_clip_of_ten_minutes(tmp_path, seconds):
    rows = [utterance(1, 1, '00:00:01,000', '00:11:02,000')]
    write_meld_tables(tmp_path / 'meld', rows, rows)
    _, clips = MELD_FILES['train']
    (tmp_path / 'meld' / clips).mkdir()
    (tmp_path / 'meld' / clips / 'dia1_utt0.mp4').write_bytes(clip(seconds))
    kept, rejected = outcome(curate({'meld': tmp_path / 'meld'}, tmp_path / 'atlas'))
    with_media = [row for row in kept if row['videos']]
    assert not rejected and len(with_media) == 2
    wav = with_media[0]['audios'][0]
    assert abs(len(wav) / 32_000 - seconds) < 0.2  # 16-bit mono at 16 kHz


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
    names = ['1001_DFA_ANG_XX', '1002_DFA_HAP_XX']
    folder = tmp_path / 'cremad'
    write_table(folder / 'SentenceFilenames.csv', ['Stimulus_Number', 'Filename'], list(enumerate(names, 1)))
    sound = np.sin(np.arange(16_000) / 9).astype(np.float32)
    (folder / 'AudioWAV').mkdir()
    (folder / 'AudioWAV' / f'{names[0]}.wav').write_bytes(data)
    (folder / 'AudioWAV' / f'{names[1]}.wav').write_bytes(write_wav(sound))
    kept, rejected = outcome(curate({'cremad': folder}, tmp_path / 'atlas'))
    assert [row['id'] for row in kept] == [f'cremad/{names[1]}']
    (one,) = rejected
    assert reason in one['reason'] and f'{names[0]}.wav' in one['reason']
