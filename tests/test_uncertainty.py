"Sentiment family as recorded, counts against rows, intervals that cover, tests between models against brute force."

import itertools
import time
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from omnisapiens_nb.evaluation import metrics as M
from omnisapiens_nb.evaluation import uncertainty as U
from omnisapiens_nb.evaluation.comparison import compare_models, corrected, mcnemar, smallest_difference
from omnisapiens_nb.evaluation.scores import Score, atlas_mean, metric_fn, root_rows_mean

LABELS = list(M.SENTIMENTS)


def columns(metric, rng, n):
    "References and answers of three models that suit a metric, faulty answers included."
    if metric is M.similar_share:
        return [1] * n, [[float(x) for x in rng.random(n)] for _ in range(3)]
    if metric is M.mean_label_f1:

        def some(least):
            return ', '.join(rng.permutation(LABELS[:4])[: rng.integers(least, 4)]) or None

        return [some(1) for _ in range(n)], [[some(0) for _ in range(n)] for _ in range(3)]
    truth = [LABELS[i] for i in rng.integers(0, rng.integers(1, 8), n)]

    def said():
        return [t if rng.random() < 0.5 else [*LABELS, 'irony', None][rng.integers(9)] for t in truth]

    return truth, [said() for _ in range(3)]


def test_sentiment_family_released(golden):
    cases = [c for c in golden('metrics_released_code')['cases'] if 'collapsed' in c]
    assert len(cases) == 3
    for c in cases:
        ours = M.sentiment_family(c['y_true'], c['y_pred'])
        assert ours.keys() == c['collapsed'].keys()
        assert max(abs(ours[k] - v) for k, v in c['collapsed'].items()) < 1e-12


def test_accuracy_released(golden):
    for c in golden('metrics_released_code')['cases']:
        assert abs(M.accuracy(c['y_true'], c['y_pred']) - c['metrics']['weighted_accuracy']) < 1e-12


def test_confusion_counts_every_row():
    rng = np.random.default_rng(0)
    for n in range(1, 40):
        t, (p, *_) = columns(M.accuracy, rng, n)
        labels, table = M.confusion(t, p)
        assert table.sum() == n
        for (i, c), (j, d) in itertools.product(enumerate(labels), enumerate(labels)):
            assert table[i, j] == sum(x == c and y == d for x, y in zip(t, p))


@pytest.mark.parametrize('metric', list(M.COUNTED), ids=lambda m: m.__name__)
def test_counts_give_what_rows_give(metric, monkeypatch):
    """The same resamples by counts and by rows, for values, differences and seeds; labels may vanish from a resample.
    No kind of groups is frequent here, since those are drawn otherwise."""
    monkeypatch.setattr(U, '_FREQUENT', 60)
    rng = np.random.default_rng(1)

    def plain(t, p):
        return metric(t, p)

    def same(function, *arguments):
        counted, by_rows = astuple(function(metric, *arguments)), astuple(function(plain, *arguments))
        assert counted == pytest.approx(by_rows, abs=1e-12, nan_ok=True)

    for n in (1, 2, 3, 7, 30, 60):
        t, (a, b, c) = columns(metric, rng, n)
        for groups in (None, [f'g{i}' for i in rng.integers(0, 9, n)]):
            same(U.bootstrap, t, a, groups, 60, n)
            same(U.bootstrap_difference, t, a, b, groups, 60, n)
            same(U.bootstrap_seeds, t, [a, b], [b, c], groups, 60, n)


def test_kinds_are_groups_with_the_same_counts():
    rng = np.random.default_rng(0)
    for digits, columns in ((2, 3), (2, 200), (10**6, 12), (1, 4)):
        counts = rng.integers(digits, size=(12, columns))[rng.integers(12, size=300)]
        kind, first = U._kinds(counts)
        assert (counts[first][kind] == counts).all()
        assert len(first) == len(np.unique(counts, axis=0))
        assert (np.diff(np.bincount(kind)) <= 0).all()


@pytest.mark.parametrize('frequent', [0, 1, 2])
def test_kinds_are_drawn_as_groups_would_be(frequent, monkeypatch):
    "Every resample of five groups of three kinds, listed; the kinds that are frequent are drawn by their number."
    monkeypatch.setattr(U, '_FREQUENT', frequent)
    kind = np.array([0, 0, 1, 1, 2])
    drawn = np.concatenate(list(U._kind_draws(kind, U._Plan(None, 5, 200_000, 0))))
    seen = Counter(map(tuple, drawn))
    listed = Counter(
        tuple(np.bincount(kind[list(groups)], minlength=3)) for groups in itertools.product(range(5), repeat=5)
    )
    assert seen.keys() == listed.keys()
    expected = np.array([listed[times] for times in seen]) * 200_000 / 5**5
    assert scipy.stats.chisquare(list(seen.values()), expected).pvalue > 1e-3


