"""Scores, p-values and alarms: false alarms as they are set, what is unlike is seen, and bad input is refused."""

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.guard import Monitor, draws_needed, monitor
from fanfold.guard.monitoring import (
    COMBINED,
    SCORES,
    CusumWatch,
    MartingaleWatch,
    band,
    bearable,
    cusum_threshold,
    lifted,
    rate_given,
    share_in_windows,
)
from fanfold.guard.monitoring.combined import learn_surprise, surprise
from fanfold.guard.monitoring.distance import distance, learn_distance
from fanfold.observation import Estimate, Observation

PROBLEM = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.1, snr_db=30.0)
OAMP = ff.iterate(ff.algorithms.OAMP(PROBLEM.prior, noise="estimated"), 6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def guard() -> Monitor:
    """The scores of a classical algorithm, each of them."""
    names = ("energy", "residual", "variance", "course", "summary", "held-out")
    return monitor(OAMP, PROBLEM, alarm=0.05, draws=3000, scores=names)


@pytest.fixture(scope="module")
def usual() -> Observation:
    return PROBLEM.sample(4000, generator(7))[1]


# What is promised given the calibration draws


@pytest.mark.parametrize("alarm", [0.05, 0.01])
def test_as_many_draws_as_needed_hold_the_rate_and_far_fewer_do_not(alarm):
    """Sets of uniform scores: the rate given a set is its k-th least score."""
    needed, rng = draws_needed(alarm), np.random.default_rng(1)

    def held(count: int) -> float:
        k = int(alarm * (count + 1))
        rates = np.partition(rng.random((1500, count)), k - 1, 1)[:, k - 1]
        return float((np.abs(rates - alarm) <= alarm / 2).mean())

    assert held(needed) > 0.95 - 3 * (0.05 * 0.95 / 1500) ** 0.5
    assert held(needed // 3) < 0.9


def test_a_rate_has_a_range_given_the_draws_and_too_few_draws_say_how_many():
    low, high = rate_given(2000, 0.01, 0.95)
    rates = np.random.default_rng(0).beta(20, 1981, 20_000)
    assert ((rates >= low) & (rates <= high)).mean() == pytest.approx(0.95, abs=0.01)
    with pytest.raises(ValueError, match="at least 999 draws"):
        rate_given(500, 0.001, 0.95)


def test_the_band_holds_all_ranks_at_once_and_is_not_wasteful():
    """Other draws than those which the band was made from; three deviations of 2000 sets around 95 %."""
    count = 500
    ranks, bounds = band(count, 0.95)
    uniform = np.sort(np.random.default_rng(5).random((2000, count)), 1)[:, ranks.numpy() - 1]
    assert 0.95 - 0.015 < (uniform <= bounds.numpy()).all(1).mean() < 0.985


def test_lifted_p_values_are_larger_and_keep_their_order():
    p = torch.arange(1, 502, dtype=torch.float64) / 501
    larger = lifted(p, 500)
    assert (larger >= p).all()
    assert (larger.diff() >= 0).all()
    assert larger[-1] == 1
    with pytest.raises(ValueError, match="not between 0 and 1"):
        lifted(torch.tensor([1.2]), 500)


# Single observations


def test_false_alarms_come_as_they_are_set_for_every_score(guard, usual):
    """Given 2000 draws and 4000 tests the rate of 5 % has a deviation of .6 points; three of them."""
    for name, p in guard.all_p_values(usual).items():
        assert (p <= 0.05).double().mean().item() == pytest.approx(0.05, abs=0.018), name
        assert (p <= 0.5).double().mean().item() == pytest.approx(0.5, abs=0.045), name


def test_a_p_value_is_the_share_of_usual_draws_that_are_as_strange(guard, usual):
    some = usual[:50]
    scores, p = guard.scores(some)[COMBINED], guard.p_values(some)
    as_strange = (guard.calibration[COMBINED] >= scores[:, None]).sum(1).double()
    assert torch.allclose(p, (as_strange + 1) / (guard.draws + 1))
    assert torch.equal(p, guard.p_values(some, OAMP(some)))
    alone = guard.p_values(some[:3])  # whoever else is in the batch, but for products that round otherwise
    assert torch.allclose(p[:3], alone, atol=3 / guard.draws, rtol=0)


def test_one_pass_gives_the_estimate_beside_its_p_value(guard, usual):
    estimate, p = guard.judged(usual[:50])
    assert torch.equal(estimate.x, OAMP(usual[:50]).x)
    assert estimate.var is not None
    assert torch.equal(estimate.var, OAMP(usual[:50]).var)
    assert torch.equal(p, guard.p_values(usual[:50]))
    single, least = guard.judged(Observation(usual.y[0], usual.A, usual.noise_var))
    assert (single.x.shape, least.shape) == ((60,), ())


def test_one_observation_has_one_p_value_and_y_by_itself_is_taken(guard, usual):
    single = Observation(usual.y[0], usual.A, usual.noise_var)
    assert guard.p_values(single).shape == ()
    assert guard.p_values(single) == guard.p_values(usual[:1])[0]
    net = ff.unfold(ff.algorithms.ISTA(), PROBLEM, 3, {"step": "tied"})
    x, obs = PROBLEM.sample(600, generator(3))
    alone = monitor(net, (x, Observation(obs.y, obs.A)), alarm=0.05)
    assert alone.p_values(usual.y[:4].numpy()).shape == (4,)
    broken = usual.y[:4].numpy().copy()
    broken[2, 5] = np.nan
    assert alone.p_values(broken)[2] == 1 / (alone.draws + 1)


def auroc(guard: Monitor, usual: Observation, y: torch.Tensor, name: str) -> float:
    strange = Observation(y, usual.A, usual.noise_var)
    a, b = guard.scores(usual[:1000])[name], guard.scores(strange)[name]
    return (b[:, None] > a).double().mean().item()


def louder(snr_db: float) -> torch.Tensor:
    return PROBLEM.shifted(snr_db=snr_db).sample(400, generator(9))[1].y


SHIFTS = {
    "energy": lambda: 3.0 * louder(30.0),
    "residual": lambda: louder(20.0),
    "variance": lambda: PROBLEM.shifted(sparsity=0.3).sample(400, generator(9))[1].y,
    "course": lambda: PROBLEM.shifted(sparsity=0.3).sample(400, generator(9))[1].y,
    "summary": lambda: 3.0 * louder(30.0),
    "held-out": lambda: louder(10.0),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_a_score_and_the_combined_one_see_what_it_is_for(name, guard, usual):
    y = SHIFTS[name]()
    assert auroc(guard, usual, y, name) > 0.9
    assert auroc(guard, usual, y, COMBINED) > 0.9


def test_what_is_too_small_is_as_strange_as_what_is_too_large(guard, usual):
    """Silence, and a residual of a tenth: naive tests of fit call both of them good."""
    assert (guard.p_values(Observation(0 * usual.y[:5], usual.A, usual.noise_var)) <= 0.01).all()
    assert auroc(guard, usual, 0.1 * usual.y[:400], "energy") > 0.95


@pytest.mark.parametrize("members", [None, 3])
def test_an_observation_outside_a_simulator_is_seen(members):
    """Measurements of two parameters lie on a thin cloud; contamination and quieter noise leave it."""
    box, t = ff.problems.Box((0.5, 0.5), (2.0, 3.0)), torch.linspace(0, 4, 24)

    def simulate(x, generator, noise=0.05, hits=0.0):
        w = noise * torch.randn(len(x), 24, generator=generator)
        hit = torch.rand(len(x), 24, generator=generator) < hits
        return x[:, :1] * torch.cos(x[:, 1:] * t) + w + hit * torch.randn(len(x), 24, generator=generator)

    problem = ff.problems.BatchSimulator(box, simulate)
    net = ff.neural(problem, members=members, width=8)
    net.prepare(*problem.sample(500, generator()))
    guard = monitor(net, problem, alarm=0.05, draws=1500)
    assert {"summary", "unexplained", "spread"} <= set(guard.names)
    x, obs = problem.sample(500, generator(1))
    for changed in ({"hits": 0.2}, {"noise": 0.15}, {"noise": 0.01}):
        y = simulate(x, generator(2), **changed)
        a, b = guard.scores(obs)[COMBINED], guard.scores(Observation(y))[COMBINED]
        assert (b[:, None] > a).double().mean() > 0.9, changed


def test_draws_that_share_conditions_within_a_call_calibrate_as_if_they_did_not():
    """Four SNRs a call, whatever its size: calibrated on one call, the median would be anywhere."""
    varied = ff.problems.Varied(PROBLEM, {"snr_db": (10.0, 40.0)}, groups=4)
    assert ff.guard.Noisier(varied, 2.0).groups == 4
    assert ff.guard.Noisier(PROBLEM, 2.0).groups is None
    guard = monitor(OAMP, varied, alarm=0.05, draws=1500)
    rows = [varied.sample(4, generator(i))[1] for i in range(300)]
    noise_var = torch.cat([obs.noise_var for obs in rows if obs.noise_var is not None])
    p = guard.p_values(Observation(torch.cat([obs.y for obs in rows]), varied.A, noise_var), score="variance")
    # of 1000 draws that calibrate and 1200 tests the median has a deviation of .022; three of them
    assert (p <= 0.5).double().mean().item() == pytest.approx(0.5, abs=0.066)


def test_what_members_say_is_what_the_estimate_is_made_of():
    problem = ff.problems.LinearGaussian(n=2, m=3)
    x, obs = problem.sample(300, generator(1))
    for loss, members in (("squared-error", 3), ("squared-error", None), ("gaussian", None)):
        net = ff.neural(problem, loss, members=members, width=8)
        net.prepare(x, obs)
        said = net.said_by_members(obs)
        assert said.shape[1:] == (300, 2)
        assert torch.isfinite(said).all()
        if members:
            assert torch.allclose(said.mean(0), net(obs).x, atol=1e-5)


def test_where_scale_means_nothing_a_gain_is_usual():
    channels = ff.problems.OFDMChannel("rayleigh:array=4,subcarriers=12", snr_db=10.0)
    net = ff.estimators.ofdm.MixerSettings(4, 4, 1, 4, 8, 8).build(channels)
    assert net.scale_equivariant
    guard = monitor(net, channels, alarm=0.05, draws=600)
    assert "energy" not in guard.names
    obs = channels.sample(100, generator(4))[1]
    assert obs.noise_var is not None
    scaled = Observation(1e-3 * obs.y, obs.A, 1e-6 * obs.noise_var)
    assert torch.allclose(guard.p_values(obs), guard.p_values(scaled), atol=0.02)


def test_ties_are_drawn_by_lot_and_are_the_same_when_asked_again():
    """A score that hardly any observation differs in: p-values are uniform all the same."""

    def rounded(obs: Observation) -> Estimate:
        return Estimate(obs.y, torch.ones_like(obs.y))

    problem = ff.problems.LinearGaussian(n=2, m=3)
    guard = monitor(rounded, problem, alarm=0.05, draws=900, scores=("variance",))
    obs = problem.sample(2000, generator(6))[1]
    p = guard.p_values(obs)
    assert (p <= 0.1).double().mean().item() == pytest.approx(0.1, abs=0.03)
    assert torch.equal(p, guard.p_values(obs))


def test_rounding_that_goes_with_the_size_of_a_batch_is_not_strange():
    """A variance that is the same for all, but for its last bits in large batches."""

    def batched(obs: Observation) -> Estimate:
        return Estimate(obs.y, torch.ones_like(obs.y) * (1 + 1e-7 * (len(obs.y) > 100)))

    problem = ff.problems.LinearGaussian(n=2, m=3)
    guard = monitor(batched, problem, alarm=0.05, draws=700, scores=("variance", "energy"))
    obs = problem.sample(40, generator(6))[1]
    for name, p in guard.all_p_values(obs).items():
        assert (p <= 0.1).sum() <= 12, name  # of 40; four are to be expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_have_p_values_that_differ_by_rounding(dtype, guard, usual):
    some = usual[:50]
    other = Observation(some.y.to(dtype), some.A.in_precision(dtype), some.noise_var)
    gap = (guard.p_values(other, score="energy") - guard.p_values(some, score="energy")).abs().max().item()
    # energies err by eps, logarithms too; their density is below 2, and two of them part p-values
    assert gap <= 4 * torch.finfo(dtype).eps + 3 / guard.draws


@pytest.mark.parametrize("scale", [1e-24, 1e22])
def test_a_gain_is_seen_at_any_scale_of_single_precision(scale):
    def matched(obs: Observation) -> Estimate:
        return Estimate(1e-3 * (obs.A.H @ obs.y))

    x, obs = PROBLEM.sample(700, generator(3))
    small = Observation(scale * obs.y, obs.A, torch.tensor(1.0))
    guard = monitor(matched, (x, small), alarm=0.05)
    p = guard.all_p_values(Observation(10 * small.y, obs.A, torch.tensor(1.0)))
    assert all((p[name] <= 0.05).double().mean() > 0.9 for name in ("energy", "residual", COMBINED))


def test_an_estimator_that_fails_at_most_draws_is_refused():
    def broken(obs: Observation) -> Estimate:
        return Estimate(torch.full((len(obs.y), 60), torch.nan))

    with pytest.raises(ValueError, match=r"'residual' is a number for 0 of 233 draws.*mend the estimator"):
        monitor(broken, PROBLEM.sample(700, generator(3)), alarm=0.05)


def test_what_is_no_number_has_the_least_p_value_and_nothing_is_raised(guard, usual):
    y = usual.y[:6].clone()
    y[1, 3], y[4, 0] = torch.nan, torch.inf
    obs = Observation.unchecked(y, usual.A, usual.noise_var)
    p = guard.p_values(obs)
    assert (p[[1, 4]] == 1 / (guard.draws + 1)).all()
    assert torch.equal(p[[0, 2, 3, 5]], guard.p_values(usual[:6])[[0, 2, 3, 5]])
    assert guard.scores(obs)[COMBINED][1] == torch.inf
    (first, *_) = guard.remarks(obs)
    assert first.startswith("2 of 6 samples (first at 1, 4) hold NaN or infinity and have the least p-value")
    assert guard.p_values(Observation.unchecked(torch.full((2, 40), torch.nan), usual.A, usual.noise_var)).shape == (2,)


def test_a_sample_without_noise_is_strange_and_leaves_the_others_as_they_are(guard, usual):
    some = usual[:20]
    silent = torch.full((20, 1), PROBLEM.noise_var)
    before = guard.all_p_values(Observation(some.y, some.A, silent.clone()))
    silent[3] = 0.0
    for name, p in guard.all_p_values(Observation(some.y, some.A, silent)).items():
        assert torch.equal(p[torch.arange(20) != 3], before[name][torch.arange(20) != 3]), name
        assert p[3] < 0.01 or name not in ("residual", "held-out", COMBINED)


def test_too_many_small_p_values_are_said_with_what_sees_them_and_what_to_do(guard, usual):
    assert guard.remarks(usual[:200]) == []
    y = usual.y[:30].clone()
    y[10:20] *= 4
    (sentence,) = guard.remarks(Observation(y, usual.A, usual.noise_var))
    assert "samples (first at" in sentence
    assert "are unlike the 2000 draws of calibration" in sentence
    assert "which sees" in sentence
    assert "do not trust their estimates" in sentence


# Over time


def uniform(calls: int, streams: int, seed: int, count: int) -> torch.Tensor:
    """p-values of streams, each against a calibration set of its own: conditional on it they are not uniform."""
    rng = np.random.default_rng(seed)
    sets = np.sort(rng.random((streams, count)), 1)
    scores = rng.random((calls, streams))
    ranks = np.stack([np.searchsorted(s, column) for s, column in zip(sets, scores.T)], 1)
    return torch.from_numpy((ranks + 1) / (count + 1))


def test_usual_streams_alarm_at_most_as_often_as_set_given_their_calibration_draws():
    """300 sets of 300 draws and 2000 calls each: at most 5 % alarm, though each set is wrong in its own way."""
    p = uniform(2000, 300, 3, 300)
    state = MartingaleWatch.start(300, alarm=0.05, streams=(300,)).after(p)
    assert state.calls == 2000
    assert state.alarmed.double().mean() <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.parametrize("quiet", [0, 1500])
def test_a_shift_is_seen_soon_also_after_a_quiet_past(quiet):
    rng = np.random.default_rng(0)
    past = torch.from_numpy(rng.integers(1, 2002, (quiet, 50)) / 2001)
    state = MartingaleWatch.start(2000, alarm=0.001, streams=(50,)).after(past)
    assert not state.alarmed.any()
    strange = torch.from_numpy(np.clip(rng.beta(0.3, 1, (50, 50)), 1 / 2001, 1))
    assert state.after(strange).alarmed.double().mean() > 0.9


def test_a_state_is_a_value_and_streams_side_by_side_are_streams_alone():
    p = torch.from_numpy(np.random.default_rng(2).beta(0.5, 1, (40, 3)))
    together, cusum = MartingaleWatch.start(1000, streams=(3,)), CusumWatch.start(1000, 100, streams=(3,))
    before = together.wealth.clone()
    after, alarms = together.after(p), cusum.after(p)
    assert torch.equal(together.wealth, before)
    assert torch.equal(together.after(p).largest, after.largest)
    for i in range(3):
        alone, single = MartingaleWatch.start(1000), CusumWatch.start(1000, 100)
        for value in p[:, i].tolist():
            alone, single = alone.update(value), single.update(torch.tensor([value]))
        assert bool(alone.alarmed) == bool(after.alarmed[i])
        assert alone.largest == after.largest[i]
        assert single.alarms == alarms.alarms[i]


def test_the_alarm_of_a_martingale_is_for_good_and_cusum_begins_anew():
    strange, usual = torch.full((20,), 1 / 2001), torch.full((200,), 0.9)
    state = MartingaleWatch.start(2000, alarm=0.01).after(strange)
    assert state.alarmed
    assert state.after(usual).alarmed
    cusum = CusumWatch.start(2000, 1000).after(strange)
    assert cusum.alarms >= 5
    assert not cusum.after(usual).alarmed
    assert cusum.after(usual).alarms == cusum.alarms


def test_larger_p_values_never_win_more():
    p = torch.from_numpy(np.random.default_rng(4).beta(0.4, 1, (60, 20)))
    start = MartingaleWatch.start(1000, streams=(20,))
    assert (start.after((2 * p).clamp_max(1)).largest <= start.after(p).largest).all()


@pytest.mark.parametrize("between", [50, 400])
def test_cusum_s_false_alarms_are_as_far_apart_as_is_asked(between):
    """200 streams against calibration sets of their own; alarms apart by `between` in each but for those 5 %."""
    p = uniform(3000, 200, 5, 1000)
    state = CusumWatch.start(1000, between, streams=(200,)).after(p)
    apart = 3000 * 200 / int(state.alarms.sum())
    assert between < apart < 10 * between


def test_cusum_s_threshold_is_the_run_length_by_simulation():
    """The worst law within the band, simulated; sums have atoms, at one of which the mean time jumps past 100."""
    count, between = 500, 100
    bounds = torch.cat([band(count)[1], torch.ones(1, dtype=torch.float64)]).clamp_max(1)
    draws = torch.rand(6000, 100, generator=generator(8), dtype=torch.float64)
    p = bounds[torch.searchsorted(bounds, draws).clamp_max(len(bounds) - 1)]
    threshold, sums, alarms = cusum_threshold(count, between), torch.zeros(100, dtype=torch.float64), 0
    for call in p:
        sums = (sums + np.log(0.25) - 0.75 * call.log()).clamp_min(0)
        alarms += int((sums >= threshold).sum())
        sums = torch.where(sums >= threshold, 0.0, sums)
    assert 0.97 * between <= 6000 * 100 / alarms <= 1.4 * between


def test_the_state_s_memory_and_reach_do_not_grow(guard):
    state = guard.watch().after(torch.full((3000,), 1e-3))
    assert torch.isfinite(state.wealth).all()
    assert torch.isfinite(state.largest)
    assert state.wealth.shape == guard.watch().wealth.shape


# Bad input


def test_too_few_draws_say_how_many_are_needed():
    with pytest.raises(ValueError, match=r"alarm 0.001 takes at least 14999 calibration draws.*there are 2000"):
        monitor(OAMP, PROBLEM, alarm=0.001, draws=2000)
    with pytest.raises(ValueError, match="pass 499, or a larger alarm"):
        monitor(OAMP, PROBLEM.sample(100, generator()), alarm=0.05)
    assert bearable(2000) == 0.01
    assert bearable(50) is None
    with pytest.raises(ValueError, match="on which no bet wins"):
        MartingaleWatch.start(3)
    with pytest.raises(ValueError, match="calibrate on at least"):
        CusumWatch.start(20, 1000)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: m.p_values(Observation(torch.ones(2, 40), PROBLEM.A)), "have no noise variance"),
        (lambda m: m.p_values(Observation(torch.ones(2, 40), PROBLEM.A, torch.tensor(1.0)), score="energi"), "energy"),
        (lambda m: m.watch("cusun"), "cusum"),
        (lambda m: m.watch(alarm=1.5), "alarm is 1.5"),
        (lambda m: m.watch("cusum", between=0.5), "between is 0.5"),
        (lambda m: m.watch().update(torch.ones(3)), "p is \\(3,\\)"),
        (lambda m: m.watch().update(float("nan")), "not between 0 and 1"),
        (lambda m: band(500, 0.9999), "no band of more than 0.999"),
        (lambda m: share_in_windows(torch.ones(5), 0.05, 6), "the window is 6 calls and the stream has 5"),
        (lambda m: monitor(OAMP, PROBLEM, alarm=0), "alarm is 0"),
        (lambda m: monitor(OAMP, PROBLEM, alarm=0.05, draws=600, scores=("spread",)), "'spread' needs what is not"),
        (lambda m: monitor(OAMP, PROBLEM, alarm=0.05, draws=600, scores=("reziduals",)), "residual"),
        (lambda m: monitor(OAMP, PROBLEM, alarm=0.05, draws=600, scores=()), "scores is empty"),
        (lambda m: monitor(OAMP, PROBLEM.sample(600, generator()), alarm=0.05, draws=600), "leave it out"),
        (lambda m: m.around(ff.iterate(ff.algorithms.OAMP(PROBLEM.prior), 2)), "for another estimator"),
        (lambda m: m.around(OAMP, PROBLEM.shifted(seed=3).A), "calibrated for the operator"),
    ],
)
def test_bad_input_is_refused_with_what_to_pass(call, match, guard):
    with pytest.raises(ValueError, match=match):
        call(guard)


