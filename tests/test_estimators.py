"""What every estimator does with missing, wrong and reordered input, on random batches; HARPO's own properties are
in nbs/rl/08_properties.ipynb.
"""

import math
from statistics import fmean, pstdev, stdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisapiens_nb.rl.advantages import ESTIMATORS, GRPO
from omnisapiens_nb.rl.harpo import Harpo

many = settings(max_examples=500, deadline=None, derandomize=True)
level = st.integers(0, 1000).map(lambda k: k / 1000)
group = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6),
    st.lists(level, min_size=2, max_size=6),
    st.tuples(level, st.integers(1, 6)).map(lambda x: [x[0]] * x[1]),
)


@st.composite
def batches(draw, names='abcd'):
    "Rewards, prompts and tasks of a batch with live and dead groups of any size."
    tasks = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True))
    rows = [
        (x, f'{t}{q}', t) for t in tasks for q, g in enumerate(draw(st.lists(group, min_size=1, max_size=5))) for x in g
    ]
    r, q, m = zip(*rows)
    return torch.tensor(r, dtype=torch.float64), list(q), list(m)


def same(a, b, eps=1e-9):
    return torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=eps)


@many
@given(st.sampled_from(list(ESTIMATORS)), batches(), st.data())
def test_bad_input_is_named_by_its_row(name, batch, data):
    r, q, m = batch
    est, row = ESTIMATORS[name](), data.draw(st.integers(0, len(r) - 1))

    def put(column, x):
        return [*column[:row], x, *column[row + 1 :]]

    for call in ((put(r.tolist(), math.inf), q, m), (r, q, put(m, None)), (r, put(q, None), m)):
        with pytest.raises(ValueError, match=rf'row {row}\b'):
            est(*call)
    for call in ((r, q[:-1], m), (r, q, m + ['a'])):
        with pytest.raises(ValueError, match='row'):
            est(*call)
    with pytest.raises(ValueError, match='row .*another task'):
        est([*r.tolist(), 1.0], q + [q[row]], m + ['other'])
    with pytest.raises(ValueError, match='empty batch'):
        est([], [], [])
    assert getattr(est, 'memory', {}) == {}


@many
@given(st.sampled_from(list(ESTIMATORS)), batches(), st.data())
def test_missing_rewards_are_not_zero(name, batch, data):
    r, q, m = batch
    row = data.draw(st.integers(0, len(r) - 1))
    kept = [i for i in range(len(r)) if i != row]
    a = ESTIMATORS[name]()([*r[:row].tolist(), None, *r[row + 1 :].tolist()], q, m).advantages
    assert a[row] == 0 and a.isfinite().all()
    if kept:
        assert same(a[kept], ESTIMATORS[name]()(r[kept], [q[i] for i in kept], [m[i] for i in kept]).advantages)


def test_instances_share_nothing():
    one, other = Harpo(), Harpo()
    one([1.0, 0.0], ['q', 'q'], ['t', 't'])
    assert other.memory == {} and len(one.memory) == 1


@many
@given(st.sampled_from(list(ESTIMATORS)), batches(), st.randoms(use_true_random=False))
def test_order_changes_nothing(name, batch, random):
    r, q, m = batch
    p = random.sample(range(len(r)), len(r))
    moved = ESTIMATORS[name]()(r[p], [q[i] for i in p], [m[i] for i in p]).advantages
    assert same(moved, ESTIMATORS[name]()(r, q, m).advantages[p])


def in_loops(r, q, m):
    "Advantages by their definitions, one rollout at a time."
    of, task = {p: [x for x, y in zip(r, q) if y == p] for p in q}, {t: [x for x, u in zip(r, m) if u == t] for t in m}
    live = {p: max(x) > min(x) for p, x in of.items()}
    alpha = len(r) / max(sum(live[p] for p in q), 1)

    def whiten(x):
        return [(v - fmean(x)) / math.sqrt((stdev(x) ** 2 if len(x) > 1 else 0.0) + 1e-8) for v in x]

    centred = [x - fmean(of[p]) for x, p in zip(r, q)]
    grpo = [c / pstdev(of[p]) if live[p] else 0.0 for c, p in zip(centred, q)]
    z = [c / (stdev(of[p]) + 1e-4) if len(of[p]) > 1 else 0.0 for c, p in zip(centred, q)]
    size = {t: sum(abs(x) for x, u in zip(grpo, m) if u == t) for t in task}
    fair = sum(size.values()) / max(sum(x > 0 for x in size.values()), 1)
    sd = {t: math.sqrt(max(fmean([x * x for x in v]) - fmean(v) ** 2, 1e-6)) for t, v in task.items()}
    ema = [c / (sd[t] + 1e-6) for c, t in zip(centred, m)]
    far = {p for a, p in zip(ema, q) if abs(a) > 5}
    return dict(
        reinforce=r,
        dr_grpo=centred,
        grpo=grpo,
        dapo=grpo,
        rloo=[
            x - fmean([*of[p][:i], *of[p][i + 1 :]]) if len(of[p]) > 1 else 0.0
            for x, p, i in zip(r, q, (q[:k].count(p) for k, p in enumerate(q)))
        ],
        reinforce_pp=whiten(r),
        reinforce_pp_baseline=whiten(centred),
        gpg=[alpha * c for c in centred],
        drop_dead=[alpha * a for a in grpo],
        equal_share=[a * fair / size[t] if size[t] else 0.0 for a, t in zip(grpo, m)],
        ema_grpo=[c / (pstdev(of[p]) + 1e-6) if p in far else a for c, a, p in zip(centred, ema, q)],
        gdpo=[(x - fmean(z)) / ((stdev(z) if len(z) > 1 else 0.0) + 1e-4) for x in z],
    )


@many
@given(batches())
def test_estimators_are_their_definitions(batch):
    r, q, m = batch
    defined = in_loops(r.tolist(), q, m)
    assert set(ESTIMATORS) - set(defined) == {
        'harpo',
        'harpo_paper',
        'harpo_released',
    }  # These have a page of their own
    for name, plain in defined.items():
        assert same(ESTIMATORS[name]()(r, q, m).advantages, torch.tensor(plain, dtype=r.dtype), 1e-7), name


@many
@given(batches())
def test_grpo_in_verls_convention(batch):
    "Sample deviation plus 1e-6; verl leaves a group of one its raw reward, which is no comparison and is 0 here."
    r, q, m = batch
    of = {p: r[[y == p for y in q]] for p in q}
    verl = [(x - of[p].mean()) / (of[p].std() + 1e-6) if len(of[p]) > 1 else 0.0 for x, p in zip(r, q)]
    assert same(GRPO(ddof=1, eps=1e-6, floor=False)(r, q, m).advantages, torch.tensor(verl, dtype=r.dtype))
