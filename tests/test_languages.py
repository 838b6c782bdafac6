"The recogniser is told in which language a row speaks, and hears nothing in a sound that is too short for it."

from types import SimpleNamespace

import numpy as np
import pytest

from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.schema import Row
from omnisapiens_nb.atlas.transcripts import hear, row_language, tiny_recogniser, transcribe
from omnisapiens_nb.runs import transcribe as by_rows

SECOND = np.zeros(16_000, np.float32)


class Recogniser:
    "Writes down what it is told beside the sounds."

    def __init__(self, kind='seq2seq_whisper', several=True):
        known = {f'<|{code}|>': n for n, code in enumerate(('en', 'zh'))}
        told = dict(is_multilingual=several, lang_to_id=known) if several else dict(is_multilingual=False)
        self.type = kind
        self.model = SimpleNamespace(generation_config=SimpleNamespace(**told))
        self.calls = []

    def __call__(self, sounds, batch_size, generate_kwargs=None, **settings):
        language = (generate_kwargs or {}).get('language', 'guessed')
        self.calls.append((len(sounds), batch_size, language))
        return [dict(text=f'{language} {len(sound)}') for sound in sounds]


def a_row(dataset, language=''):
    return Row(id=f'{dataset}/1', dataset=dataset, task='', split='train', group='', language=language)


@pytest.mark.parametrize(
    ('dataset', 'language', 'expected'),
    [
        ('chsimsv2', '', 'zh'),
        ('mmpsy_anxiety', '', 'zh'),
        ('meld_emotion', '', 'en'),
        ('meld_emotion', 'zh', 'zh'),
        ('sarcnet', '', ''),
        ('sarcnet', 'zh', 'zh'),
        ('mine', '', ''),
        ('mine', 'de-AT', 'de-AT'),
    ],
)
def test_the_language_of_a_row(dataset, language, expected):
    assert dataset == 'mine' or dataset in DATASETS
    assert row_language(a_row(dataset, language)) == expected


def test_each_recording_is_heard_in_its_language():
    recogniser = Recogniser()
    long = np.zeros(31 * 16_000, np.float32)
    sounds = [SECOND, long, SECOND[:200], SECOND, SECOND[:8_000], SECOND]
    texts = hear(recogniser, sounds, languages=['zh-CN', 'zh', 'zh', 'en', '', 'xx'])
    assert texts == ['zh 16000', 'zh 496000', '', 'en 16000', 'guessed 8000', 'guessed 16000']
    assert sorted(recogniser.calls) == [(1, 1, 'zh'), (1, 8, 'en'), (1, 8, 'zh'), (2, 8, 'guessed')]


@pytest.mark.parametrize('kind', ['seq2seq_whisper', 'ctc'])
def test_a_recogniser_of_one_language_is_not_told(kind):
    assert hear(Recogniser(kind, several=False), [SECOND], languages=['zh']) == ['guessed 16000']


def test_rows_bring_their_language(monkeypatch):
    "Two recordings of a Chinese row, one of an English row."
    monkeypatch.setattr(by_rows, 'prompt_style', lambda row: 'ours')
    monkeypatch.setattr(by_rows, '_recordings', lambda row, place: [SECOND] * (2 if row.dataset == 'chsimsv2' else 1))
    heard = by_rows._hear_rows([a_row('chsimsv2'), a_row('meld_emotion')], Recogniser(), 'atlas')
    assert heard['chsimsv2/1'][1] == 'zh 16000 zh 16000'
    assert heard['meld_emotion/1'][1] == 'en 16000'


def test_a_sound_too_short_for_a_ctc_model(tmp_path):
    folder = tiny_recogniser(tmp_path / 'letters', always='a')
    assert transcribe([SECOND[:n] for n in (0, 1, 399)], folder) == ['', '', '']
    assert transcribe([SECOND[:400]], folder) == ['a']
