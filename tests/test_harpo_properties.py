"What the mended form must hold, on random batches."
import json, math
import pytest
import torch
from hypothesis import given, settings, strategies as st
from omnisapiens_nb.rl.advantages import ESTIMATORS, as_batch
from omnisapiens_nb.rl.harpo import OPEN, Harpo, HarpoConfig, live_prompts, normalised

many = settings(max_examples=100, deadline=None, derandomize=True)
level = st.integers(0, 1000).map(lambda k: k / 1000)
group = st.one_of(
    st.lists(st.sampled_from([0., 1.]), min_size=1, max_size=6),
    st.lists(level, min_size=2, max_size=6),
    st.tuples(level, st.integers(1, 6)).map(lambda x: [x[0]] * x[1]))


@st.composite
def batches(draw, names="abcd"):
    "Rewards, prompts and tasks of a batch with live and dead groups of any size."
    tasks = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True))
    rows = [(x, f"{t}{q}", t) for t in tasks for q, g in enumerate(draw(st.lists(group, min_size=1, max_size=5))) for x in g]
    r, q, m = zip(*rows)
    return torch.tensor(r, dtype=torch.float64), list(q), list(m)


def same(a, b, eps=1e-9): return torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=eps)
def per_row(step, tasks): return torch.tensor([step.task_factor[t] for t in tasks], dtype=torch.float64)


def before(batch):
    "Advantages before any modulation."
    b = as_batch(*batch)
    return normalised(b, live_prompts(b), HarpoConfig())


@many
@given(batches(), st.lists(st.tuples(st.sampled_from("abcd"), level, st.integers(1, 6)), min_size=1, max_size=8))
def test_a_dead_groups_change_no_live_factor(batch, dead):
    r, q, m = batch
    more = [(x, f"dead{i}", t) for i, (t, x, n) in enumerate(dead) for _ in range(n)]
    padded = Harpo()(torch.cat([r, torch.tensor([x for x, *_ in more], dtype=r.dtype)]), q + [p for _, p, _ in more], m + [t for *_, t in more])
    assert same(padded.sample_factor[:len(r)], Harpo()(*batch).sample_factor)
    assert (padded.sample_factor[len(r):] == 1).all()


@many
@given(st.lists(st.sampled_from(["ab", "abc", "ac", "bc", "aw", "bcw", "w", "abcw"]), min_size=1, max_size=25), st.integers(1, 4))
def test_b_equal_and_constant_tasks_have_factor_one(companies, successes):
    h, ours = Harpo(), [1.] * successes + [0.] * (5 - successes)
    weak = [1., 0., 0., 0., 0.] + [1.] * 10
    for names in [*companies, "ab", "abc", "c"]:
        rows = [(x, f"{t}{i // 5}", t) for t in names for i, x in enumerate(weak if t == "w" else ours * 3)]
        step = h(*zip(*rows))
        if "w" not in names: assert all(math.isclose(f, 1., abs_tol=1e-9) for f in step.task_factor.values())


@many
@given(st.lists(batches(), min_size=1, max_size=4))
def test_c_mean_size_is_kept_and_the_factors_multiply(sequence):
    h = Harpo()
    for batch in sequence:
        step, z = h(*batch), before(batch)
        assert math.isclose(step.advantages.abs().mean(), z.abs().mean(), abs_tol=1e-9)
        assert same(step.advantages, z * step.sample_factor * per_row(step, batch[2]) * step.scale)


@many
@given(st.lists(batches(), min_size=1, max_size=4))
def test_unclamped_factors_multiply_to_one(sequence):
    h = Harpo(HarpoConfig(task_clamp=OPEN, sample_clamp=OPEN))
    for r, q, m in sequence:
        step = h(r, q, m)
        assert math.isclose(math.prod(step.task_factor.values()), 1., abs_tol=1e-9)
        by_prompt = {p: (t, s) for p, t, s in zip(q, m, step.sample_factor.tolist())}
        for task in set(m): assert math.isclose(math.prod(s for t, s in by_prompt.values() if t == task), 1., abs_tol=1e-9)


