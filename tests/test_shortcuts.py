"The shortcuts on the real annotation files, against counts and scores made from the raw JSON by other means."

import json
from collections import Counter, defaultdict

import pytest
from sklearn.metrics import f1_score

from omnisapiens_nb.atlas.curate import Choices, curate
from omnisapiens_nb.atlas.schema import SPLITS
from omnisapiens_nb.evaluation.shortcuts import label_answers, shortcut_scores, shortcut_section, shortcut_table


@pytest.fixture(scope='module')
def real(shared, tmp_path_factory):
    sources = {name: shared / 'data' / name for name in ('mustard', 'siq2')}
    return curate(sources, tmp_path_factory.mktemp('shortcuts') / 'atlas', Choices(near=False)).folder


@pytest.fixture(scope='module')
def scores(real):
    return shortcut_scores(real).set_index(['dataset', 'shortcut'])


@pytest.fixture(scope='module')
def remarks(shared):
    "Remarks of MUStARD by their id."
    return json.loads((shared / 'data' / 'mustard' / 'sarcasm_data.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def questions(shared):
    "Answered questions of Social-IQ by the file and line they stand in."
    found = {}
    for name in ('train', 'val'):
        lines = (shared / 'data' / 'siq2' / 'qa' / f'qa_{name}.json').read_text(encoding='utf-8').splitlines()
        found |= {(name, str(number)): json.loads(line) for number, line in enumerate(lines, 1)}
    return found


def test_show_and_speaker_of_the_real_file(real):
    rows = [r for s in SPLITS for r in shortcut_table(real, s).itertuples() if r.dataset == 'mmsd']
    shows = Counter((r.person.split(':')[0], r.answer) for r in rows)
    assert shows == {
        ('friends', 'sarcasm'): 152,
        ('friends', 'not sarcasm'): 204,
        ('bbt', 'sarcasm'): 140,
        ('bbt', 'not sarcasm'): 140,
        ('goldengirls', 'sarcasm'): 39,
        ('goldengirls', 'not sarcasm'): 1,
        ('sarcasmoholics', 'sarcasm'): 14,
    }
    speakers = Counter((r.person, r.answer) for r in rows)
    assert (speakers['friends:chandler', 'sarcasm'], speakers['friends:chandler', 'not sarcasm']) == (120, 38)
    assert (speakers['goldengirls:dorothy', 'sarcasm'], speakers['goldengirls:dorothy', 'not sarcasm']) == (38, 1)


@pytest.mark.parametrize('shortcut, fields', [('speaker', ('show', 'speaker')), ('show', ('show',))])
def test_who_speaks_is_worth_more_than_nothing(real, scores, remarks, shortcut, fields):
    split = {}
    for name in ('train', 'test'):
        rows = shortcut_table(real, name).query("dataset == 'mmsd'")
        split[name] = [remarks[row_id.removeprefix('mmsd/')] for row_id in rows.id]

    def value(r):
        return tuple(r[f].casefold() for f in fields)

    overall = Counter(r['sarcasm'] for r in split['train'])

    def f1(rows, weight):
        votes = defaultdict(lambda: {True: 0.0, False: 0.0})
        for r in split['train']:
            votes[value(r)][r['sarcasm']] += weight[r['sarcasm']]

        def most(v):
            return v[True] > v[False]  # a tie goes to "not sarcasm", the first in the alphabet

        everyone = {label: overall[label] * weight[label] for label in (True, False)}
        said = [most(votes.get(value(r), everyone)) for r in rows]
        return f1_score([r['sarcasm'] for r in rows], said, average='weighted')

    weights = [{True: 1.0, False: 1.0}, {label: overall.total() / n for label, n in overall.items()}]
    chosen = max(weights, key=lambda w: f1(split['train'], w))
    assert scores.value['mmsd', shortcut] == pytest.approx(f1(split['test'], chosen), abs=1e-12)
    assert scores.value['mmsd', shortcut] > scores.value['mmsd', 'majority']
    assert scores.gain_low['mmsd', shortcut] > 0
    assert scores.low['mmsd', shortcut] < scores.value['mmsd', shortcut] < scores.high['mmsd', shortcut]


def right_by_length(r):
    "Chance to be right with one of the longest options."
    options = [r[f'a{i}'] for i in range(4)]
    longest = [o for o in options if len(o) == max(map(len, options))]
    return longest.count(r['ans_corr']) / len(longest)


def test_the_longest_option_is_right_too_often(questions):
    credit = [right_by_length(r) for r in questions.values()]
    assert len(credit) == 2_943
    assert 0.345 < sum(credit) / len(credit) < 0.36


def test_the_longest_option_from_the_raw_file(real, scores, questions):
    of_train = shortcut_scores(real, 'train', resamples=2).set_index(['dataset', 'shortcut'])
    for split, found in (('test', scores), ('train', of_train)):
        rows = shortcut_table(real, split).query("dataset == 'siq2'")
        kept = [questions[tuple(row_id.split('/')[1:3])] for row_id in rows.id]
        by_length = sum(map(right_by_length, kept)) / len(kept)
        chance = sum([r[f'a{i}'] for i in range(4)].count(r['ans_corr']) / 4 for r in kept) / len(kept)
        assert found.rows['siq2', 'longest option'] == len(kept)
        assert found.value['siq2', 'longest option'] == pytest.approx(by_length, abs=1e-12)
        assert found.value['siq2', 'random option'] == pytest.approx(chance, abs=1e-12)
    assert scores.gain_low['siq2', 'longest option'] > 0


def test_what_is_not_defined_has_no_row(scores):
    assert set(scores.loc['mmsd'].index) == {'best constant', 'majority', 'speaker', 'show', 'number of words'}
    assert set(scores.loc['siq2'].index) == {'random option', 'longest option'}


def test_answers_of_the_test_rows_are_not_looked_at(real):
    train, test = (shortcut_table(real, s).query("dataset == 'mmsd'") for s in ('train', 'test'))
    turned = test.assign(answer=test.answer.map({'sarcasm': 'not sarcasm', 'not sarcasm': 'sarcasm'}))
    assert label_answers(train, turned) == label_answers(train, test)


def test_the_section_is_the_same_each_time_and_keeps_to_the_rows_it_is_given(real):
    ids = shortcut_table(real, 'test').query("dataset == 'siq2'").id[:50]
    first = shortcut_section(real, 'test', ids)
    assert first == shortcut_section(real, 'test', ids)
    assert 'siq2' in first.body and 'mmsd' not in first.body and '<td>50</td>' in first.body
