"""Calibrated variances are the errors that are made, and measures of intervals and predictions say what they should."""

import json
import math

import pytest
import torch
from scipy import integrate, stats

import fanfold as ff
from fanfold.core.streams import Stream
from fanfold.evaluation.interval import Interval
from fanfold.guard import (
    CalibratedVariance,
    calibrate_variance,
    calibration_curve,
    coverage,
    coverage_by_size,
    error_by_variance,
    gaussian_crps,
    interval_score,
    mean_normalised_square,
    normalised_square,
    pit,
    uniform_histogram,
)
from fanfold.guard.calibrated_variance import isotonic
from fanfold.observation import Estimate, Observation
from fanfold.problems import CompressedSensing, LinearGaussian
from fanfold.problems.draws import draw

GAUSSIAN = LinearGaussian(snr_db=6.0)
SPARSE = CompressedSensing(n=60, m=30, snr_db=20)


def draws_of(problem, count):
    return draw(problem, count, 0, Stream.TESTING, 0)


def pairs(count, seed=0):
    """A variance that is said and the root of it that is meant: errors of variance `2 √var`."""
    generator = torch.Generator().manual_seed(seed)
    var = torch.logspace(-2, 2, 40).expand(count, -1)
    x = (2 * var.sqrt()).sqrt() * torch.randn(count, 40, generator=generator)
    return x, Observation(var.contiguous())


def says(obs):
    return Estimate(torch.zeros_like(obs.y), obs.y)


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_a_scale_brings_any_multiple_back(factor):
    wrong = lambda obs: Estimate(GAUSSIAN.posterior(obs).x, factor * GAUSSIAN.posterior(obs).var)  # noqa: E731
    x, obs = draws_of(GAUSSIAN, 10_000)
    right = calibrate_variance(wrong, GAUSSIAN, samples=10_000)
    assert right.factors.item() == pytest.approx(1 / factor, rel=0.02)  # 1e5 squares, somewhat dependent: ~ 0.5 %
    assert torch.equal(right(obs).x, wrong(obs).x)
    for measure in (normalised_square, mean_normalised_square):
        value, error = measure(right(obs), x)
        assert abs(value - 1) < 4 * math.hypot(error, error)  # that of the calibration draws, and of the test


def test_a_monotone_map_is_right_at_each_size():
    cal = calibrate_variance(says, pairs(5000), "monotone")
    x, obs = pairs(5000, seed=1)
    for row in error_by_variance(cal(obs), x, bins=8):
        assert row["made"] == pytest.approx(row["said"], rel=0.05)  # 4 · √(2 / 25 000) / 2, and as much of the map
    scaled = [row["made"] / row["said"] for row in error_by_variance(calibrate_variance(says, pairs(5000))(obs), x)]
    assert max(scaled) > 3 * min(scaled)
    beyond = torch.tensor([1e-9, 1e9])
    assert torch.allclose(cal.factor(beyond), cal.factors[[0, -1]].float())
    told = cal.factor(torch.logspace(-2, 2, 200)) * torch.logspace(-2, 2, 200)
    assert (told.diff() >= -1e-6 * told[1:]).all()  # it rises


@pytest.mark.parametrize("map_", ["scale", "monotone"])
@pytest.mark.parametrize(("dtype", "sparsity", "noise"), [("float32", 0.02, 1.0), ("complex64", 0.1, 20.0)])
def test_the_variance_of_oamp_becomes_that_of_its_errors(dtype, sparsity, noise, map_):
    """Told five times too few non-zeros it says too little, told twenty times too much noise too much."""
    problem, oamp = SPARSE.shifted(dtype=dtype), ff.algorithms.OAMP(ff.priors.BernoulliGaussian(sparsity))

    def told(obs):
        return ff.iterate(oamp, 8)(Observation(obs.y, obs.A, noise * obs.noise_var))

    x, obs = draws_of(problem, 8000)
    raw, _ = normalised_square(told(obs), x)
    assert not 0.8 < raw < 1.25
    value, error = normalised_square(calibrate_variance(told, problem, map_, samples=8000)(obs), x)
    assert abs(value - 1) < 4 * 2**0.5 * error  # that of the calibration draws, and of the test


def test_a_calibration_is_plain_data_and_comes_back():
    cal = calibrate_variance(says, pairs(500), "monotone")
    again = CalibratedVariance.from_dict(says, json.loads(json.dumps(cal.as_dict())))
    _, obs = pairs(10, seed=2)
    assert torch.equal(cal(obs).var, again(obs).var)


def test_mistakes_are_named():
    x, obs = pairs(100)
    with pytest.raises(ValueError, match="no variance to calibrate"):
        calibrate_variance(lambda o: Estimate(o.y), (x, obs))
    with pytest.raises(ValueError, match="map is"):
        calibrate_variance(says, (x, obs), "spline")
    with pytest.raises(ValueError, match="var None"):
        pit(Estimate(x), x)
    with pytest.raises(ValueError, match="complex"):
        gaussian_crps(Estimate(x + 0j, x.square()), x + 0j)
    with pytest.raises(ValueError, match="one entry of each sample"):
        uniform_histogram(x)