# Parts


def test_the_distance_is_mahalanobis_and_many_numbers_are_two_sided():
    values = torch.randn(4000, 3, generator=generator(1), dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1])
    learned = learn_distance(values)
    assert distance(torch.tensor([[0.0, 30.0, 0.0]], dtype=torch.float64), learned).item() == pytest.approx(3, rel=0.1)
    many = torch.randn(4000, 40, generator=generator(2), dtype=torch.float64)
    learned = learn_distance(many)
    near, far = (distance(factor * many[:50], learned).mean() for factor in (0.5, 2.0))
    assert min(near, far) > 3 * distance(many[:50], learned).mean()
    short = learn_distance(many[:150])  # fewer than five draws a number: components and the energy of the rest
    assert short["components"].shape == (40, 15)
    assert distance(2 * many[:50], short).median() > distance(many[200:1200], short).quantile(0.9)


def test_surprise_rises_without_steps_far_beyond_what_was_seen():
    scores = torch.randn(1000, generator=generator(3), dtype=torch.float64).abs()
    learned = learn_surprise(scores)
    at = torch.linspace(0.05, 50, 4000, dtype=torch.float64)
    said = surprise(at, learned)
    assert (said.diff() >= 0).all()
    assert (said[at > 2].diff() > 0).all()
    fresh = torch.randn(20_000, generator=generator(4), dtype=torch.float64).abs()
    assert (surprise(fresh, learned) >= -np.log(0.1)).double().mean().item() == pytest.approx(0.1, abs=0.03)


