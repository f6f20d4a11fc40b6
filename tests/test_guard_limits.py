"""Guards keep their promises where errors are nil, tied, or few, variances are zero or below, and precision is half."""

import json
import math

import pytest
import torch

from fanfold.core.noise import circular
from fanfold.evaluation.scores import error_by_variance, mean_normalised_square, normalised_square, share
from fanfold.guard import Conformal, calibrate_variance, conformal, coverage, sbc
from fanfold.observation import Estimate, Observation
from fanfold.problems import LinearGaussian

KINDS = ("each", "joint", "energy", "average")
SCALES = ("constant", "variance", "magnitude")
LINEAR = LinearGaussian(snr_db=6.0)

each_kind = pytest.mark.parametrize("kind", KINDS)
each_scale = pytest.mark.parametrize("scale", SCALES)


def symbols(count: int, wrong: float, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, Observation]:
    """Signs times a tenth and what a detector decides: all right, or all three wrong in a share of samples."""
    generator = torch.Generator().manual_seed(seed)
    x = (2.0 * torch.randint(2, (count, 3), generator=generator) - 1) / 10
    flip = torch.where(torch.rand(count, 1, generator=generator) < wrong, -0.3, 1.0)
    return x.to(dtype), Observation((x * flip).to(dtype))


def decided(obs: Observation) -> Estimate:
    return Estimate(obs.y, torch.zeros_like(obs.y.real))


