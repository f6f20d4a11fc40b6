"""A world that has changed is no reason to leave a network that is still the better path; one that errs is left."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.guard import Hysteresis, NoiseSplit, guarded
from fanfold.guard.fallback import NoiseLevels, Standing
from fanfold.guard.fallback.noise_levels import _read, least_norm
from fanfold.observation import Estimate, Observation

PROBLEM = ff.problems.CompressedSensing(n=100, m=60, sparsity=0.1, snr_db=30.0)
NET = ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 8)
SAFE = ff.iterate(ff.algorithms.FISTA(lam=0.01), 60)
CALLS = 400


def drawn(problem, n=CALLS, seed=1):
    return problem.sample(n, torch.Generator().manual_seed(seed))


CLAIMED = NoiseSplit(noise="claimed")


def error(x_hat, x):
    return (x_hat - x).square().sum().item()


@pytest.mark.parametrize("factor", [3.0, 5.0])
def test_in_more_noise_than_was_claimed_the_guard_stays_with_the_network_where_it_is_better(factor):
    x, obs = drawn(ff.guard.Noisier(PROBLEM, factor))
    network, baseline = error(NET(obs).x, x), error(SAFE(obs).x, x)
    assert network < 0.8 * baseline
    measured, claimed = guarded(NET, SAFE, PROBLEM), guarded(NET, SAFE, PROBLEM, judge=CLAIMED)
    assert error(measured(obs).x, x) <= 1.122 * network  # half a decibel
    assert error(claimed(obs).x, x) > 1.2 * network  # which follows y less, and seems to err


@pytest.mark.parametrize("factor", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["offset", "shrunk", "early", "linear"])
def test_networks_that_err_in_such_noise_cost_no_more_than_the_baseline(kind, factor):
    """None was home when the guard was made; each leaves much of y, and could take that for noise."""
    x, obs = drawn(ff.guard.Noisier(PROBLEM, factor))
    offset = 0.075 * torch.randn(PROBLEM.A.n, generator=torch.Generator().manual_seed(5))
    wrong = {
        "offset": lambda o: Estimate(NET(o).x + offset),
        "shrunk": lambda o: Estimate(0.65 * NET(o).x),
        "early": ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 1),
        "linear": lambda o: Estimate(0.65 * NET(o).x + 0.1 * (o.A.H @ o.y)),
    }[kind]
    baseline = error(SAFE(obs).x, x)
    assert error(wrong(obs).x, x) > 1.5 * baseline
    guard = guarded(NET, SAFE, PROBLEM)
    guard.estimator = wrong
    assert error(guard(obs).x, x) <= 1.05 * baseline


@pytest.mark.parametrize("factor", [2.0, 6.0])
def test_what_both_paths_leave_says_how_much_noise_there_is(factor):
    levels = guarded(NET, SAFE, PROBLEM).levels
    _, obs = drawn(ff.guard.Noisier(PROBLEM, factor), 200)
    split = NoiseSplit()
    left = torch.stack([split.residuals(obs, path(obs)) for path in (NET, SAFE)], -1)
    claimed = split.claimed(obs)
    ratios = levels.ratios(left, claimed).mean(0, keepdim=True)
    # means over 200 draws of 60 numbers at each end have a deviation of .013 each in the log; the rest is of lines
    assert levels.beyond(claimed[:1], ratios).item() == pytest.approx(2 * math.log(factor), abs=0.1)
    assert levels.beyond(claimed[:1], ratios * torch.tensor([30.0, 1.0])).item() == pytest.approx(
        2 * math.log(factor), abs=0.2
    )
    assert (
        levels.beyond(claimed[:1], ratios * torch.tensor([30.0, 0.01])).item() == 0.0
    )  # the baseline sees nothing unusual


def test_differences_are_moved_to_what_the_truth_says_of_noise_that_nobody_claimed():
    """Beside least squares, and where A hides nothing: the error at the measurements is that of x."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64)).Q
    A, var = ff.linops.Dense(rotation), torch.tensor(0.1, dtype=torch.float64)
    x, w = torch.randn(2, 10_000, 20, generator=generator, dtype=torch.float64)
    paths = [lambda o, c=c: Estimate(c * (o.A.H @ o.y)) for c in (0.5, 1.0)]
    split, e = NoiseSplit(), 1.5
    levels = NoiseLevels.of(split, (x, Observation(A @ x + var.sqrt() * w, A, var)), *paths)
    obs = Observation(A @ x + (var * (1 + e)).sqrt() * w, A, var)
    halves = split.halves(obs, range(10_000))
    d = split.differences(halves, *(path(halves.obs) for path in paths))
    level = torch.full((1,), math.log1p(e), dtype=torch.float64)
    follows = -2 * 20 * (0.5 - 1.0)  # what the noise beyond the claim hides of a difference, `2 (D_b - D_n)`
    moved = _read(level, levels.noise, levels.moved).item()
    assert moved == pytest.approx(-follows, rel=0.1)  # of 2000 draws of 20 numbers
    true = (paths[0](halves.obs).x - x).square().sum(-1) - (paths[1](halves.obs).x - x).square().sum(-1)
    assert (d + var * e * moved).mean().item() == pytest.approx(true.mean().item(), abs=0.1 * d.abs().mean().item())