def test_every_score_says_what_it_sees():
    assert all(len(score.sees) > 20 for score in SCORES.values())


# Peers


def test_the_martingale_is_as_quick_as_the_simple_mixture_and_survives_a_quiet_past():
    peers = pytest.importorskip("online_cp")
    rng = np.random.default_rng(1)

    def delays(quiet: int) -> tuple[float, float]:
        past, strange = rng.uniform(1e-3, 1, quiet), np.clip(rng.beta(0.2, 1, 300), 1 / 2001, 1)
        ours = MartingaleWatch.start(2000, alarm=0.01).after(torch.from_numpy(past))
        peer = peers.martingale.SimpleMixtureMartingale()
        for p in past:
            peer.update(float(p))
        called: dict[str, float] = {}
        for call, p in enumerate(strange, 1):
            ours = ours.update(float(p))
            peer.update(float(p))
            if ours.alarmed:
                called.setdefault("ours", call)
            if peer.M >= 100:
                called.setdefault("peer", call)
        return called.get("ours", 300), called.get("peer", 300)

    fresh = np.mean([delays(0) for _ in range(4)], 0)
    late = np.mean([delays(2000) for _ in range(2)], 0)
    assert fresh[0] <= fresh[1] + 8  # the price of p-values that hold given the draws
    assert late[0] < late[1] / 2


