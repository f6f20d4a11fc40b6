"""Learn then Test proves what is so, whatever losses are, and says when nothing can be proved."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.guard.learn_then_test import FIRST_DRAW, cells_p_values, clipped_error, holm
from fanfold.observation import Estimate

PROBLEM = ff.problems.LinearGaussian(n=3, m=6, snr_db=10.0)
GAINS = [shift for shift in ff.guard.shifts(PROBLEM) if shift.family == "gain" and "x0.3" not in shift.severity]


def half(obs):
    return Estimate(0.5 * PROBLEM.posterior(obs).x)


def zero(obs):
    return Estimate(torch.zeros_like(PROBLEM.posterior(obs).x))


@pytest.mark.parametrize("law", ["bernoulli", "rare", "beta"])
def test_a_setting_above_the_limit_is_seldom_called_proved_by_any_of_repeated_calibrations(law):
    """Twelve settings, of which all have just the limit in the second of two cells, the hardest case that there is."""
    limit, delta, repeats, draws = 0.1, 0.1, 600, 300
    generator = torch.Generator().manual_seed(0)
    shape = (12, 1, draws)
    wrong = 0
    for _ in range(repeats):
        u = torch.rand(shape, generator=generator, dtype=torch.float64)
        at_limit = {"bernoulli": (u < limit).double(), "rare": (u < 2 * limit) * 0.5, "beta": u.pow(9.0)}[law]
        losses = torch.cat([torch.zeros(shape, dtype=torch.float64), at_limit], 1)
        wrong += bool(holm(cells_p_values(losses, limit), delta).any())
    assert wrong / repeats <= delta + 3 * (delta * (1 - delta) / repeats) ** 0.5  # three deviations of the count


def test_a_p_value_is_no_smaller_than_uniform_at_the_limit_and_small_far_below_it():
    u = torch.rand(4000, 1, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = cells_p_values((u < 0.2).double(), 0.2)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).double().mean() <= level + 3 * (level / 4000) ** 0.5
    assert cells_p_values((u < 0.1).double(), 0.2).median() < 0.01


def test_holm_rejects_as_on_paper():
    p = torch.tensor([0.04, 0.001, 0.03, 0.012], dtype=torch.float64)
    assert holm(p, 0.05).tolist() == [False, True, False, True]  # .0125, .0167, then .025 stops it
    assert not holm(torch.ones(3, dtype=torch.float64), 0.05).any()


def test_families_are_wrong_no_more_often_than_promised_where_estimators_are_real():
    """Network and baseline are one, whose risk, of many draws, is the limit: whatever is proved is wrong."""
    x, obs = PROBLEM.sample(20000, torch.Generator().manual_seed(5))
    limit = clipped_error(half(obs).x, x).mean().item()
    tests = (ff.guard.learn_then_test(half, half, PROBLEM, limit, samples=200, delta=0.2, seed=s) for s in range(40))
    wrong = sum(bool(tested.proved) for tested in tests)
    assert wrong / 40 <= 0.2 + 3 * (0.2 * 0.8 / 40) ** 0.5


def test_what_is_well_below_the_limit_in_every_cell_is_proved_and_the_best_has_the_least_risk():
    tested = ff.guard.learn_then_test(PROBLEM.posterior, half, PROBLEM, 0.6, cells=GAINS, samples=400)
    assert tested.cells == ("none", *(shift.name for shift in GAINS))
    assert tested.best is not None
    assert tested.best.worst < 0.6
    assert sum(tested.best.risks) == min(sum(s.risks) for s in tested.proved)
    assert "no others" in tested.verdict


def test_where_the_network_fails_in_one_cell_the_settings_that_switch_are_what_is_proved():
    louder = [shift for shift in GAINS if "x3" in shift.severity]
    usual = louder[0].problem.sample(2000, torch.Generator().manual_seed(9))[1].y.norm(dim=-1).median()

    def wild(obs):
        loud = obs.y.norm(dim=-1, keepdim=True) > usual
        return Estimate(torch.where(loud, 100.0, 1.0) * PROBLEM.posterior(obs).x)

    tested = ff.guard.learn_then_test(wild, half, PROBLEM, 0.5, cells=louder, samples=400)
    assert all(setting.threshold < math.inf for setting in tested.proved)
    assert tested.best is not None
    switched = ff.guard.Switched(wild, half, tested.best.threshold)
    x, obs = louder[0].problem.sample(2000, torch.Generator().manual_seed(2))
    assert clipped_error(switched(obs).x, x).mean() <= 0.5


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_errors_and_distances_are_relative_at_any_scale(scale):
    x = scale * torch.ones(1, 3)
    assert clipped_error(1.5 * x, x).item() == pytest.approx(0.25, rel=1e-5)
    says = lambda factor: lambda obs: Estimate(factor * x)  # noqa: E731
    obs = ff.Observation(torch.ones(1, 2))
    for threshold, chosen in ((0.4, 1.0), (0.6, 1.5)):
        switched = ff.guard.Switched(says(1.5), says(1.0), threshold)
        assert torch.equal(switched(obs).x, chosen * x)


def test_draws_are_those_of_no_calibration():
    """Guards and monitors of the same seed take the draws with numbers 0 and 1."""
    seen = []

    def spy(obs):
        seen.append(obs.y)
        return half(obs)

    ff.guard.learn_then_test(spy, half, PROBLEM, 0.5, cells=GAINS, samples=200)
    calibrated = [ff.guard.answers.independent_draws(PROBLEM, 500, 0, index)[1].y for index in (0, 1)]
    assert not any((y[:, None] == used).all(-1).any() for y in seen for used in calibrated)


def test_none_is_said_where_nothing_can_be_proved():
    tested = ff.guard.learn_then_test(zero, zero, PROBLEM, 0.2, samples=200)
    assert (tested.best, tested.proved) == (None, ())
    assert "None of 5 settings is proved" in tested.verdict


def test_strengths_are_tested_and_leave_the_network_as_it_was():
    problem = ff.problems.CompressedSensing(n=40, m=30, snr_db=20.0)
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), problem, layers=4, learn={"step": "per-layer"})
    with torch.no_grad():
        net.deviations["step"].fill_(-0.3)
    _, obs = problem.sample(4, torch.Generator().manual_seed(1))
    before = net(obs).x
    safe = ff.iterate(ff.algorithms.FISTA(lam=0.05), 20)
    settings = {"strengths": (0.0, 1.0), "thresholds": (1.0, math.inf)}
    tested = ff.guard.learn_then_test(net, safe, problem, 0.9, samples=200, **settings)
    pairs = [(s.strength, s.threshold) for s in tested.settings]
    assert pairs == [(0.0, 1.0), (0.0, math.inf), (1.0, 1.0), (1.0, math.inf)]
    assert tested.settings[1].risks != tested.settings[3].risks
    assert net.strength == 1.0
    assert torch.equal(net(obs).x, before)


def test_a_monitor_gives_the_threshold():
    problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
    net, safe = ff.iterate(ff.algorithms.OAMP(), 5), ff.iterate(ff.algorithms.FISTA(lam=0.1), 20)
    watching = ff.guard.monitor(net, problem, alarm=0.05, draws=800)
    tested = ff.guard.learn_then_test(net, safe, problem, 0.9, thresholds=(0.0, 1.0), monitor=watching, samples=200)
    never, always = tested.settings
    x, obs = ff.guard.answers.independent_draws(problem, 200, 0, FIRST_DRAW)
    assert never.risks[0] == pytest.approx(clipped_error(net(obs).x, x).mean().item(), rel=1e-4)
    assert always.risks[0] == pytest.approx(clipped_error(safe(obs).x, x).mean().item(), rel=1e-4)


def test_what_does_not_fit_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"10 draws could not prove .* pass samples=\d+ or more"):
        ff.guard.learn_then_test(half, half, PROBLEM, 0.1, samples=10)
    with pytest.raises(ValueError, match="the network has no strength"):
        ff.guard.learn_then_test(half, half, PROBLEM, 0.5, strengths=(0.5, 1.0))
    with pytest.raises(ValueError, match="a loss is 7; pass one between 0 and 1"):
        ff.guard.learn_then_test(half, half, PROBLEM, 0.5, loss=lambda x_hat, x: torch.full((len(x),), 7.0))
    with pytest.raises(ValueError, match=r"losses are \(\) for 200 samples; pass a loss that gives one for each"):
        ff.guard.learn_then_test(half, half, PROBLEM, 0.5, samples=200, loss=lambda x_hat, x: x_hat.mean() ** 2)
    with pytest.raises(ValueError, match=r"at_most is 1\.5; pass a number between"):
        ff.guard.learn_then_test(half, half, PROBLEM, 1.5)
    with pytest.raises(ValueError, match="thresholds has -1"):
        ff.guard.learn_then_test(half, half, PROBLEM, 0.5, thresholds=(-1.0,))