def test_a_small_dense_signal_is_no_noise_and_both_are_told_apart_by_no_one():
    """Where A hides nothing, all that looks like noise may be signal, and does not speak for what removes it."""
    generator = torch.Generator().manual_seed(0)
    A, var = ff.linops.Dense(torch.eye(20, dtype=torch.float64)), torch.tensor(0.1, dtype=torch.float64)
    x, w = torch.randn(2, 500, 20, generator=generator, dtype=torch.float64)
    obs = Observation(x + var.sqrt() * w, A, var)
    half, whole = (lambda o, c=c: Estimate(c * o.y) for c in (0.9, 0.99))
    levels = NoiseLevels.of(NoiseSplit(), (x, obs), half, whole)
    assert levels.risk[0] < 0 < levels.risk[4]  # .9² .1 + .1² (1 + e) and .99² .1 + .01² (1 + e), e = 1.6 at the last
    louder = torch.tensor([curve[4] for curve in levels.left]).exp().expand(3, 2)
    assert torch.equal(levels.corrected(d := torch.ones(3).double(), torch.full((3,), 0.1), louder), d)


@pytest.mark.parametrize("kind", ["fat", "tall", "a dead sensor"])
def test_the_least_signal_that_looks_so_is_that_of_the_pseudoinverse(kind):
    generator = torch.Generator().manual_seed(0)
    m, n = (60, 20) if kind == "tall" else (20, 60)
    matrix = torch.randn(m, n, generator=generator, dtype=torch.complex128)
    if kind == "a dead sensor":
        matrix[3] = 0.0
    v = torch.randn(3, m, generator=generator, dtype=torch.complex128)
    got = least_norm(Observation(v, ff.linops.Dense(matrix)), v)
    # a condition of (√3 + 1) / (√3 - 1) = 3.7: 20 steps leave 2 (2.7 / 4.7)^20 of the error
    torch.testing.assert_close(got, v @ torch.linalg.pinv(matrix).mT, rtol=1e-4, atol=1e-5)


def test_levels_of_noise_know_no_units():
    """Single precision holds such signals, and not their squares."""
    x, obs = drawn(PROBLEM, 100)
    large = Observation(1e19 * obs.y, obs.A, 1e38 * obs.noise_var)
    paths = [lambda o, c=c: Estimate(c * (o.A.H @ o.y)) for c in (0.9, 0.5)]
    usual, levels = (NoiseLevels.of(NoiseSplit(), pairs, *paths) for pairs in ((x, obs), (1e19 * x, large)))
    # of numbers in single precision
    assert levels.risk == pytest.approx(usual.risk, rel=1e-4)
    assert levels.noise == pytest.approx(usual.noise, rel=1e-4)