@many
@given(st.lists(batches(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_d_order_changes_nothing(sequence, random):
    one, other = Harpo(), Harpo()
    for r, q, m in sequence:
        p = random.sample(range(len(r)), len(r))
        a, b = one(r, q, m), other(r[p], [q[i] for i in p], [m[i] for i in p])
        assert same(b.advantages, a.advantages[p]) and same(b.sample_factor, a.sample_factor[p])


@many
@given(batches(), st.lists(st.tuples(st.floats(-3, 3).map(lambda x: 10**x), st.floats(-1e3, 1e3)), min_size=4, max_size=4))
def test_e_shift_and_scale_change_nothing(batch, moves):
    r, q, m = batch
    scale, shift = (torch.tensor([moves["abcd".index(t)][k] for t in m], dtype=r.dtype) for k in (0, 1))
    a, b = Harpo()(r, q, m), Harpo()(r * scale + shift, q, m)
    assert same(a.advantages, b.advantages, 1e-5) and same(a.sample_factor, b.sample_factor, 1e-5)


@many
@given(batches(), st.integers(0, 10**6))
def test_e_rounding_noise_is_dead(batch, seed):
    r, q, m = batch
    wide = [0., 1.] * 4, [f"wide{t}" for t in "aabbccdd"], list("aabbccdd") # Every task has a range
    noise = 1e-9 * torch.rand(len(r), dtype=r.dtype, generator=torch.Generator().manual_seed(seed))
    live = lambda x: live_prompts(as_batch([*x.tolist(), *wide[0]], q + wide[1], m + wide[2]))
    assert torch.equal(live(r + noise), live(r))


@many
@given(st.lists(batches(), min_size=1, max_size=4), st.floats(.5, 1.), st.floats(1., 2.))
def test_f_clamps_are_counted(sequence, low, high):
    h, free = Harpo(HarpoConfig(task_clamp=(low, high), sample_clamp=(low, high))), Harpo(HarpoConfig(task_clamp=OPEN, sample_clamp=OPEN))
    for batch in sequence:
        step, open_step = h(*batch), free(*batch)
        beyond = lambda x: x <= low or x >= high
        assert (open_step.task_clamped, open_step.sample_clamped) == (0, 0)
        live = {t for t, p in step.contribution.items() if h.memory[t].contribution.value > 0}
        assert step.task_clamped == sum(beyond(f) for t, f in open_step.task_factor.items() if t in live)
        assert all(low <= f <= high for t, f in step.task_factor.items() if t in live)


@many
@given(st.sampled_from(["harpo", "harpo_paper", "harpo_released"]), st.lists(batches(), min_size=2, max_size=5), st.integers(0, 4))
def test_state_round_trip(name, sequence, cut):
    whole, first, second = (ESTIMATORS[name]() for _ in range(3))
    for batch in sequence[:cut]: whole(*batch), first(*batch)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in sequence[cut:]: assert torch.equal(whole(*batch).advantages, second(*batch).advantages)
    assert second.state_dict() == whole.state_dict()


@many
@given(st.sampled_from(list(ESTIMATORS)), batches(), st.data())
def test_bad_input_is_named_by_its_row(name, batch, data):
    r, q, m = batch
    est, row = ESTIMATORS[name](), data.draw(st.integers(0, len(r) - 1))
    put = lambda column, x: [*column[:row], x, *column[row + 1:]]
    for call in ((put(r.tolist(), math.inf), q, m), (r, q, put(m, None)), (r, put(q, None), m)):
        with pytest.raises(ValueError, match=f"row {row}"): est(*call)
    for call in ((r, q[:-1], m), (r, q, m + ["a"])):
        with pytest.raises(ValueError, match="row"): est(*call)
    with pytest.raises(ValueError, match="row .*another task"): est([*r.tolist(), 1.], q + [q[row]], m + ["other"])
    with pytest.raises(ValueError, match="empty batch"): est([], [], [])
    assert getattr(est, "memory", {}) == {}


@many
@given(st.sampled_from(list(ESTIMATORS)), batches(), st.data())
def test_missing_rewards_are_not_zero(name, batch, data):
    r, q, m = batch
    row = data.draw(st.integers(0, len(r) - 1))
    kept = [i for i in range(len(r)) if i != row]
    a = ESTIMATORS[name]()([*r[:row].tolist(), None, *r[row + 1:].tolist()], q, m).advantages
    assert a[row] == 0 and a.isfinite().all()
    if kept: assert same(a[kept], ESTIMATORS[name]()(r[kept], [q[i] for i in kept], [m[i] for i in kept]).advantages)


def test_instances_share_nothing():
    one, other = Harpo(), Harpo()
    one([1., 0.], ["q", "q"], ["t", "t"])
    assert other.memory == {} and len(one.memory) == 1
