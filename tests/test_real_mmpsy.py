"MMPsy's adapter on a real excerpt, against counts made on it by other means."

import json
from collections import Counter

import pytest

from omnisapiens_nb.atlas.sources.mmpsy import MMPsy


@pytest.fixture(scope='module')
def rows(shared):
    return list(MMPsy(shared / 'data' / 'mmpsy'))


def test_counts(rows):
    assert Counter((r.dataset, r.answer) for r in rows) == {
        ('mmpsy_depression', 'depression'): 22,
        ('mmpsy_depression', 'no depression'): 128,
        ('mmpsy_anxiety', 'anxiety'): 12,
        ('mmpsy_anxiety', 'no anxiety'): 138,
    }


def test_labels_come_from_scores(rows, shared):
    entries = json.loads((shared / 'data' / 'mmpsy' / 'wav_select.json').read_text(encoding='utf-8'))
    people = {entry['user_id']: entry for entry in entries}
    for r in rows:
        instrument = 'phq-label' if r.dataset == 'mmpsy_depression' else 'gad-label'
        score = people[r.id.split('/')[1]][instrument]['score']
        assert (r.raw_label, r.answer.startswith('no ')) == (str(score), score < 10)


def test_one_split_per_person_over_both_keys(rows):
    splits = {}
    for r in rows:
        splits.setdefault(r.person, set()).add(r.split)
    assert len(splits) == 150 and max(map(len, splits.values())) == 1
    assert all(len(r.transcript.splitlines()) >= 4 for r in rows)