@each_kind
@each_scale
@pytest.mark.parametrize("wrong", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_exact_answers_and_tied_errors_are_covered_as_promised(kind, scale, wrong, dtype):
    """Errors take two values: the interval is a point where nine in ten are right, and else holds every one."""
    cal = conformal(decided, symbols(2000, wrong, dtype, 0), 0.9, kind, scale=scale)
    x, obs = symbols(4000, wrong, dtype, 1)
    interval = cal(obs)
    held = coverage(interval, x).value
    if wrong < 0.1:
        assert held == pytest.approx(1 - wrong, abs=4 * (0.05 / 4000) ** 0.5)
        assert interval.radius.max() == 0
    else:
        assert held == 1
    assert torch.isfinite(interval.radius).all()


@each_kind
def test_tied_errors_that_round_are_held(kind):
    """All errors are alike up to rounding: each draw is at the threshold."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(3000, 4, generator=generator)
    x = y + 0.1 * (2.0 * torch.randint(2, y.shape, generator=generator) - 1)
    guess = lambda obs: Estimate(obs.y, 0.37 * torch.ones_like(obs.y))  # noqa: E731
    for scale in ("constant", "variance"):
        cal = conformal(guess, (x[:1000], Observation(y[:1000])), 0.9, kind, scale=scale)
        assert coverage(cal(Observation(y[1000:])), x[1000:]).value >= 0.9 - 4 * (0.09 / 1000) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_variances_rounded_below_zero_are_covered_as_promised(kind, dtype):
    """As of a least squares that is sure of nearly half of its entries."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6000, 5, generator=generator, dtype=dtype)
    y = x + circular(tuple(x.shape), generator, dtype, 0.01)

    def rounded(obs):
        sign = torch.where(obs.y.real > 0.1, -1e-9, 0.01)
        return Estimate(obs.y, sign)

    cal = conformal(rounded, (x[:2000], Observation(y[:2000])), 0.9, kind)
    held = coverage(cal(Observation(y[2000:])), x[2000:])
    assert abs(held.value - 0.9) < 4 * (0.09 / 2000) ** 0.5 + 4 * held.standard_error


def test_what_is_no_variance_is_refused_by_every_guard():
    x, obs = LINEAR.sample(200, torch.Generator().manual_seed(0))
    for value, message in ((-0.3, "not negative"), (math.nan, "not finite"), (math.inf, "not finite")):
        var = torch.ones_like(x)
        var[3, 1] = value
        wrong = lambda obs, var=var: Estimate(torch.zeros_like(x), var)  # noqa: E731
        with pytest.raises(ValueError, match=message):
            conformal(wrong, (x, obs))
        with pytest.raises(ValueError, match=message):
            calibrate_variance(wrong, (x, obs))
        good = conformal(lambda obs: Estimate(torch.zeros_like(x), torch.ones_like(x)), (x, obs))
        good.estimator = wrong
        with pytest.raises(ValueError, match=message):
            good(obs)


@pytest.mark.parametrize("samples", [0, -1])
def test_no_draws_are_refused_in_a_sentence(samples):
    x, obs = LINEAR.sample(5, torch.Generator().manual_seed(0))
    for guard in (conformal, calibrate_variance):
        with pytest.raises(ValueError, match="draws to calibrate on"):
            guard(LINEAR.posterior, LINEAR, samples=samples)
        with pytest.raises(ValueError, match="draws to calibrate on"):
            guard(LINEAR.posterior, (x[:0], obs[:0]))
    with pytest.raises(ValueError, match="draws to calibrate on"):
        sbc(None, LINEAR, samples=samples)
    with pytest.raises(ValueError, match="nothing to take a share of"):
        share(torch.zeros(0, 3, dtype=torch.bool))


def test_what_is_not_finite_is_refused_by_its_name():
    x, obs = LINEAR.sample(200, torch.Generator().manual_seed(0))
    hole = x.clone()
    hole[7, 2] = math.nan
    for guard in (conformal, calibrate_variance):
        with pytest.raises(ValueError, match=r"x is not finite: nan at index \(7, 2\)"):
            guard(LINEAR.posterior, (hole, obs))
        with pytest.raises(ValueError, match="estimator's x is not finite"):
            guard(lambda obs: Estimate(hole, torch.ones_like(hole)), (x, obs))
    by = lambda obs, estimate: hole[: len(estimate.x)]  # noqa: E731
    with pytest.raises(ValueError, match="`by` is not finite"):
        conformal(LINEAR.posterior, (x, obs), groups=2, by=by)

    class Holes:
        def sample(self, obs, count, generator):
            return torch.full((count, *x.shape), math.nan)

    with pytest.raises(ValueError, match="draw of the sampler is not finite"):
        sbc(Holes(), (x, obs))
    with pytest.raises(ValueError, match="draws is 0"):
        sbc(Holes(), (x, obs), draws=0)


def test_groups_by_a_number_that_is_the_same_for_all_are_named():
    with pytest.raises(ValueError, match=r"group . of 3 has 0.*nearly always the same"):
        conformal(decided, symbols(300, 0.1, torch.float32, 0), groups=3)


@each_kind
@each_scale
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_calibrated_in_single_and_comes_back_from_a_file(kind, scale, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 4, generator=generator).to(dtype)
    y = (x + torch.randn(x.shape, generator=generator).to(dtype)).to(dtype)
    half = lambda obs: Estimate(obs.y / 2, torch.full_like(obs.y, 0.5))  # noqa: E731
    cal = conformal(half, (x[:1000], Observation(y[:1000])), 0.9, kind, scale=scale)
    again = Conformal.from_dict(half, json.loads(json.dumps(cal.as_dict())))
    interval = again(Observation(y[1000:]))
    assert torch.equal(interval.radius, cal(Observation(y[1000:])).radius)
    held = coverage(interval, x[1000:].float())
    assert abs(held.value - 0.9) < 4 * (0.09 / 800) ** 0.5 + 4 * held.standard_error


@pytest.mark.parametrize("map_", ["scale", "monotone"])
def test_variances_of_exact_answers_stay_what_the_errors_are(map_):
    x, obs = symbols(2000, 0.0, torch.float32, 0)
    cal = calibrate_variance(decided, (x, obs), map_)
    assert not cal(obs).var.any()
    assert normalised_square(cal(obs), x) == mean_normalised_square(cal(obs), x) == (1.0, 0.0)
    says = calibrate_variance(lambda obs: Estimate(obs.y, torch.ones_like(obs.y)), (x, obs), map_)
    assert not says(obs).var.any()


def test_a_variance_of_zero_is_mended_by_a_map_and_by_no_scale():
    x, obs = symbols(4000, 0.3, torch.float32, 0)
    with pytest.raises(ValueError, match="map='monotone'"):
        calibrate_variance(decided, (x, obs))
    cal = calibrate_variance(decided, (x, obs), "monotone")
    value, _ = normalised_square(cal(obs), x)
    assert value == pytest.approx(1, rel=1e-5)
    assert normalised_square(decided(obs), x) == (math.inf, math.inf)
    assert mean_normalised_square(decided(obs), x)[0] == math.inf


def test_measures_of_few_samples_have_numbers():
    x, obs = symbols(1, 0.3, torch.float32, 0)
    ones = Estimate(obs.y, torch.ones_like(obs.y))
    assert share(torch.ones(1, 3, dtype=torch.bool)) == (1.0, math.inf)
    for value, error in (normalised_square(ones, x + 1), mean_normalised_square(ones, x + 1)):
        assert value > 0
        assert error == math.inf
    assert all(math.isfinite(row["made"] + row["said"]) for row in error_by_variance(ones, x, bins=12))


def test_calibration_by_simulation_is_uniform_where_posteriors_have_atoms():
    """The exact posterior of one of three values, seen in noise: ranks and distances are full of ties."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(3, (4000, 2), generator=generator).float()
    y = x + torch.randn(x.shape, generator=generator)

    class Exact:
        def sample(self, obs, count, generator):
            log_p = -(obs.y[..., None] - torch.arange(3.0)).square() / 2
            p = torch.softmax(log_p, -1).flatten(0, 1)
            draws = torch.multinomial(p, count, replacement=True, generator=generator)
            return draws.mT.reshape(count, *obs.y.shape).float()

    result = sbc(Exact(), (x, Observation(y)))
    assert result.p_value > 1e-3
    assert result.joint_p_value > 1e-3
