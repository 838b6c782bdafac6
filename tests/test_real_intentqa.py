"IntentQA's adapter on real excerpts of its val and test tables, against counts made on them by other means."

import csv
from collections import Counter

import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.sources.intentqa import IntentQA


@pytest.fixture(scope='module')
def rows(shared):
    return list(IntentQA(shared / 'data' / 'intentqa'))


def test_counts(rows):
    assert Counter(r.split for r in rows) == dict(validation=100, test=100)
    assert len({r.id for r in rows}) == 200
    groups = {split: {r.group for r in rows if r.split == split} for split in ('validation', 'test')}
    assert {split: len(g) for split, g in groups.items()} == dict(validation=91, test=89)
    assert not groups['validation'] & groups['test']


def test_answer_is_the_text_of_the_right_option(rows, shared):
    folder = shared / 'data' / 'intentqa' / 'datasets' / 'IntentQA'
    for file, split in (('val', 'validation'), ('test', 'test')):
        with (folder / f'{file}.csv').open(encoding='utf-8', newline='') as f:
            table = list(csv.DictReader(f))
        assert [r.answer for r in rows if r.split == split] == [t['a' + t['answer']] for t in table]


def test_without_videos_they_are_bare_questions(shared, tmp_path):
    result = curate({'intentqa': shared / 'data' / 'intentqa'}, tmp_path / 'atlas')
    assert result.counts['intentqa'] == dict(read=200, kept=200, rejected=0, text_only=200)