@pytest.mark.parametrize("noise_var", [torch.tensor(0.1), torch.full((300, 1, 1), 0.1), torch.full((300, 4, 1), 0.1)])
def test_noise_is_measured_of_measurements_of_several_axes_too(noise_var):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, 5, generator=generator)
    obs = Observation(x + 0.1**0.5 * torch.randn(x.shape, generator=generator), None, noise_var)
    guard = guarded(lambda o: Estimate(o.y / 1.1), lambda o: Estimate(o.y / 2), (x, obs), reach=0.9)
    assert error(guard(obs).x, x) < 1.1 * error(obs.y / 1.1, x)
    assert guard(obs[0]).x.shape == (4, 5)


@pytest.mark.parametrize("world", ["noise", "a dense signal"])
def test_a_network_whose_own_errors_look_like_noise_is_not_believed(world):
    """Its errors are 1.1 and 1.5 times those of the baseline; noise measured by its residual alone gave 1.13."""
    small = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.1, snr_db=30.0)
    safe = ff.iterate(ff.algorithms.FISTA(lam=0.01), 50)
    x, obs = drawn(small)
    w = 99**0.5 * obs.noise_var.sqrt() * torch.randn(obs.y.shape, generator=torch.Generator().manual_seed(3))
    x = x if world == "noise" else x + least_norm(obs, w)
    obs = Observation(obs.y + w, obs.A, obs.noise_var)
    assert error(NET(obs).x, x) > 1.03 * error(safe(obs).x, x)
    assert error(guarded(NET, safe, small)(obs).x, x) <= 1.02 * error(safe(obs).x, x)


LEVELS = NoiseLevels(1.0, (0.0, 1.0), ((0.0, 1.0), (0.0, 1.0)), (-4.0, -4.0), (-1.0, -1.0))


def test_without_noise_beyond_the_claim_nothing_is_corrected():
    differences = torch.tensor([-3.0, 0.0, 5.0]).double()
    usual = torch.tensor(LEVELS.usual).expand(3, 2)
    assert torch.equal(LEVELS.corrected(differences, torch.ones(3), usual), differences)


def test_where_the_network_follows_more_noise_beyond_the_claim_speaks_for_the_baseline():
    more, ratios = LEVELS._replace(moved=(4.0, 4.0)), torch.full((1, 2), 2.0).double()
    assert more.corrected(torch.tensor([-1.0]).double(), torch.ones(1), ratios).item() == pytest.approx(3.0)
    worse = more._replace(risk=(1.0, 1.0))  # and no less where the network errs more
    assert worse.corrected(torch.tensor([-1.0]).double(), torch.ones(1), ratios).item() == pytest.approx(3.0)


def test_noise_speaks_for_no_network_that_errs_more_in_it():
    ratios = torch.full((1, 2), 2.0).double()
    assert LEVELS.corrected(torch.tensor([1.0]).double(), torch.ones(1), ratios).item() == pytest.approx(-3.0)
    worse = LEVELS._replace(risk=(1.0, 1.0))
    assert worse.corrected(torch.tensor([1.0]).double(), torch.ones(1), ratios).item() == 1.0


def test_an_alarm_over_a_harmless_shift_moves_no_weight_and_ends():
    watching = ff.guard.monitor(NET, PROBLEM, alarm=0.01, draws=1700)
    guard = guarded(NET, SAFE, PROBLEM, monitor=watching, latch=True)
    noisier = ff.guard.Noisier(PROBLEM, 2.0)
    guard(drawn(noisier, 20)[1])
    assert (guard.alarmed, guard.condition, guard.calls.alarms) == (True, "monitoring", 1)
    x, obs = drawn(noisier, seed=2)
    assert error(guard(obs).x, x) <= 1.122 * error(NET(obs).x, x)  # half a decibel
    assert (guard.alarmed, guard.condition, guard.calls.alarms) == (True, "active", 1)  # raised once, and over


def test_an_alarm_that_was_right_does_not_end_and_comes_again():
    guard = guarded(NET, SAFE, PROBLEM)
    guard.estimator = lambda obs: Estimate(3 * NET(obs).x)
    guard(drawn(PROBLEM, 200)[1])
    assert (guard.raised, guard.condition, guard.calls.alarms) == (True, "fallback", 1)
    guard.estimator = NET
    guard(drawn(PROBLEM, 400)[1])
    assert (guard.raised, guard.condition) == (False, "active")
    guard.estimator = lambda obs: Estimate(3 * NET(obs).x)
    guard(drawn(PROBLEM, 200)[1])
    assert (guard.raised, guard.calls.alarms) == (True, 2)


