"""Weighted calibration restores coverage under a declared or a learned change of law, or refuses."""

import math

import pytest
import torch

from fanfold.guard import conformal, coverage, weighted_conformal
from fanfold.guard.weighted import Ratios
from fanfold.observation import Estimate, Observation

TESTS = 20_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(count: int, level: float, seed: int, spread: float = 0.5):
    """A simulator whose noise has a level that nobody sees, a nuisance parameter ν: `y = x + exp(ν) w`."""
    x, w = (torch.randn(count, 2, generator=generator(seed + k), dtype=torch.float64) for k in (0, 1))
    nuisance = level + spread * torch.randn(count, 1, generator=generator(seed + 2), dtype=torch.float64)
    return x, Observation(x + nuisance.exp() * w), nuisance[:, 0]


def louder(nuisance: torch.Tensor, by: float, spread: float = 0.5) -> torch.Tensor:
    """`log N(ν; by, spread²) - log N(ν; 0, spread²)`."""
    return (nuisance**2 - (nuisance - by) ** 2) / (2 * spread**2)


def halved(obs: Observation) -> Estimate:
    return Estimate(obs.y / 2)


def reached(share, target: float, effective: float) -> bool:
    """Not below the target by more than four deviations, of tests and of as many draws as the weighted are worth."""
    spread = math.hypot(share.standard_error, (target * (1 - target) / effective) ** 0.5)
    return share.value >= target - 4 * spread


@pytest.mark.parametrize("kind", ["each", "joint", "energy"])
@pytest.mark.parametrize("by", [-0.5, 0.5])
def test_coverage_is_restored_under_a_declared_nuisance_shift(kind, by):
    x, obs, nuisance = noisy(4000, 0.0, 1)
    truth, there, _ = noisy(TESTS, by, 11)
    before = coverage(conformal(halved, (x, obs), 0.9, kind)(there), truth)
    weighted = weighted_conformal(halved, (x, obs), louder(nuisance, by), 0.9, kind)
    after = coverage(weighted(there), truth)
    assert abs(before.value - 0.9) > 0.03
    assert reached(after, 0.9, weighted.effective)
    assert after.value < 0.9 + 4 * (0.09 / weighted.effective) ** 0.5 + 0.02  # nor by far too wide
    assert weighted.effective < len(x)


def test_equal_weights_are_those_of_no_shift():
    x, obs, _ = noisy(999, 0.0, 1)
    plain, weighted = conformal(halved, (x, obs)), weighted_conformal(halved, (x, obs), torch.zeros(999))
    assert torch.equal(plain(obs).radius, weighted(obs).radius)
    assert weighted.effective == pytest.approx(999)


def test_the_new_draw_counts_among_the_weights():
    """Ten draws of scores 1 … 10 with weight one each, the new one too: 9.9 of 11 is the tenth; of 0.95, infinity."""
    x = torch.arange(1.0, 201.0)[:, None]
    zero = lambda obs: Estimate(torch.zeros_like(obs.y))  # noqa: E731
    cal = weighted_conformal(zero, (x, Observation(x)), torch.zeros(200), 0.9)
    assert cal(Observation(torch.ones(1, 1))).radius.item() == pytest.approx(math.ceil(0.9 * 201), rel=1e-5)
    heavy = torch.zeros(200)
    heavy[0] = math.log(5)
    cal = weighted_conformal(zero, (x, Observation(x)), heavy, 0.9)
    wanted = 0.9 * (199 + 5 + 5)  # weights up to the k-th score are k + 4
    assert cal(Observation(torch.ones(1, 1))).radius.item() == pytest.approx(math.ceil(wanted) - 4, rel=1e-5)


def spread_out(count: int, centre: float, seed: int):
    """x given y has a spread that grows with y, in both places; y lies elsewhere."""
    y = centre + torch.randn(count, 1, generator=generator(seed), dtype=torch.float64)
    return y + (0.1 + y.abs()) * torch.randn(count, 1, generator=generator(seed + 1), dtype=torch.float64), y


def same(obs: Observation) -> Estimate:
    return Estimate(obs.y)


def test_coverage_is_restored_by_a_classifier_where_y_alone_has_another_law():
    x, y = spread_out(5000, 0.0, 1)
    _, elsewhere = spread_out(2000, 1.2, 21)
    truth, test = spread_out(TESTS, 1.2, 41)
    before = coverage(conformal(same, (x, Observation(y)))(Observation(test)), truth)
    weighted = weighted_conformal(same, (x, Observation(y)), Observation(elsewhere))
    after = coverage(weighted(Observation(test)), truth)
    assert before.value < 0.85
    assert after.value == pytest.approx(0.9, abs=4 * (0.09 / weighted.effective) ** 0.5 + 0.01)  # the ratio's error
    assert "learned" in weighted.promise


@pytest.mark.parametrize("kind", ["each", "joint"])
@pytest.mark.parametrize("noise_var", [None, torch.tensor(0.5, dtype=torch.float64)])
def test_axes_of_a_batch_are_samples_each(kind, noise_var):
    x, obs, nuisance = noisy(600, 0.0, 1)
    obs = Observation(obs.y, None, noise_var)
    there = Observation(noisy(200, 0.2, 3)[1].y, None, noise_var)
    for ratio in (louder(nuisance, 0.2), there):
        cal = weighted_conformal(halved, (x, obs), ratio, kind=kind)
        flat = cal(obs[:6]).radius
        assert torch.equal(cal(Observation(obs.y[:6].reshape(2, 3, 2), None, noise_var)).radius, flat.reshape(2, 3, 2))
        assert torch.equal(cal(Observation(obs.y[0], None, noise_var)).radius, flat[0])


def test_the_learned_ratio_is_that_of_two_gaussians():
    _, y = spread_out(5000, 0.0, 1)
    x, there = spread_out(5000, 1.0, 21)
    at = torch.linspace(-1.5, 2.5, 9, dtype=torch.float64)[:, None]
    learned = Ratios(x, Observation(y), Observation(there)).logs(Observation(at))
    torch.testing.assert_close(learned, at[:, 0] - 0.5, atol=0.3, rtol=0)


def test_where_there_is_too_far_it_is_refused_with_what_it_takes():
    x, obs, nuisance = noisy(500, 0.0, 1)
    with pytest.raises(ValueError, match=r"500 draws.*are worth .*take 36 at least: it is too far.*`conformal`"):
        weighted_conformal(halved, (x, obs), louder(nuisance, 2.0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, obs: weighted_conformal(halved, (x, obs), torch.zeros(3)), "3 log ratios for 400 draws"),
        (lambda x, obs: weighted_conformal(halved, (x, obs), torch.full((400,), math.nan)), "a log ratio"),
        (
            lambda x, obs: weighted_conformal(halved, (x, obs), torch.full((400,), -math.inf)),
            "is possible in the other",
        ),
        (lambda x, obs: weighted_conformal(halved, (x, obs), obs[:20]), "20 of there; pass 50"),
        (lambda x, obs: weighted_conformal(halved, (x, obs), Observation(obs.y[:, :1])), "measurements of one kind"),
        (lambda x, obs: weighted_conformal(halved, (x, obs), torch.zeros(400)).as_dict(), "is not kept"),
        (lambda x, obs: weighted_conformal(halved, (x, obs), torch.zeros(400), kind="average"), "kind"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    x, obs, _ = noisy(400, 0.0, 1)
    with pytest.raises(ValueError, match=says):
        make(x, obs)