@pytest.mark.parametrize('groups', [None, 700])
def test_intervals_by_kind_are_those_by_group(groups, monkeypatch):
    "Over 400 seeds the ends of both have the same mean and the same scatter; rows alone, and groups of a few rows."
    rng = np.random.default_rng(5)
    t = rng.integers(3, size=1500)
    answers = [np.where(rng.random(1500) < skill, t, rng.integers(4, size=1500)) for skill in (0.7, 0.5)]
    who = None if groups is None else rng.integers(groups, size=1500)

    def ends():
        found = [U.bootstrap_difference(M.weighted_f1, t, *answers, who, 200, seed) for seed in range(400)]
        return np.array([(interval.low, interval.high) for interval in found])

    by_kind = ends()
    monkeypatch.setattr(U, '_FREQUENT', 1500)
    by_group = ends()
    assert (by_kind != by_group).any()
    for one, other in zip(by_kind.T, by_group.T):
        assert scipy.stats.ttest_ind(one, other).pvalue > 1e-3
        assert scipy.stats.ks_2samp(one, other).pvalue > 1e-3


def test_every_metric_of_a_task_is_counted():
    assert all(metric_fn(task) in M.COUNTED for task in M.METRICS)


def test_many_labels_go_by_rows(monkeypatch):
    t = [f'label {i}' for i in range(60)]
    short = U.bootstrap(M.weighted_f1, t, t[:30] + t[:30], resamples=50)
    monkeypatch.setattr(U, 'LARGEST', 100)
    long = U.bootstrap(M.weighted_f1, t, t[:30] + t[:30], resamples=50)
    assert (short.low, short.high) == pytest.approx((long.low, long.high), abs=1e-12)


def test_faster_than_a_loop():
    "A tenth of the loop that benchmarks/uncertainty.py runs; its bar is 100, this one leaves room for a busy machine."
    rng = np.random.default_rng(0)
    n, groups = 18_204, rng.integers(2000, size=18_204)
    t = rng.integers(4, size=n)
    p = np.where(rng.random(n) < 0.6, t, rng.integers(4, size=n))

    def seconds(f):
        start = time.perf_counter()
        return f(), time.perf_counter() - start

    def loop():
        draw = np.random.default_rng(9)
        members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
        drawn = []
        for _ in range(100):
            rows = np.concatenate([members[i] for i in draw.integers(len(members), size=len(members))])
            drawn.append(f1_score(t[rows], p[rows], average='weighted', zero_division=0))
        return np.quantile(drawn, [0.025, 0.975])

    U.bootstrap(M.weighted_f1, t, p, groups, 10)
    ours, fast = seconds(lambda: U.bootstrap(M.weighted_f1, t, p, groups))
    theirs, slow = seconds(loop)
    assert 10 * slow / fast > 50
    assert np.abs(theirs - (ours.low, ours.high)).max() < 0.004


def clustered_sample(rng, people=50, rows=6):
    who = np.repeat(np.arange(people), rows)
    return rng.integers(2, size=len(who)), rng.random((2, len(who))) < rng.beta(2, 1, (2, people))[:, who], who


def test_intervals_cover():
    "True accuracy is the mean of Beta(2, 1), 2/3; the difference of two models alike is 0."
    inside = []
    for seed in range(1000):
        t, right, who = clustered_sample(np.random.default_rng(seed))
        a, b = np.where(right, t, 1 - t)
        by_person = U.bootstrap(M.accuracy, t, a, who, 400, seed)
        by_row = U.bootstrap(M.accuracy, t, a, None, 400, seed)
        gap = U.bootstrap_difference(M.accuracy, t, a, b, who, 400, seed)
        truths = ((by_person, 2 / 3), (by_row, 2 / 3), (gap, 0))
        inside.append([interval.low <= truth <= interval.high for interval, truth in truths])
    by_person, by_row, gap = np.mean(inside, 0)
    assert 0.93 <= by_person <= 0.97 and 0.93 <= gap <= 0.97 and by_row < 0.9


def test_few_groups_widen():
    assert U._levels(10**6) == pytest.approx((0.025, 0.975), abs=1e-5)
    assert U._levels(9)[0] < U._levels(40)[0] < U._levels(400)[0] < 0.025


def test_clustered_error_by_definition():
    rng = np.random.default_rng(2)
    for n in (2, 5, 30):
        x, g = rng.random(n), rng.integers(0, 6, n)
        d = x - x.mean()
        products = sum(d[i] * d[j] for i, j in itertools.permutations(range(n), 2) if g[i] == g[j])
        square = x.var(ddof=1) / n + products / n**2
        assert U.clustered_error(x, g) == pytest.approx(square**0.5 if square >= 0 else np.nan, abs=1e-12, nan_ok=True)
        assert U.clustered_error(x) == pytest.approx(scipy.stats.sem(x), abs=1e-12)