def test_isotonic_is_the_nearest_rising_sequence():
    values = torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0, 4.0, 6.0], dtype=torch.float64)
    wanted = [1, 7 / 3, 7 / 3, 7 / 3, 4.5, 4.5, 6]
    torch.testing.assert_close(isotonic(values), torch.tensor(wanted, dtype=torch.float64))
    assert torch.equal(isotonic(values.sort().values), values.sort().values)
    assert isotonic(values.flip(0)).var() < values.var()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_calibration_curve_of_the_truth_is_the_diagonal(generator, dtype):
    var = torch.rand(20_000, 1, generator=generator, dtype=torch.float64) + 0.1
    x = ff.noise.circular((20_000, 1), generator, dtype, var)
    right = calibration_curve(Estimate(torch.zeros_like(x), var), x)
    assert all(abs(r["measured"] - r["nominal"]) < 4 * (0.25 / 20_000) ** 0.5 for r in right)
    assert all(r["low"] < r["nominal"] < r["high"] for r in right)
    narrow = calibration_curve(Estimate(torch.zeros_like(x), var / 2), x)
    assert all(r["measured"] < r["low"] for r in narrow)


@pytest.mark.parametrize(("x_hat", "sigma", "x"), [(0.0, 1.0, 0.3), (2.0, 0.5, -1.0)])
def test_crps_is_the_integral_that_defines_it(x_hat, sigma, x):
    below = integrate.quad(lambda t: stats.norm.cdf(t, x_hat, sigma) ** 2, -20, x)[0]
    above = integrate.quad(lambda t: stats.norm.sf(t, x_hat, sigma) ** 2, x, 20)[0]
    t = torch.tensor([x_hat, sigma**2, x], dtype=torch.float64)
    assert gaussian_crps(Estimate(t[:1], t[1:2]), t[2:]).item() == pytest.approx(below + above, rel=1e-6)


def test_the_interval_score_is_least_at_the_quantiles():
    x = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)[:, None]  # uniform

    def score(low, high):
        ends = torch.tensor([low, high], dtype=torch.float64)
        middle, radius = ends.mean().expand(1000, 1), ((ends[1] - ends[0]) / 2).expand(1000, 1)
        interval = Interval(middle, radius, middle - radius, middle + radius, 0.9, False, 1, "")
        return interval_score(interval, x).mean().item()

    best = score(0.05, 0.95)
    assert best == pytest.approx(0.9 + 2 / 0.1 * 0.05**2, abs=1e-6)
    assert best < min(score(a, b) for a, b in ((0.0, 0.95), (0.1, 0.95), (0.05, 1.0), (0.05, 0.9), (0.1, 0.9)))


def test_pit_is_uniform_where_the_prediction_is_right_and_bends_where_not():
    x, obs = draws_of(GAUSSIAN, 4000)
    exact = GAUSSIAN.posterior(obs)
    right = uniform_histogram(pit(exact, x)[:, 0])
    assert right.counts.sum() == 4000
    assert right.p_value > 1e-3
    assert right.low < 200 < right.high
    narrow = uniform_histogram(pit(Estimate(exact.x, exact.var / 2), x)[:, 0])
    assert narrow.p_value < 1e-9
    assert narrow.counts[0] > 1.3 * right.counts.double().mean()


def test_standard_errors_of_coverage_count_samples_and_not_entries(generator):
    """Entries that are all alike are no more than one."""
    inside = (torch.rand(2000, 1, generator=generator) < 0.9).expand(-1, 50)
    x, radius = inside.double(), 0.1 * torch.ones(2000, 50)
    interval = Interval(x, radius, x - radius, x + radius, 0.9, False, 1, "")
    share = coverage(interval, torch.ones(2000, 50))
    assert share.value == pytest.approx(inside[:, 0].double().mean().item())
    assert share.standard_error == pytest.approx((0.09 / 2000) ** 0.5, rel=0.2)
    size = torch.rand(2000, 50, generator=generator)
    parts = coverage_by_size(inside, size)
    assert all(p.standard_error == pytest.approx((0.09 / 2000) ** 0.5, rel=0.25) for p in parts)
    assert sum(p.value for p in parts) / 3 == pytest.approx(share.value, abs=0.002)


def test_parts_of_equal_counts_are_by_size():
    size = torch.arange(9.0)[:, None]
    inside = size < 6
    assert [s.value for s in coverage_by_size(inside, size)] == [1.0, 1.0, 0.0]


def test_measures_equal_those_of_scoringrules():
    rules = pytest.importorskip("scoringrules")
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
    var = torch.rand(1000, generator=generator, dtype=torch.float64) + 0.01
    theirs = torch.as_tensor(rules.crps_normal(x.numpy(), x_hat.numpy(), var.sqrt().numpy()))
    torch.testing.assert_close(gaussian_crps(Estimate(x_hat, var), x), theirs, rtol=0, atol=1e-12)