class Counting:
    """A layered network that counts its passes."""

    def __init__(self, net):
        self.net, self.passes = net, 0

    def __call__(self, obs):
        self.passes += 1
        return self.net(obs)

    def trajectory(self, obs):
        self.passes += 1
        return self.net.trajectory(obs)


def test_beside_a_monitor_a_layered_network_is_asked_once_a_call_and_once_for_its_losses():
    net = Counting(ff.unfold(ff.algorithms.OAMP(), PROBLEM, layers=4, learn={}))
    watching = ff.guard.monitor(net, PROBLEM, alarm=0.05, draws=600)
    guard = guarded(net, SAFE, PROBLEM, reach=0.99, samples=300, monitor=watching)
    _, obs = drawn(PROBLEM, 5)
    net.passes = 0
    got = guard(obs).x
    assert net.passes == 2
    beside = guarded(net, SAFE, PROBLEM, reach=0.99, samples=300)
    assert torch.allclose(got, beside(obs).x, atol=1e-6)


def stays(weights, rule):
    standing, fallen = Standing(), []
    for weight in weights:
        standing = rule.after(standing, weight)
        fallen.append(standing.fallen)
    return torch.tensor(fallen)


def test_a_switch_does_not_flap_whatever_weights_do_and_leaves_at_once():
    rule, calls = Hysteresis(leave=0.4, back=0.9, stay=20), 1000
    for weights in ([0.0, 1.0] * (calls // 2), torch.rand(calls, generator=torch.Generator().manual_seed(0)).tolist()):
        fallen = stays(weights, rule)
        changes = fallen.diff().nonzero()[:, 0]
        assert len(changes) <= 2 * calls / rule.stay + 2
        ends = changes[~fallen[changes + 1]]
        assert all(fallen[end - rule.stay + 1 : end + 1].all() for end in ends)  # each stay is whole
    assert stays([0.5, 0.4, 1.0], rule).tolist() == [False, True, True]
    assert not stays([0.41] * 50, rule).any()
    assert stays([0.1] + [0.89] * 100, rule).all()


def test_a_guard_with_hysteresis_changes_paths_seldom_where_one_without_does_often():
    """Both are the baseline with errors of one size, as if drawn: one is better at one call, one at the next."""
    first, second = torch.randn(2, 60, 100, generator=torch.Generator().manual_seed(0))
    coin = lambda obs: Estimate(SAFE(obs).x + 0.05 * torch.sin(1e3 * obs.y @ first))  # noqa: E731
    other = lambda obs: Estimate(SAFE(obs).x + 0.05 * torch.sin(1e3 * obs.y @ second))  # noqa: E731
    _, obs = drawn(PROBLEM)
    settings = {"trusting": ff.guard.Trusting(rate=16.0)}
    plain = guarded(coin, other, PROBLEM, **settings)
    steady = guarded(coin, other, PROBLEM, hysteresis=Hysteresis(stay=100), **settings)
    plain(obs)
    got = steady(obs).x
    assert 2 <= steady.calls.changes <= 2 * CALLS / 100 + 2
    assert plain.calls.changes > 2 * steady.calls.changes
    apart = (got - other(obs).x).norm(dim=-1)
    alone = apart < 1e-6 * got.norm(dim=-1)
    assert alone.sum() == steady.calls.in_fallback  # one path at a time, and the baseline to the bit
    assert "One path answers at a time" in steady.promise


def test_thresholds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"leave is 0\.9 and back is 0\.4; pass 0 <= leave < back <= 1"):
        Hysteresis(leave=0.9, back=0.4)
    with pytest.raises(ValueError, match="stay is 0; pass how many calls"):
        Hysteresis(stay=0)
    with pytest.raises(ValueError, match=r"memory is 1\.0; pass a number from 0 to below 1"):
        NoiseSplit(memory=1.0)
