"Traces: hand-written responses, intervals against the long way, loops by definition, what a report may never do."

import random
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from omnisapiens_nb.evaluation.answers import parse_response
from omnisapiens_nb.evaluation.report import Section, render
from omnisapiens_nb.evaluation.traces import (
    Consistency,
    compression,
    consistency,
    group_difference,
    group_mean,
    length_figure,
    longest_loop,
    named,
    paired_rows,
    repeated,
    script_of,
    to_side_by_side,
    trace_section,
    trace_summary,
    trace_table,
    units,
)
from omnisapiens_nb.evaluation.uncertainty import bootstrap

EMOTIONS = ['anger', 'happy', 'sad']
LOOP = 'He is sad. ' + 'The voice is low and slow. ' * 40
CASES = {  # response: has a trace, answer, consistency
    'no tags': (r'I think \boxed{sad}', False, 'sad', None),
    'unclosed': ('<think>The voice is sad and', False, None, None),
    'unclosed, boxed': (r'<think>The voice is sad \boxed{sad}', False, 'sad', None),
    'agrees': (r'<think>Not anger. Sad.</think>\boxed{sad}', True, 'sad', 'agrees'),
    'differs': (r'<think>Clearly anger.</think>\boxed{happy}', True, 'happy', 'differs'),
    'several': (r'<think>Anger or sad?</think>\boxed{sad}', True, 'sad', 'undetermined'),
    'none': (r'<think>Low voice.</think>\boxed{sad}', True, 'sad', 'undetermined'),
    'outside': (r'<think>Sad.</think>\boxed{gloom}', True, 'gloom', 'undetermined'),
    'Chinese': (
        r'<think>她皱着眉头，声音很高，语速很快，手也在发抖。这是anger。</think>\boxed{anger}',
        True,
        'anger',
        'agrees',
    ),
    'Chinese, alone': (r'<think>她皱着眉头，声音很高。</think>\boxed{anger}', True, 'anger', 'undetermined'),
    'loop': (f'<think>{LOOP}</think>\\boxed{{sad}}', True, 'sad', 'agrees'),
    'no answer': ('<think>Sad.</think>', True, None, 'undetermined'),
    'empty': ('', False, None, None),
}


def table_rows(responses, dataset='cremad', answer='sad'):
    numbers = range(len(responses))
    rows = pd.DataFrame(dict(id=[f'{dataset}/{i}' for i in numbers], group=[f'g{i // 2}' for i in numbers]))
    rows['options'] = [EMOTIONS] * len(rows)
    about = dict(task='emotion_cls', question='Which emotion?', modality_signature='text_audio')
    return rows.assign(dataset=dataset, answer=answer, **about)


@pytest.fixture(scope='module')
def rows():
    return table_rows(CASES)


@pytest.fixture(scope='module')
def said(rows):
    return dict(zip(rows.id, (case[0] for case in CASES.values())))


def test_cases(rows, said):
    t = trace_table(rows, said).set_index(pd.Index(CASES))
    for name, (_, has, answer, verdict) in CASES.items():
        row = t.loc[name]
        assert pd.notna(row.trace) == has and (row.answer if pd.notna(row.answer) else None) == answer, name
        assert (row.verdict if pd.notna(row.verdict) else None) == verdict, name
        assert pd.notna(row.length) == has and bool(row.right) == (answer == 'sad'), name
    assert (t.script['Chinese'], t.script['Chinese, alone']) == ('mixed', 'Han')
    assert (t.same_script['Chinese'], t.same_script['agrees']) == (0, 1)
    assert t.repeated['loop'] > 0.9 and t.loop['loop'] == 6 * 40 and t.compression['loop'] > 2.4
    assert t.repeated['agrees'] == 0 and t.loop['agrees'] == 0 and t.compression['agrees'] < 2.4
    assert t.length['Chinese'] == len('她皱着眉头声音很高语速很快手也在发抖这是') + 1


def test_shares_sum_to_one(rows, said):
    s = trace_summary({'m': trace_table(rows, said)}).m
    assert sum(s[f'reasoning {v}'].value for v in Consistency) == pytest.approx(1)
    traces = [case for case in CASES.values() if case[1]]
    assert s['with a trace'].value == pytest.approx(len(traces) / len(CASES))
    assert s['reasoning agrees'].value == pytest.approx(sum(c[3] == 'agrees' for c in traces) / len(traces))
    mean = np.mean([len(units(parse_response(c[0]).think)) for c in traces if c[2] == 'sad'])
    assert s['length where right'].value == pytest.approx(mean)
    assert s['length, wrong minus right'].value == pytest.approx(
        s['length where wrong'].value - s['length where right'].value
    )


@pytest.mark.parametrize(
    'text, found',
    [
        ('Sadness', []),
        ('sad-looking', ['sad']),
        ('SAD.', ['sad']),
        ('ＳＡＤ', ['sad']),
        ('sad\nangers', ['sad']),
        ('他sad了', ['sad']),
        ('unhappy', []),
        ('é-happy', ['happy']),
        ('éhappy', []),
    ],
)
def test_whole_words(text, found):
    assert named(text, EMOTIONS) == found