def test_mcnemar_is_every_pattern_of_signs():
    rng = np.random.default_rng(3)
    for _ in range(30):
        right, groups = rng.random((2, 24)) < 0.5, rng.integers(0, 7, 24)
        d = np.array([(right[0][groups == k].sum() - right[1][groups == k].sum()) for k in range(7)], int)
        sums = np.array([np.dot(s, d) for s in itertools.product((-1, 1), repeat=7)])
        m = mcnemar([1] * 24, right[0].astype(int), right[1].astype(int), groups)
        assert m.p == pytest.approx((abs(sums) >= abs(d.sum())).mean(), abs=1e-12)
        rows = mcnemar([1] * 24, right[0].astype(int), right[1].astype(int))
        alone = rows.a_only + rows.b_only
        binomial = scipy.stats.binomtest(rows.a_only, alone).pvalue if alone else 1
        assert rows.p == pytest.approx(binomial, abs=1e-12)


def test_p_and_interval_agree():
    "p is below .05 where zero lies outside the interval, but for the rounding of a quantile."
    pairs = []
    for seed in range(150):
        t, right, who = clustered_sample(np.random.default_rng(seed), 20)
        right[1] |= np.random.default_rng(seed).random(right.shape[1]) < 0.5
        a, b = np.where(right, t, 1 - t)
        c = compare_models(M.weighted_f1, t, a, b, who, 999)
        pairs.append((c.p, not c.difference.low <= 0 <= c.difference.high))
        assert c.smallest == pytest.approx(2.8016 * c.se, rel=1e-4)
    assert 20 < sum(p < 0.05 for p, _ in pairs) < 130
    assert all(abs(p - 0.05) < 0.005 for p, outside in pairs if (p < 0.05) != outside)


def test_one_group_says_nothing():
    c = compare_models(M.accuracy, [0, 1], [0, 1], [1, 1], ['x', 'x'])
    assert c.difference.value == 0.5 and np.isnan([c.p, c.se, c.smallest, c.difference.low]).all()


def test_corrections_by_definition():
    rng = np.random.default_rng(4)
    for m in range(1, 12):
        p = rng.random(m) ** 3
        table = corrected({f't{i}': x for i, x in enumerate(p)} | {'none': np.nan})
        holm = [min(1, max((m - sorted(p).index(y)) * y for y in p if y <= x)) for x in p]
        bh = [min(min(y * m / (sorted(p).index(y) + 1) for y in p if y >= x), 1) for x in p]
        assert np.allclose(table.holm[:-1], holm, atol=1e-12)
        assert np.allclose(table.bh[:-1], bh, atol=1e-12)
        assert table.loc['none'].isna().all()
    assert corrected({'a': np.nan}).isna().all(axis=None)


def test_smallest_difference_by_hand():
    assert smallest_difference(0.01) == pytest.approx(0.01 * (1.959964 + 0.841621), abs=1e-8)


def test_a_small_set_does_not_rule():
    def make(d, t, n, v):
        return Score(d, t, n, v, v, v, 0, 0)

    scores = [
        make('daicwoz', 'depression_cls', 47, 0.4),
        make('mmpsy_depression', 'depression_cls', 255, 0.7),
        make('urfunny', 'humour_cls', 994, 0.6),
    ]
    assert atlas_mean(scores) == pytest.approx((0.55 + 0.6) / 2)
    weights = np.sqrt([47, 255, 994])
    assert root_rows_mean(scores) == pytest.approx((weights * [0.4, 0.7, 0.6]).sum() / weights.sum())


@pytest.mark.parametrize(
    'call, says',
    [
        (lambda: U.bootstrap(M.weighted_f1, ['a'], ['a', 'b']), 'row 1'),
        (lambda: U.bootstrap(M.weighted_f1, [], []), 'no rows'),
        (lambda: U.bootstrap(M.similar_share, [1], [0.9, 0.9]), 'row 1'),
        (lambda: U.bootstrap(M.weighted_f1, ['a', 'b'], ['a', 'b'], ['x']), 'row 1 has no partner'),
        (lambda: U.bootstrap(M.weighted_f1, ['a', 'b'], ['a', 'b'], ['x', None]), 'row 1: no group'),
        (lambda: U.bootstrap_seeds(M.weighted_f1, ['a'], [['a']], []), '1 and 0 runs'),
        (lambda: U.bootstrap(M.sentiment_binary_f1, ['angry'], ['angry']), 'no sentiment'),
        (lambda: M.fold_sentiment(['neutral'], ['neutral'], 4), 'no sentiment on 4 classes'),
        (lambda: mcnemar([1, 0], [1], [1, 0]), 'one answer of each model'),
        (lambda: mcnemar([1, 0], [1, 0], [1, 0], ['x']), 'row 1 has no partner'),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
