"""At home a guard is its network, beside weak baselines and where errors have tails; a collapse is left as before."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

import fanfold as ff
from fanfold.guard import Hysteresis, NoiseSplit, Trusting, guarded
from fanfold.guard.fallback.at_home import CALLS, STREAMS, Home, _weights, suited
from fanfold.guard.fallback.limits import GuardLimits
from fanfold.observation import Estimate, Observation

SMALL = ff.problems.CompressedSensing(n=30, m=20, sparsity=0.1, snr_db=30.0)
MIDDLE = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.1, snr_db=30.0)
WIDE = ff.problems.CompressedSensing(n=100, m=60, sparsity=0.1, snr_db=30.0)
COMPLEX = ff.problems.CompressedSensing(n=40, m=30, sparsity=0.1, snr_db=35.0, seed=6, dtype="complex64")


def drawn(problem, n, seed):
    return problem.sample(n, torch.Generator().manual_seed(seed))


@cache
def unfolded(problem):
    """A network whose errors have long tails: ISTA, trained for two seconds."""
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), problem, 8, {"step": "per-layer", "threshold": "per-layer"})
    return ff.fit(net, problem, steps=300, batch=64, lr=1e-2, seed=0, threads=1).requires_grad_(False)


def oamp(_):
    return ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 8)


def fista(lam, iterations):
    return ff.iterate(ff.algorithms.FISTA(lam=lam), iterations)


def energy(x):
    return x.abs().square().sum(-1).double()


def over_the_network(guard, problem, streams=4, seed=11):
    """Errors of the guarded over those of the network, of fresh streams of a thousand calls."""
    x, obs = drawn(problem, 1000 * streams, seed)
    of_guarded = 0.0
    for calls in range(0, len(x), 1000):
        guard.reset()
        of_guarded += energy(guard(obs[calls : calls + 1000]).x - x[calls : calls + 1000]).sum()
    return (of_guarded / energy(guard.estimator(obs).x - x).sum()).item()


WEAK = {
    "ISTA of 60 beside 8 iterations of FISTA": (MIDDLE, unfolded, fista(0.05, 8)),
    "ISTA of 60 beside 8 iterations of ISTA": (MIDDLE, unfolded, ff.iterate(ff.algorithms.ISTA(lam=0.05), 8)),
    "ISTA of 30 beside 4 iterations of FISTA": (SMALL, unfolded, fista(0.1, 4)),
    "OAMP of 60 beside FISTA that errs a thousand times as much": (MIDDLE, oamp, fista(0.05, 8)),
    "OAMP of 100 beside 60 iterations of FISTA": (WIDE, oamp, fista(0.01, 60)),
    "OAMP of 40 beside FISTA that fails once in a thousand calls": (COMPLEX, oamp, fista(0.02, 40)),
}


@pytest.mark.parametrize(
    ("kind", "given"), [*zip(WEAK, ["problem", "pairs"] * 3), ("ISTA of 60 beside 8 iterations of FISTA", "pairs")]
)
def test_at_home_a_guard_costs_a_fiftieth_at_most_beside_a_weak_baseline(kind, given):
    """Once in some ten thousand calls A hides how far a baseline is off, which no losses show; none is among these."""
    problem, make, safe = WEAK[kind]
    guard = guarded(make(problem), safe, problem if given == "problem" else drawn(problem, 1200, 5))
    assert over_the_network(guard, problem) <= 1.02


def misled():
    """A network that errs half as much as its baseline, and more at the measurements: A hides by how much."""
    return guarded(unfolded(MIDDLE), fista(0.02, 30), MIDDLE)


def test_losses_that_mislead_at_home_are_moved_to_what_errors_are():
    guard = misled()
    assert guard.levels.hidden < 0
    assert guard.at_home <= 1.02
    assert over_the_network(guard, MIDDLE, streams=2) <= 1.02
    guard.levels = guard.levels._replace(hidden=0.0)
    assert over_the_network(guard, MIDDLE, streams=1) > 1.3
    assert guarded(oamp(MIDDLE), fista(0.05, 8), MIDDLE).levels.hidden == 0


@pytest.mark.parametrize("changed", [{"sparsity": 0.02}, {"gain": 0.4}, {"gain": 0.6}], ids=str)
def test_what_is_moved_at_home_hides_no_network_that_errs_more_elsewhere(changed):
    """Undeclared worlds of weaker measurements, where the network errs 2.1 to 4 times as much as the baseline."""
    guard, gain = misled(), changed.get("gain", 1.0)
    x, obs = drawn(MIDDLE.shifted(sparsity=changed.get("sparsity", MIDDLE.sparsity)), 1000, 1)
    x, obs = gain * x, replace(obs, y=obs.y + (gain - 1) * (obs.A @ x))
    of_baseline = energy(guard.baseline(obs).x - x).sum()
    assert energy(guard.estimator(obs).x - x).sum() > 2 * of_baseline
    assert energy(guard(obs).x - x).sum() <= 1.05 * of_baseline


def test_a_program_moves_what_is_hidden_as_well():
    guard, (_, obs) = misled(), drawn(MIDDLE, 30, 3)
    obs = replace(obs, y=obs.y * torch.linspace(1.5, 0.2, 30)[:, None])
    step, held, said = guard.step(), guard.remembered, []
    for call in range(len(obs.y)):
        held = {name: value.reshape(1, -1) for name, value in held.items()}
        estimate, held = step(one := obs[call : call + 1], guard.chance(one, (call,)), held)
        said.append(estimate.x)
    torch.testing.assert_close(torch.cat(said), guard(obs).x, rtol=1e-4, atol=1e-5)
    assert 0 < guard.loudness < 0.5
    assert held["memory"][0, 12].item() == pytest.approx(guard.loudness)


def test_a_few_pairs_are_enough_to_find_the_rate():
    guard = guarded(unfolded(MIDDLE), fista(0.05, 8), drawn(MIDDLE, 200, 5), reach=0.99)
    assert 1.0 <= guard.trusting.rate < 8
    assert over_the_network(guard, MIDDLE) <= 1.02


def test_single_calls_are_why():
    """One in a hundred speaks against the network as much as a call can, and half of all differences do not show it."""
    net, safe = unfolded(MIDDLE), fista(0.05, 8)
    guard = guarded(net, safe, MIDDLE)
    quick = guarded(net, safe, MIDDLE, trusting=Trusting())
    assert over_the_network(quick, MIDDLE) > 1.2
    assert guard.trusting.rate < 8


@pytest.mark.parametrize("kind", [*WEAK][1:4])
def test_a_collapse_after_a_time_at_home_costs_half_a_decibel_of_a_thousand_calls_at_most(kind):
    problem, make, safe = WEAK[kind]
    guard, (x, obs) = guarded(make(problem), safe, problem), drawn(problem, 1200, 12)
    guard(obs[:200])
    net, guard.estimator = guard.estimator, lambda o: Estimate(30 * net(o).x + 5)
    there = slice(200, None)
    assert energy(guard(obs[there]).x - x[there]).sum() <= 1.122 * energy(safe(obs[there]).x - x[there]).sum()


def test_even_weights_at_the_start_are_left_where_the_first_calls_would_cost_too_much():
    guard = guarded(oamp(MIDDLE), fista(0.05, 8), MIDDLE)
    assert guard.trusting.first == guard.trust.network == guard.remembered["trust"][0] == 0.9
    assert guarded(unfolded(SMALL), fista(0.1, 4), SMALL).trusting.first == 0.5


@pytest.mark.parametrize(("first", "share"), [(None, (0.0, 0.05)), (0.5, (0.05, 1.0))])
def test_the_first_calls_cost_more_than_a_hundredth_in_one_of_twenty_streams_at_most(first, share):
    """Beside a baseline that errs 47 times as much in the mean, most of it in one call of twenty."""
    net, safe = oamp(MIDDLE), fista(0.01, 50)
    guard = guarded(net, safe, MIDDLE)
    assert guard.trusting.first == 0.9
    guard.trusting = replace(guard.trusting, first=first or guard.trusting.first)
    x, obs = drawn(MIDDLE, 100 * 10, 21)
    excess = -energy(net(obs).x - x)
    hundredth = -10 * excess.mean()  # of a stream of a thousand calls
    for calls in range(0, len(x), 10):
        guard.reset()
        excess[calls : calls + 10] += energy(guard(obs[calls : calls + 10]).x - x[calls : calls + 10])
    dear = (excess.view(-1, 10).sum(-1) > hundredth).double().mean()
    assert share[0] <= dear <= share[1]


def test_a_network_without_any_error_is_guarded_too():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    guard = guarded(lambda o: Estimate(o.y), lambda o: Estimate(0.5 * o.y), (x, Observation(x, None, 1e-9)), reach=0.9)
    assert guard(Observation(x, None, 1e-9)).x.shape == x.shape


def test_where_the_network_is_not_the_better_path_the_differences_alone_decide():
    net, safe = fista(0.05, 8), fista(0.01, 40)
    guard = guarded(net, safe, pairs := drawn(SMALL, 1000, 5))
    halves = NoiseSplit().halves(pairs[1], range(1000))
    differences = NoiseSplit().differences(halves, net(halves.obs), safe(halves.obs))
    assert guard.trusting == Trusting.of(differences.tolist())
    assert guard.at_home < 1


def test_without_a_truth_of_the_estimate_s_shape_the_differences_alone_decide():
    x, obs = drawn(MIDDLE, 300, 5)
    settings = {"reach": 0.99, "judge": NoiseSplit(noise="claimed")}
    guard = guarded(oamp(MIDDLE), fista(0.05, 8), (x[:, :3], obs), **settings)
    assert guard.trusting.rate == Trusting.rate
    assert guard.at_home is None
    assert "calibration draws" not in guard.promise
    assert guarded(oamp(MIDDLE), fista(0.05, 8), (x, obs), **settings).trusting.rate < Trusting.rate


@pytest.mark.parametrize("problem", [SMALL, MIDDLE])
def test_what_it_says_of_home_is_what_fresh_draws_show(problem):
    net, safe = (ff.iterate(ff.algorithms.ISTA(lam=lam), 10) for lam in (0.02, 0.2))
    guard = guarded(net, safe, problem, trusting=None)
    assert guard.at_home == pytest.approx(over_the_network(guard, problem, streams=2), abs=0.01)
    assert f"{guard.at_home:.2f} times that of the network" in guard.promise


@pytest.mark.parametrize("settings", [{}, {"every": 3, "hysteresis": Hysteresis(leave=0.4, back=0.7, stay=4)}])
def test_weights_of_streams_are_those_of_one_call_after_the_other(settings):
    limits = GuardLimits(1.0, 1.0, settings.get("every", 1), 1e-3, False, 1, settings.get("hysteresis"))
    u = torch.rand(3, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    rules = [Trusting(rate=rate, first=first) for rate, first in ((1.0, 0.5), (5.0, 0.9))]
    got = _weights(rules, u, limits)
    for rule, of_rule in zip(rules, got):
        for stream, weights in zip(u.tolist(), of_rule.tolist()):
            guard = ff.guard.Guarded(oamp(None), oamp(None), NoiseSplit(), None, rule, limits, 0.0)
            wanted = []
            for call, value in enumerate(stream):
                if call % limits.every == 0:
                    before = (1 - rule.share) * guard.trust.network + rule.share / 2
                    odds = before / (1 - before) * math.exp(-rule.rate * value)
                    guard.trust = guard.trust._replace(network=odds / (1 + odds))
                if limits.hysteresis is not None:
                    guard.standing = limits.hysteresis.after(guard.standing, guard.trust.network)
                wanted.append(guard._weight)
            assert weights == pytest.approx(wanted, abs=1e-9)


def test_errors_between_both_paths_are_those_of_the_mix():
    x, a, b = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight, keep = torch.rand(2, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nothing = torch.zeros(50)
    home = Home(energy(a - x), energy(b - x), energy(a - b), keep, nothing, nothing)
    mix = b + (weight * keep)[:, None] * (a - b)
    torch.testing.assert_close(home.errors(weight), energy(mix - x))


def test_a_call_that_these_draws_do_not_have_slows_the_rule():
    """Draws without a single loss: what they cannot show is put among them."""
    one = torch.ones(500, dtype=torch.float64)
    limits = GuardLimits(1.0, 1.0, 1, 1e-3, False)
    rates = []
    for worse in (1.1, 20.0):
        home = Home(one, worse * one, worse * one, one, -one, one)
        rule, costs = suited(Trusting(), home, 1.0, limits, None, 0.9, 0)
        assert costs <= 1.01
        rates.append(rule.rate)
    assert rates[0] == Trusting.rate
    assert 1 <= rates[1] < 8
    assert CALLS * STREAMS > 500


@pytest.mark.parametrize("right", ["network", "baseline"])
def test_the_cap_is_wider_where_a_call_s_own_losses_speak_for_the_network(right):
    """Whoever is wrong stands a hundred radii off: all but the first calls have the weight of one path."""
    guard, (_, obs) = guarded(oamp(MIDDLE), fista(0.02, 60), MIDDLE), drawn(MIDDLE, 50, 3)
    radius, path = guard.limits.radius, guard.baseline
    off = lambda o: Estimate(path(o).x + 100 * radius / MIDDLE.n**0.5)  # noqa: E731
    setattr(guard, "baseline" if right == "network" else "estimator", off)
    apart = (guard(obs).x - guard.baseline(obs).x).norm(dim=-1)
    bound = radius * (4 if right == "network" else 1)
    assert (apart <= bound * (1 + 1e-5)).all()
    if right == "network":
        assert apart[-1].item() == pytest.approx(bound, rel=0.01)
        assert f"at most the baseline's plus {bound:.3g}" in guard.promise
    else:
        assert apart[-1].item() < 0.01 * bound


def test_a_first_weight_has_its_part_in_the_regret_and_is_between_both():
    assert Trusting(first=0.9).regret(1000, 0) == pytest.approx(Trusting().regret(1000, 0) + math.log(5) / 16)
    with pytest.raises(ValueError, match=r"first is 1\.0; pass a number between 0 and 1"):
        Trusting(first=1.0)