def test_longest_option_wins():
    assert named('weakly positive', ['positive', 'weakly positive']) == ['weakly positive']
    assert named('weakly positive, then positive', ['positive', 'weakly positive']) == ['positive', 'weakly positive']
    assert consistency('This is not sarcasm.', 'sarcasm', ['sarcasm', 'not sarcasm']) == 'differs'
    assert named('no speech at all', ['no', 'no speech']) == ['no speech']
    assert named('愤怒而不是悲伤', ['愤怒', '悲伤']) == ['愤怒', '悲伤']


def slow_loop(words, period):
    "By the definition: every start, every period, as far as it goes."
    best = 0
    for start in range(len(words)):
        for p in range(1, period + 1):
            end = start + p
            while end < len(words) and words[end] == words[end - p]:
                end += 1
            if end - start >= 2 * p:
                best = max(best, end - start)
    return best


def test_loops_by_definition():
    rng = random.Random(0)
    for _ in range(300):
        words = rng.choices('ab' if rng.random() < 0.5 else 'abcd', k=rng.randrange(0, 25))
        assert longest_loop(words, 5) == slow_loop(words, 5), words
        grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
        old = sum(gram in grams[:i] for i, gram in enumerate(grams))
        assert repeated(words) == pytest.approx(old / len(grams) if grams else 0)


def test_measures_of_repetition_agree():
    "zlib, which knows no words, puts texts in the order of the 4-grams."
    rng = random.Random(0)
    vocabulary = [''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=6)) for _ in range(400)]
    texts = [' '.join(rng.choices(vocabulary, k=200 - 3 * k) + ['the', 'voice', 'is'] * k) for k in range(0, 60, 6)]
    by_words, by_zlib = [repeated(units(t)) for t in texts], [compression(t) for t in texts]
    assert by_words == sorted(by_words) and by_zlib == sorted(by_zlib) and by_zlib[-1] > 2 * by_zlib[0]


def test_intervals_are_those_of_the_long_way():
    rng = np.random.default_rng(1)
    x, part = rng.exponential(20, 300), rng.random(300) < 0.6
    groups = rng.integers(0, 40, 300)
    x[rng.random(300) < 0.2] = np.nan
    short, long = group_mean(x, groups), bootstrap(lambda v, _: np.nanmean(v.astype(float)), x, x, groups)
    assert (short.value, short.low, short.high) == pytest.approx((long.value, long.low, long.high), abs=1e-9)

    def mean(v, p):
        return np.nanmean(v[p.astype(bool)]) - np.nanmean(v[~p.astype(bool)])

    short, long = group_difference(x, part, groups), bootstrap(mean, x, part, groups)
    assert (short.value, short.low, short.high) == pytest.approx((long.value, long.low, long.high), abs=1e-9)


@pytest.mark.filterwarnings('error')
def test_nothing_defined():
    for i in (group_mean([np.nan] * 4, 'aabb'), group_difference([1.0, 2.0], [True, True], 'ab')):
        assert np.isnan([i.value, i.low, i.high]).all()


def test_several_labels():
    rows = pd.DataFrame(dict(id=['a/0', 'a/1', 'a/2'], group=['0', '1', '2']))
    rows['options'] = [['Spinning', 'Lining-Up', 'Background']] * 3
    rows = rows.assign(dataset='av_asd', task='behaviour_cls', question='What?', answer='Spinning, Lining-Up')
    said = {
        'a/0': r'<think>Spinning and lining-up.</think>\boxed{lining-up, spinning}',
        'a/1': r'<think>Spinning.</think>\boxed{spinning, lining-up}',
        'a/2': r'<think>Toys.</think>\boxed{spinning}',
    }
    t = trace_table(rows, said)
    assert list(t.verdict) == ['agrees', 'differs', 'undetermined'] and list(t.right) == [True, True, False]


def test_open_answers():
    def embed(texts):
        return np.array([[t.count('wave'), t.count('fight'), 1e-3] for t in texts], float)

    rows = pd.DataFrame(dict(id=['q/0', 'q/1', 'q/2'], group=['0', '1', '2'], options=[[], [], []]))
    rows = rows.assign(dataset='siq2', task='social_qa', question='Why?', answer='to wave')
    said = {
        'q/0': r'<think>They fight. They wave.</think>\boxed{wave}',
        'q/1': r'<think>They wave. They fight.</think>\boxed{to wave}',
        'q/2': '<think>They wave',
    }
    t = trace_table(rows, said, embed=embed)
    assert list(t.right) == [True, True, False] and t.verdict.isna().all()
    assert t.cosine[0] > 0.99 and t.cosine[1] < 0.01 and np.isnan(t.cosine[2])


class Seen(HTMLParser):
    "Elements and attributes that a browser would make of a page."

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {k for k, _ in attrs}


