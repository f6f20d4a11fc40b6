"""A guarded estimator keeps its promises, whatever its network and the world do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fanfold as ff
from fanfold.guard import NoiseSplit, Trusting, guarded
from fanfold.guard.fallback.trust import Trust
from fanfold.observation import Estimate, Observation

PROBLEM = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.1, snr_db=30.0)
SAFE = ff.iterate(ff.algorithms.FISTA(lam=0.02), 200)
NET = ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 12)


class Drifting:
    """A network that is right for some calls and wrong for others, by what it reads off y: its scale."""

    def __init__(self, net, wrong):
        self.net, self.wrong = net, wrong

    def __call__(self, obs):
        x = self.net(obs).x
        return Estimate(torch.where(self.wrong(obs.y)[:, None], 30 * x + 5, x))


def drawn(n, seed=1, problem=PROBLEM):
    return problem.sample(n, torch.Generator().manual_seed(seed))


def guard_of(**settings):
    return guarded(NET, SAFE, PROBLEM, **settings)


def error(x_hat, x):
    return (x_hat - x).abs().square().sum().item()


def best_choice(u, changes):
    """The least sum of counted differences of any choice between network (u) and baseline (0) with so many changes."""
    best = {(0, choice): 0.0 for choice in (0, 1)}
    for value in u:
        new = {}
        for (k, choice), total in best.items():
            for after in (0, 1):
                key = (k + (after != choice), after)
                if key[0] <= changes:
                    new[key] = min(new.get(key, math.inf), total + after * value)
        best = new
    return min(best.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=60),
    st.sampled_from([1.0, 16.0]),
    st.sampled_from([1e-3, 0.1]),
)
def test_regret_is_within_its_bound_for_any_differences(differences, rate, share):
    rule = Trusting(rate=rate, share=share)
    trust, lost, counted = rule.start(1.0), 0.0, []
    for d in differences:
        u = rule.counted(trust, d)
        trust = rule.after(trust, d)
        counted.append(u)
        lost += trust.network * u
    for changes in (0, 1, 3):
        if changes < len(counted):
            assert lost <= best_choice(counted, changes) + rule.regret(len(counted), changes) + 1e-9


def test_an_adversary_that_turns_at_the_worst_moment_gains_no_more_than_the_bound():
    """It makes the path that has the larger weight err, always."""
    rule = Trusting()
    trust, lost, counted = rule.start(1.0), 0.0, []
    for _ in range(2000):
        before = (1 - rule.share) * trust.network + rule.share / 2
        d = 4 * trust.scale if before > 0.5 else -4 * trust.scale
        counted.append(rule.counted(trust, d))
        trust = rule.after(trust, d)
        lost += trust.network * counted[-1]
    for changes in (0, 1, 50):
        assert lost <= best_choice(counted, changes) + rule.regret(2000, changes)


@pytest.mark.parametrize("law", ["symmetric", "skewed", "better"])
def test_a_network_that_is_never_worse_in_the_mean_seldom_raises_the_alarm_ever(law):
    alarm, paths, calls, rng = 0.05, 500, 200, np.random.default_rng(0)
    d = {
        "symmetric": rng.standard_t(2, (paths, calls)).clip(-4, 4),
        "skewed": np.where(rng.random((paths, calls)) < 0.2, 4.0, -1.0),  # mean zero
        "better": rng.normal(-0.1, 1.0, (paths, calls)),
    }[law]
    rule = Trusting(memory=1 - 1e-9)  # the size stays, so that what counts keeps its mean
    raised = 0
    for path in d:
        trust = rule.start(1.0)
        for value in path:
            trust = rule.after(trust, value)
        raised += trust.highest >= 1 / alarm
    assert raised / paths <= alarm + 3 * (alarm * (1 - alarm) / paths) ** 0.5  # Ville, three deviations of the count


@pytest.mark.parametrize("quiet", [0, 1000])
def test_the_alarm_comes_soon_after_the_network_becomes_worse_however_long_it_was_good(quiet):
    rule, rng = Trusting(), np.random.default_rng(1)
    trust = rule.start(1.0)
    for value in rng.normal(-1.0, 0.5, quiet):
        trust = rule.after(trust, value)
    assert trust.highest < 2
    delay = 0
    while trust.highest < 1000:
        trust, delay = rule.after(trust, rng.normal(2.0, 0.5)), delay + 1
        assert delay < 130  # log(1000 · 3 · 1000²) over log(1 + .9 u), u = 2 mean sizes of then 2, of 4


def test_noisy_differences_move_trust_slowly():
    rng = np.random.default_rng(2)
    plain, noisy = Trusting.of(rng.normal(-1, 0.1, 500)), Trusting.of(rng.normal(-0.1, 1.0, 500))
    assert plain.rate == Trusting.rate
    assert 0.1 < noisy.rate < 2  # of about 4 · 2 · .1 · .8
    assert Trusting.of([0.0, 0.0, 0.0], share=0.1) == Trusting(rate=0.1, share=0.1)
    trust, error = noisy.start(0.8), 0.0
    for d in rng.normal(-0.1, 1.0, 2000):
        trust = noisy.after(trust, d)
        error += 1 - trust.network
    assert error / 2000 < 0.1  # the better path has nearly all the weight, though single differences say .1 deviations


def test_trust_is_finite_after_anything_and_nan_counts_against_the_network():
    rule = Trusting()
    trust = rule.start(0.0)
    for d in (0.0, 1e308, -1e308, math.inf, -math.inf, math.nan, 1e-320):
        trust = rule.after(trust, d)
        assert all(math.isfinite(value) for value in (trust.network, trust.scale, *trust.evidence))
    assert rule.after(trust, math.nan).network < trust.network


def test_differences_are_those_of_the_losses_without_bias():
    x, obs = drawn(4000)
    split = NoiseSplit()
    halves = split.halves(obs, range(4000))
    network, beside = NET(halves.obs), SAFE(halves.obs)
    d = split.differences(halves, network, beside)
    A = PROBLEM.A
    true = (A @ (network.x - x)).square().sum(-1).double() - (A @ (beside.x - x)).square().sum(-1).double()
    gap = d - true
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5  # four standard errors
    assert true.mean() < 0


def test_complex_halves_have_independent_noise_of_the_promised_variances():
    y = torch.zeros(2000, 8, dtype=torch.complex64)
    halves = NoiseSplit(fraction=0.5).halves(Observation(y, None, torch.tensor(2.0)), range(2000))
    a, b = halves.obs.y, halves.judge  # the added part alone: 1/4 and 4 times the noise, and fully opposed
    assert abs(a.abs().square().mean() - 0.5) < 4 * 0.5 / 16000**0.5
    assert torch.allclose(b, -4 * a, atol=1e-5)
    assert torch.allclose(halves.obs.noise_var, torch.tensor(2.5))


@pytest.mark.parametrize("wild", ["huge", "nan", "opposite"])
def test_no_call_is_further_from_the_baseline_than_the_cap(wild):
    guard = guard_of(judge=None)
    wrong = {"huge": 1e20, "nan": math.nan, "opposite": -1.0}[wild]
    guard.estimator = lambda obs: Estimate(wrong * NET(obs).x)
    x, obs = drawn(200)
    baseline = SAFE(obs).x
    apart = (guard(obs).x - baseline).norm(dim=-1)
    assert (apart <= guard.limits.radius * (1 + 1e-5)).all()
    assert ((guard(obs).x - x).norm(dim=-1) <= (baseline - x).norm(dim=-1) + guard.limits.radius * (1 + 1e-5)).all()
    if wild == "nan":
        assert torch.equal(guard(obs).x, baseline)
        assert guard.calls.unfit == guard.calls.all


def claiming(estimator, var):
    """An estimator with this variance beside each entry."""
    return lambda obs: Estimate(x := estimator(obs).x, torch.full_like(x, var))


@pytest.mark.parametrize("claim", [math.nan, -1.0, 0.0])
def test_a_baseline_whose_claim_is_no_variance_leaves_no_room(claim):
    guard = guarded(NET, claiming(SAFE, 1.0), PROBLEM, judge=None)
    guard.baseline, guard.estimator = claiming(SAFE, claim), lambda obs: Estimate(1e6 + NET(obs).x)
    _, obs = drawn(20)
    assert torch.equal(guard(obs).x, SAFE(obs).x)


def test_a_difference_that_the_precision_cannot_hold_is_answered_by_the_baseline():
    guard = guard_of(judge=None)
    guard.baseline = lambda obs: Estimate(SAFE(obs).x - 1e38)
    guard.estimator = lambda obs: Estimate(torch.full_like(SAFE(obs).x, 3e38))
    _, obs = drawn(5)
    assert torch.equal(guard(obs).x, guard.baseline(obs).x)


def test_a_network_whose_variance_is_no_number_is_not_asked():
    guard = guarded(claiming(NET, 1.0), claiming(SAFE, 1.0), PROBLEM)
    guard.estimator = claiming(NET, math.nan)
    _, obs = drawn(5)
    got = guard(obs)
    assert torch.equal(got.x, SAFE(obs).x)
    assert torch.equal(got.var, torch.ones_like(got.x))
    assert guard.calls.unfit == 5


@pytest.mark.parametrize("wild", ["network", "baseline"])
def test_losses_beyond_single_precision_count_against_whoever_makes_them(wild):
    guard = guard_of()
    setattr(guard, {"network": "estimator"}.get(wild, wild), lambda obs: Estimate(1e25 * SAFE(obs).x))
    guard(drawn(20)[1])
    assert guard.trust.network < 0.01 if wild == "network" else guard.trust.network > 0.99


def test_calls_that_are_none_do_not_keep_losses_from_being_compared():
    """Every fourth slot is silent, and one in four calls is to be compared."""
    _, obs = drawn(32)
    y = obs.y.clone()
    y[::4] = 0.0
    guard = guard_of(every=4)
    guard(Observation(y, obs.A, obs.noise_var))
    assert guard.calls.judged == 6  # of 24


def test_the_reach_is_that_of_conditions_which_a_call_shares():
    """Four SNRs a call: calibrated on one call, the cap would hold ten times as many as it says."""
    varied = ff.problems.Varied(PROBLEM, {"snr_db": (10.0, 40.0)}, groups=4)
    guard = guarded(NET, SAFE, varied, reach=0.98, judge=None)
    calls = [drawn(4, seed, varied)[1] for seed in range(300)]
    guard(Observation(torch.cat([o.y for o in calls]), varied.A, torch.cat([o.noise_var for o in calls])))
    # rates given 1000 draws and of 1200 calls each have a deviation of .0045 or less; three of both
    assert guard.calls.capped / guard.calls.all == pytest.approx(0.02, abs=0.018)


def test_an_operator_for_each_sample_and_a_monitor_beside_it():
    detection = ff.problems.MIMODetection(users=3, antennas=6)
    net = ff.iterate(ff.algorithms.OAMP(), 3)
    half = lambda obs: Estimate(0.5 * net(obs).x)  # noqa: E731
    guard = guarded(net, half, detection, reach=0.99, monitor=ff.guard.monitor(net, detection, alarm=0.05, draws=600))
    x, obs = drawn(200, problem=detection)
    assert guard(obs).x.shape == x.shape
    assert "The monitor raises it too" in guard.promise


def test_measurements_of_several_axes_are_samples_of_as_many():
    box, spread = ff.problems.Box((0.0,), (1.0,)), torch.ones(3, 5)
    sequences = ff.problems.BatchSimulator(box, lambda x, generator: x[:, :, None] * spread, kind="sequence")
    net = lambda obs: Estimate(obs.y.mean((-2, -1))[..., None])  # noqa: E731
    guard = guarded(net, lambda obs: Estimate(0.5 * net(obs).x), sequences, reach=0.99, judge=None)
    x, obs = drawn(6, problem=sequences)
    assert torch.allclose(guard(obs).x, x, atol=1e-6)
    assert torch.allclose(guard(Observation(obs.y.reshape(2, 3, 3, 5))).x, x.reshape(2, 3, 1), atol=1e-6)


def test_calls_one_at_a_time_give_what_a_batch_gives():
    _, obs = drawn(24)
    whole, single = guard_of(every=3), guard_of(every=3)
    together = whole(obs).x
    apart = torch.cat([single(obs[i : i + 1]).x for i in range(24)])
    assert torch.allclose(together, apart, atol=1e-5)  # sums of other order
    assert whole.calls == single.calls
    assert whole.trust.judged == 8
    assert whole.trust.network == pytest.approx(single.trust.network, rel=1e-3)


def test_at_home_it_is_the_network():
    x, obs = drawn(1000)
    guard = guard_of()
    assert error(guard(obs).x, x) <= 1.02 * error(NET(obs).x, x)
    assert guard.condition == "active"


def test_a_network_that_collapses_costs_no_more_than_the_baseline():
    x, obs = drawn(1000)
    guard = guard_of()
    guard.estimator = Drifting(NET, lambda y: torch.full(y.shape[:1], True))
    assert error(guard(obs).x, x) <= 1.05 * error(SAFE(obs).x, x)
    assert (guard.condition, guard.alarmed) == ("fallback", True)


CHANNELS = "kronecker:array=1x4,subcarriers=12,space={},frequency={}"


def test_a_wiener_filter_of_another_place_falls_back_to_least_squares_at_once():
    home, away = (
        ff.problems.OFDMChannel(CHANNELS.format(*correlation), "comb-2", snr_db=20.0)
        for correlation in ((0.99, 0.99), (0.1, 0.998))
    )
    net, safe = ff.estimators.ofdm.Wiener.of(home), ff.estimators.ofdm.Interpolation.of(home)
    guard = guarded(net, safe, home)
    x, obs = drawn(500, problem=home)
    assert error(guard(obs).x, x) <= 1.02 * error(net(obs).x, x)
    guard.reset()
    x, obs = drawn(500, problem=away)
    assert error(net(obs).x, x) > 2 * error(safe(obs).x, x)
    assert error(guard(obs).x, x) <= 1.05 * error(safe(obs).x, x)
    assert guard.condition == "fallback"
    quieter = home.shifted(snr_db=0.0)  # where least squares claims a larger deviation, and the ball grows with it
    guard.reset()
    x, obs = drawn(500, problem=quieter)
    assert error(guard(obs).x, x) <= 1.02 * error(net(obs).x, x)


@pytest.mark.parametrize("period", [2, 25, 250])
def test_alternating_collapses_cost_little_against_the_better_of_both(period):
    x, obs = drawn(1000)
    bad = torch.arange(1000) % (2 * period) >= period
    scale = torch.where(bad, 1e3, 1.0)[:, None]  # which the network reads, and both paths answer
    seen = Observation(obs.y * scale, obs.A, obs.noise_var * scale.square())
    net = Drifting(lambda o: Estimate(NET(o).x), lambda y: y.norm(dim=-1) > 50)
    fine = ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 4)
    safe = lambda o: Estimate(fine(o).x)  # noqa: E731
    guard = guarded(net, safe, PROBLEM, samples=300, reach=0.99)
    x = x * scale
    best = torch.where(bad[:, None], safe(seen).x, net(seen).x)
    weight = 1 / scale.square()  # every call counts alike
    lost, least = ((guard(seen).x - x).square() * weight).sum(), ((best - x).square() * weight).sum()
    assert 10 * math.log10(lost / least) <= 0.5


def test_measurements_that_are_none_are_answered_by_the_baseline_and_change_no_other():
    _, obs = drawn(12)
    y = obs.y.clone()
    y[2, 5], y[3, 7], y[4] = math.nan, math.inf, 0.0
    y[5] = y[5].clamp(-0.05, 0.05)  # saturated
    guard = guard_of()
    got = guard(Observation.unchecked(y, obs.A, obs.noise_var)).x
    mended = torch.where(torch.isfinite(y), y, 0.0)
    assert torch.equal(got[2:6], SAFE(Observation(mended, obs.A, obs.noise_var)).x[2:6])
    assert guard.calls.unfit == 4
    kept = [i for i in range(12) if i not in (2, 3, 4, 5)]
    assert torch.isfinite(got).all()
    assert guard.calls.judged == len(kept)


def test_the_latch_keeps_the_baseline_until_reset():
    _, obs = drawn(200)
    guard = guard_of(latch=True)
    guard.estimator = Drifting(NET, lambda y: torch.full(y.shape[:1], True))
    guard(obs)
    assert guard.alarmed
    guard.estimator = NET
    assert torch.equal(guard(obs).x, SAFE(obs).x)
    assert guard.condition == "fallback"
    guard.reset()
    guard(obs)
    assert guard.condition == "active"


def test_without_losses_the_monitor_takes_the_network_away_once_it_alarms():
    watcher = ff.guard.monitor(NET, PROBLEM, alarm=0.01, draws=1700)
    guard = guarded(NET, SAFE, PROBLEM, judge=None, monitor=watcher)
    _, obs = drawn(150)
    assert torch.allclose(guard(obs).x, NET(obs).x)
    assert guard.condition == "active"
    _, loud = drawn(150, problem=PROBLEM.shifted(snr_db=10.0))
    loud = Observation(loud.y, loud.A, obs.noise_var)  # which the receiver does not know
    got = guard(loud).x
    assert guard.condition == "fallback"
    assert torch.equal(got[-1], SAFE(loud).x[-1])
    assert guard.calls.in_fallback > 100  # from where it alarmed on
    with pytest.raises(ValueError, match="calibrated for another estimator"):
        guarded(SAFE, SAFE, PROBLEM, monitor=watcher)


def test_what_does_not_fit_is_refused_with_the_fix():
    with pytest.raises(ValueError, match="every is 0; pass 1 to"):
        guard_of(every=0)
    with pytest.raises(ValueError, match=r"alarm is 1\.0; pass the chance"):
        guard_of(alarm=1)
    with pytest.raises(ValueError, match="at least 999 calibration draws and there are 300"):
        guarded(NET, SAFE, PROBLEM, samples=300)
    with pytest.raises(ValueError, match=r"the estimator says .* where the baseline says"):
        guarded(lambda obs: Estimate(obs.y), SAFE, PROBLEM, samples=300, reach=0.99)
    with pytest.raises(ValueError, match="claims a variance of zero where the estimator says something else"):
        guarded(NET, claiming(SAFE, 0.0), PROBLEM)
    _, obs = drawn(3)
    with pytest.raises(ValueError, match="splitting the noise needs its variance"):
        guard_of()(Observation(obs.y, obs.A))
    with pytest.raises(ValueError, match=r"share is 1\.0; pass a number between 0 and 1"):
        Trusting(share=1.0)
    with pytest.raises(ValueError, match="scale is nan"):
        Trusting().start(math.nan)


def test_trust_is_a_value_of_two_weights_and_a_few_numbers():
    assert Trust._fields == ("network", "scale", "evidence", "highest", "judged", "favour", "since")
