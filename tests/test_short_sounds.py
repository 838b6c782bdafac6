"Sounds so short that the model makes no token of them: their rows are left out and counted, and nothing ends."

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from omnisapiens_nb.atlas.media import write_wav
from omnisapiens_nb.rl.loop import readable
from omnisapiens_nb.sft.bam_training import freeze
from omnisapiens_nb.sft.batches import Examples, RowError, heard, read_row
from omnisapiens_nb.sft.generate import predict
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.processor import Soundless
from omnisapiens_nb.sft.trl_trainer import SFTCollator
from omnisapiens_nb.sft.warmstart import SFTConfig, warm_start

LONG = 16_000  # Samples
SHORT = (1, 50, 100, 300, 479)


class Shelf:
    "Rows of sounds of a few lengths, as an Atlas gives them."

    paths = ('shelf.parquet',)

    def __init__(self, lengths):
        self.rows = [self.row(i, length) for i, length in enumerate(lengths)]

    def row(self, i, length):
        sound = 0.1 * np.sin(np.arange(length) / 7).astype(np.float32)
        row = dict.fromkeys(('images', 'videos', 'transcript', 'cues', 'options', 'context'))
        row |= dict(id=f'mine/{i}', dataset='mine', task='humour_cls', modality_signature='text_audio')
        return row | dict(
            problem='<audio>\nIs this funny?', answer='humour', class_label='humour', audios=[write_wav(sound)]
        )

    def __getitem__(self, number):
        return self.rows[number]

    def __len__(self):
        return len(self.rows)

    def place(self, number):
        return f'shelf.parquet, row {number + 1}'

    def columns(self, *names):
        return {name: [row[name] for row in self.rows] for name in names}


@pytest.fixture(scope='module')
def tiny(warm_start):
    model, processor = load_model(warm_start, 'cpu')
    return SimpleNamespace(model=model, processor=processor)


@pytest.fixture
def shelf(tiny, monkeypatch):
    "Short sounds and two long ones."
    monkeypatch.setattr('omnisapiens_nb.sft.batches.routed_columns', lambda atlas, *names: atlas.columns(*names))
    lengths = [LONG, *SHORT, LONG]
    return Examples(Shelf(lengths), tiny.processor, range(len(lengths)))


@pytest.mark.parametrize('length', SHORT)
def test_a_short_sound_is_told(length, tiny):
    with pytest.raises(Soundless, match='makes no token of it; leave the row out'):
        tiny.processor.encode(read_row(Shelf([length]), 0))
    assert tiny.processor.tower_tokens(tiny.processor.encode(read_row(Shelf([480]), 0)), 'audio') == 1


def test_rows_are_named_once_and_counted(shelf, caplog):
    with caplog.at_level(logging.WARNING):
        found = [i for _ in range(3) for i, _ in heard(shelf, range(7))]
    assert found == [0, 6] * 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(SHORT)
    assert said[-1].startswith('shelf.parquet, row 6: its sound of 0.030 s') and '(5 rows are left out so)' in said[-1]


def test_predictions_leave_them_out(shelf, tmp_path, caplog):
    def respond(examples):
        return ['yes'] * len(examples)

    with caplog.at_level(logging.WARNING):
        out = predict(respond, shelf, tmp_path / 'out.jsonl', batch=3)
    assert len(out.read_text().splitlines()) == 2
    assert '5 rows are left out, since their sound makes no token (mine 5)' in caplog.text


@pytest.mark.parametrize('accumulate', [1, 3])
def test_training_goes_on_without_them(accumulate, tiny, shelf):
    log = warm_start(tiny.model, tiny.processor, shelf, SFTConfig(steps=3, batch=6, accumulate=accumulate, lr=1e-9))
    taken = [entry for entry in log if 'skipped' not in entry]
    assert len(log) == 3 and taken and all(np.isfinite(entry['loss']) for entry in taken)
    only = Examples(Shelf(SHORT), tiny.processor, range(5))
    log = warm_start(tiny.model, tiny.processor, only, SFTConfig(steps=2, batch=2))
    assert [entry['skipped'] for entry in log] == [1, 1]


def test_other_ways_to_train(tiny, shelf):
    assert len(freeze(tiny.model, tiny.processor, shelf, {})) == 2
    batch = SFTCollator(tiny.processor, shelf)([dict(row=i) for i in range(7)])
    assert len(batch['input_ids']) == 2
    good, skipped = readable(shelf, list(range(7)))
    assert good == [0, 6] and len(skipped) == 5


def test_a_sound_that_cannot_be_read_still_ends_the_run(tiny, shelf):
    shelf.atlas.rows[0]['audios'] = [write_wav(np.zeros(LONG, np.float32))[:50]]
    with pytest.raises(RowError, match='shelf.parquet, row 1'):
        heard(shelf, range(7))