def test_cusum_is_as_quick_as_page_hinkley_at_the_same_rate_of_false_alarms():
    drift = pytest.importorskip("river.drift")
    rng = np.random.default_rng(2)
    usual, strange = rng.integers(1, 2002, 20_000) / 2001, np.clip(rng.beta(0.2, 1, (40, 60)), 1 / 2001, 1)
    threshold = 0.0
    for candidate in (6.0, 10.0, 16.0, 25.0, 40.0):
        peer = drift.PageHinkley(min_instances=1, delta=0.5, threshold=candidate, alpha=1.0, mode="up")
        alarms = 0
        for p in usual:
            peer.update(-np.log(p))
            alarms += peer.drift_detected
        threshold = candidate
        if alarms <= 20:
            break
    ours, theirs = [], []
    for stream in strange:
        state = CusumWatch.start(2000, 1000)
        peer = drift.PageHinkley(min_instances=1, delta=0.5, threshold=threshold, alpha=1.0, mode="up")
        for p in usual[:200]:
            peer.update(-np.log(p))
        mine = his = 60
        for call, p in enumerate(stream, 1):
            state = state.update(float(p))
            peer.update(-np.log(p))
            mine = min(mine, call) if state.alarmed else mine
            his = min(his, call) if peer.drift_detected else his
        ours.append(mine)
        theirs.append(his)
    assert np.mean(ours) <= np.mean(theirs) + 1


def test_what_to_take_instead_is_what_there_is():
    tone = ff.problems.Tone()
    learned = ff.unfold(ff.algorithms.ISTA(), PROBLEM, 2, {"step": "per-layer"})
    for problem, estimator, instead in (
        (PROBLEM, learned, "strength 0 or a classical estimator"),
        (PROBLEM, OAMP, "a classical estimator"),
        (tone, lambda obs: Estimate(obs.y.real[..., :1]), "an estimate that nothing was trained for"),
    ):
        _, obs = problem.sample(10, generator(4))
        watching = monitor(estimator, problem, alarm=0.05, draws=1000, scores=("energy",))
        (sentence,) = watching.remarks(Observation(100 * obs.y, obs.A, obs.noise_var))
        assert f"take {instead}" in sentence
