"""Two measurements of the bootstrap, both in one run each.

python benchmarks/uncertainty.py speed > nbs/results/uncertainty_speed.json
python benchmarks/uncertainty.py coverage [DRAWS] > nbs/results/coverage.csv

`speed`: 1,000 resamples of whole groups, weighted F1, against a loop that draws groups with numpy and calls
scikit-learn. The loop gets what is best for it: rows of each group listed beforehand, labels as whole numbers as well
as names. `coverage`: how often 95 % intervals hold a truth that is known (the simulation is set out in the notebook on
uncertainty), over DRAWS samples of each design."""

import json
import sys
import time

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from sklearn.metrics import f1_score

from omnisapiens_nb.evaluation.metrics import label_cells, weighted_f1, weighted_f1_of
from omnisapiens_nb.evaluation.uncertainty import bootstrap, effective_groups, interval_of, resampled_values
from omnisapiens_nb.runs.machine import facts

NAMES = np.array(['anger', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise'])
WRONG = np.array([0.4, 0.3, 0.2, 0.1])  # How often a wrong guess is which answer; the last is no label
DENSITY = 0.0584  # Of the standard normal distribution at its 2.5 % quantile


def loop(t, p, groups, resamples, rng):
    "The plain way: the 95 % interval of scikit-learn's weighted F1 over resamples of groups, or of rows where None."
    members = [] if groups is None else [np.flatnonzero(groups == group) for group in np.unique(groups)]
    labels = np.unique(t)

    def drawn_rows():
        if groups is None:
            return rng.integers(len(t), size=len(t))
        return np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])

    def value():
        rows = drawn_rows()
        return f1_score(t[rows], p[rows], labels=labels, average='weighted', zero_division=0)

    drawn = np.array([value() for _ in range(resamples)])
    return np.quantile(drawn, [0.025, 0.975]), drawn.std()


def seconds(function, repeats):
    "Median time of the processor, and the last result."
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return float(np.median(times)), result


def answers(rows, groups, classes, named, seed):
    "References, answers and people."
    rng = np.random.default_rng(seed)
    people = rng.integers(groups, size=rows)
    t = rng.integers(classes, size=rows)
    p = np.where(rng.random(rows) < rng.beta(2, 1, groups)[people], t, rng.integers(classes, size=rows))
    return (NAMES[t], NAMES[p], people) if named else (t, p, people)


def case(rows, groups, classes, named, resamples=1000, seed=0):
    t, p, people = answers(rows, groups, classes, named, seed)
    fast, ours = seconds(lambda: bootstrap(weighted_f1, t, p, people, resamples), 7)
    slow, (theirs, spread) = seconds(lambda: loop(t, p, people, resamples, np.random.default_rng(seed + 1)), 1)
    # Four standard errors of the difference of two 2.5 % quantiles of a normal sample
    error = 4 * spread * 2**0.5 * (0.025 * 0.975 / resamples) ** 0.5 / DENSITY
    return {
        'rows': rows,
        'groups': groups,
        'classes': classes,
        'labels': 'names' if named else 'numbers',
        'resamples': resamples,
        'seconds': round(fast, 4),
        'loop_seconds': round(slow, 2),
        'times_faster': round(slow / fast),
        'ours': [ours.low, ours.high],
        'scikit-learn': theirs.tolist(),
        'monte_carlo_error': float(error),
    }


def speed():
    begun = time.monotonic()
    cases = []
    for groups, classes in ((2_000, 2), (2_000, 7), (8_000, 2)):
        for named in (False, True):
            cases.append(case(18_204, groups, classes, named))
    command = 'python benchmarks/uncertainty.py speed > nbs/results/uncertainty_speed.json'
    found = facts(command, time.monotonic() - begun, threads=1, cases=cases)
    sys.stdout.write(json.dumps(found, indent=1) + '\n')


DESIGNS = {
    'even': lambda rng: [5] * 40,
    'even, more': lambda rng: [5] * 150,
    'unequal': lambda rng: 1 + rng.geometric(0.12, 60),
    'very few': lambda rng: [10] * 15,
    'heavy tail': lambda rng: np.minimum(1 + 3 * rng.pareto(1.2, 60), 80).astype(int),
}


def sample(sizes, rng):
    "References, answers of two models, people."
    people = np.repeat(np.arange(len(sizes)), sizes)
    skills = rng.beta(2, 1, len(sizes))
    uniform = rng.random(len(people))[:, None]
    habits = rng.dirichlet([2, 1, 0.6], len(sizes))
    t = (uniform > habits.cumsum(1)[people]).sum(1)
    luck = rng.random(len(people))
    guess = rng.choice(4, len(people), p=WRONG)
    better = np.where(luck < skills[people], t, guess)
    lesser = np.where(luck < skills[people] ** 2, t, guess)
    return t, better, lesser, people