ATTACK = '</div></section><script>alert(1)</script><img src=x onerror="alert(2)"><a href="https://example.org">\'"&'


@pytest.mark.parametrize('response', [ATTACK, f'<think>{ATTACK}</think>\\boxed{{{ATTACK}}}', f'<think>{ATTACK}'])
def test_nothing_gets_out(rows, said, response):
    bad = table_rows(CASES).assign(question=ATTACK, id=lambda r: r.id + ATTACK, modality_signature=ATTACK)
    ids = list(bad.id)
    viewer = to_side_by_side(bad, dict.fromkeys(ids, response), dict(zip(ids, said.values())), (ATTACK, 'b' + ATTACK))
    seen = Seen(viewer)
    assert seen.tags <= {'style', 'div', 'b', 'strong', 'i'}
    assert seen.attributes <= {'class', 'tabindex', 'role', 'aria-label'}
    assert viewer.count('<div') == viewer.count('</div>') and 'alert(1)' in viewer
    both = {ATTACK: dict.fromkeys(ids, response), 'b': dict(zip(ids, said.values()))}
    page = render('t', 'l', [trace_section(bad, both)])
    seen = Seen(page)
    assert not seen.tags & {'script', 'img', 'link', 'iframe'}
    assert not any(attribute.startswith('on') for attribute in seen.attributes)
    assert set(re.findall(r'<a href="(.*?)"', page)) == {'#s1'}


def test_marks_are_words(rows, said):
    other = {i: '<think>hm' for i in said}
    viewer = to_side_by_side(rows, said, other, ('a', 'b'), limit=100)
    right = sum(case[2] == 'sad' for case in CASES.values())
    assert viewer.count('<strong>right</strong>: sad') == right
    assert viewer.count('<strong>no answer</strong>') == len(CASES) + sum(case[2] is None for case in CASES.values())
    assert viewer.count('no trace') == len(CASES) + sum(not case[1] for case in CASES.values())


def test_rows_that_differ_come_first(rows, said):
    other = {i: r'\boxed{happy}' for i in said}
    differ = [i for i, case in zip(rows.id, CASES.values()) if case[2] == 'sad']
    shown = re.findall(r'<b>row:</b> (\S+?)<', to_side_by_side(rows, said, other, ('a', 'b'), limit=len(rows)))
    assert sorted(shown[: len(differ)]) == sorted(differ) and sorted(shown) == sorted(rows.id)
    viewer = to_side_by_side(rows, said, other, ('a', 'b'))
    for seed in range(3):
        in_disorder = rows.sample(frac=1, random_state=seed)
        assert to_side_by_side(in_disorder, said, other, ('a', 'b')) == viewer
    with pytest.raises(ValueError, match='answered by both'):
        to_side_by_side(rows, said, {'x': ''}, ('a', 'b'))


def test_datasets_take_turns():
    rows = pd.concat([table_rows(range(20), key) for key in ('cremad', 'tess')])
    left, right = {i: True for i in rows.id}, {i: False for i in rows.id}
    assert set(paired_rows(rows, left, right, 6).dataset.value_counts()) == {3}


def test_section(rows, said):
    one, two = trace_section(rows, {'a': said}), trace_section(rows, {'a': said, 'b': dict(list(said.items())[::2])})
    assert isinstance(one, Section) and 'same rows' not in one.body and 'same rows' in two.body
    assert trace_section(rows, {'a': said, 'b': said}).body == trace_section(rows, {'a': said, 'b': said}).body
    bare = trace_section(rows, {'a': dict.fromkeys(said, 'sad')})
    assert not bare.body and 'No response' in bare.text
    with pytest.raises(ValueError, match='none of the predictions'):
        trace_section(rows, {'a': {'x': 'sad'}})


def test_lengths_by_a_tokenizer(rows, said):
    t = trace_table(rows, said, tokenize=lambda text: text.encode())
    assert t.length[list(CASES).index('none')] == len('Low voice.') and t.loop[list(CASES).index('loop')] == 240
    assert 'bytes' in length_figure({'m': t}, 'bytes').axes[0].get_xlabel()


@pytest.mark.parametrize(
    'text, script',
    [
        ('Voice', 'Latin'),
        ('声音', 'Han'),
        ('声音と顔', 'mixed'),
        ('ήχος', 'Greek'),
        ('123', None),
        ('', None),
        ('voice 声音', 'mixed'),
    ],
)
def test_scripts(text, script):
    assert script_of(text) == script


def test_interviews_about_health_are_not_shown():
    rows = pd.concat([table_rows(range(4), key) for key in ('daicwoz', 'cremad')])
    said = {row_id: f'words of {row_id}' for row_id in rows.id}
    viewer = to_side_by_side(rows, said, said, ('a', 'b'), limit=8)
    assert 'words of cremad' in viewer and 'daicwoz' not in viewer
    only = rows[rows.dataset == 'daicwoz']
    assert 'words of' not in to_side_by_side(only, said, said, ('a', 'b'))