def true_f1(skill):
    support = np.array([2, 1, 0.6]) / 3.6
    predicted = skill * support + (1 - skill) * WRONG[:3]
    hits = support * (skill + (1 - skill) * WRONG[:3])
    return weighted_f1_of(np.stack([support, predicted, hits])).item()


def slopes(counts):
    "How the metric changes with each count: (…, 3, labels) to (…, 3 · labels)."
    cells = counts.shape[-2] * counts.shape[-1]
    steps = 1e-4 * np.eye(cells).reshape(cells, *counts.shape[-2:])
    moved = weighted_f1_of(counts[..., None, :, :] + steps)
    return (moved - weighted_f1_of(counts)[..., None]) / 1e-4


def bca(value, drawn, without_one):
    "Bias-corrected and accelerated interval (Efron and Tibshirani 1993, chapter 14); a jackknife over groups."
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = ndtri(np.clip(below, 1e-4, 1 - 1e-4))
    d = without_one.mean() - without_one
    acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    z = bias + ndtri(np.array([0.025, 0.975]))
    return np.quantile(drawn, ndtr(bias + z / (1 - acceleration * z)))


def studentised(value, drawn, error, drawn_errors):
    "Interval of the bootstrap's t (the same book, chapter 12)."
    t = (drawn - value) / np.maximum(drawn_errors, 1e-9)
    return value - error * np.quantile(t, [0.975, 0.025])


def with_errors(t, answers, people, seed):
    "BCa and studentised intervals of the scores of two models and of their difference; errors by linearisation."
    cells = [label_cells(t, said) for said in answers]
    groups = people.max() + 1
    of_groups = np.stack([c.sums(people, groups) for c in cells]).astype(float)  # (models, groups, 3, labels)
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=1000).astype(float)
    counts = np.einsum('bk,mkic->mbic', times, of_groups)
    total = of_groups.sum(1)
    flat = of_groups.reshape(2, groups, -1)
    effect = np.einsum('mc,mkc->mk', slopes(total), flat)
    effects = np.einsum('mbc,mkc->mbk', slopes(counts), flat)
    found = [weighted_f1_of(total), weighted_f1_of(counts), weighted_f1_of(total[:, None] - of_groups), effect, effects]
    for measure, of in (('score', lambda x: x[0]), ('difference', lambda x: x[0] - x[1])):
        value, drawn, without_one, moves, drawn_moves = map(of, found)
        error = (moves**2).sum() ** 0.5
        drawn_errors = (times * drawn_moves**2).sum(1) ** 0.5
        yield measure, 'BCa', bca(value, drawn, without_one)
        yield measure, 'studentised', studentised(value, drawn, error, drawn_errors)


def intervals(t, a, b, people, seed):
    "Measure, method, and bounds."
    for groups in (None, people):
        drawn_a, drawn_b = resampled_values(weighted_f1, t, [a, b], groups, 1000, seed)
        for measure, drawn in (('score', drawn_a), ('difference', drawn_a - drawn_b)):
            plain = np.quantile(drawn, [0.025, 0.975])
            if groups is None:
                yield measure, 'rows', plain
                continue
            yield measure, 'plain', plain
            for method, count in (('expanded', people.max() + 1), ('ours', effective_groups(people))):
                found = interval_of(0, drawn, count)
                yield measure, method, (found.low, found.high)
    yield from with_errors(t, (a, b), people, seed)


def one_sample(sizes, seed, rng):
    "For each measure and way of resampling: is the truth inside, and how wide is the interval."
    sampled = sample(sizes, rng)
    better, lesser = true_f1(2 / 3), true_f1(1 / 2)
    truths = dict(score=better, difference=better - lesser)
    for measure, method, (low, high) in intervals(*sampled, seed):
        yield measure, method, low <= truths[measure] <= high, high - low


def coverage(draws='4000'):
    found = []
    for number, (design, sizes_of) in enumerate(DESIGNS.items()):
        rng = np.random.default_rng(number)
        for seed in range(int(draws)):
            sizes = sizes_of(rng)
            for measure, method, covered, width in one_sample(sizes, seed, rng):
                found.append((design, len(sizes), measure, method, covered, width))
    keys = ['design', 'groups', 'measure', 'method']
    table = pd.DataFrame(found, columns=[*keys, 'covered', 'width']).groupby(keys, sort=False)
    shares = table.agg(draws=('covered', 'size'), covered=('covered', 'mean'), width=('width', 'median'))
    shares.round(4).to_csv(sys.stdout)


if __name__ == '__main__':
    dict(speed=speed, coverage=coverage)[sys.argv[1]](*sys.argv[2:])
