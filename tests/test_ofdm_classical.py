"""Laws of least squares, LMMSE and noise variances for channels of OFDM."""

import math

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.noise import circular
from fanfold.core.units import nmse_db, power
from fanfold.estimators import LMMSE
from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, NoiseVariance, Wiener
from fanfold.estimators.ofdm.interpolation import interpolation_matrix
from fanfold.estimators.ofdm.noise_variance import LARGEST_POWER
from fanfold.propagation.models import Rayleigh

MODEL = "kronecker:array=2x2x3,subcarriers=16,space=0.8,delay_spread_ns=600"  # Gaussian, of known covariance
SLOT = "jakes:array=1x2,subcarriers=12,symbols=14,speed_mps=60,delay_spread_ns=600"
OVER = pytest.mark.parametrize("over", ["grid", "space", "space-grid"])


def gaussian(source=MODEL, **changes):
    pilots = "comb-4@2,11" if source.startswith("jakes") else "comb-4"
    return ff.problems.OFDMChannel(source=source, pilots=pilots, **changes)


def model(problem):
    assert isinstance(problem.channels, Rayleigh)
    return problem.channels


def truth(problem):
    """The covariance that a model says, as its two factors."""
    *space, time, frequency = model(problem).correlations()
    over_space = torch.ones(1, 1, dtype=torch.complex128)
    for factor in space:
        over_space = torch.kron(over_space, factor)
    return ChannelCovariance(over_space, torch.kron(time, frequency))


def drawn(problem, n=200, seed=0):
    return problem.sample(n, torch.Generator().manual_seed(seed))


def estimators(problem):
    known = isinstance(problem.channels, Rayleigh)
    covariance = truth(problem) if known else ChannelCovariance.of(problem, 1000)
    made = {over: Wiener.of(problem, covariance, over) for over in ("grid", "space", "space-grid")}
    made["robust"] = Wiener.of(problem, ChannelCovariance.robust(problem.layout), "grid")
    return made | {method: Interpolation.of(problem, method) for method in ("linear", "nearest", "spline")}


@pytest.mark.parametrize("source", [MODEL, SLOT])
def test_over_space_and_grid_it_is_the_lmmse_of_the_whole_covariance(source):
    problem = gaussian(source)
    _, obs = drawn(problem)
    dense = LMMSE(None, model(problem).covariance())(
        ff.Observation(obs.y.to(torch.complex128), problem.A.to(dtype=torch.complex128), obs.noise_var.double())
    )
    ours = Wiener.of(problem, truth(problem), known_power=True)(obs)
    # y and x are single: n products of entries of about one
    tolerance = problem.layout.n * torch.finfo(torch.float32).eps
    assert (ours.x - dense.x).abs().max() < tolerance * dense.x.abs().max()
    assert (ours.var - dense.var).abs().max() < tolerance


def test_over_the_grid_each_antenna_is_filtered_by_one_matrix():
    problem = gaussian()
    _, obs = drawn(problem)
    C, v = truth(problem).grid, obs.noise_var.item()
    pick = problem.mask.flatten()
    W = C[:, pick] @ torch.linalg.inv(C[pick][:, pick] + v * torch.eye(int(pick.sum())))
    y = obs.y.reshape(len(obs.y), problem.layout.antennas, -1)
    wanted = (y.to(W.dtype) @ W.mT).flatten(1)
    filtered = Wiener.of(problem, truth(problem), "grid", known_power=True)
    stored = (y @ filtered.filter_of(v).mT).flatten(1)
    tolerance = 8 * len(C) * torch.finfo(torch.float32).eps  # of single products
    assert (filtered(obs).x - wanted).abs().max() < tolerance * wanted.abs().max()
    assert (stored - wanted).abs().max() < tolerance * wanted.abs().max()
    var = (C.diagonal() - (W * C[:, pick].conj()).sum(1)).real.repeat(problem.layout.antennas)
    assert (filtered(obs).var - var).abs().max() < tolerance


def test_over_space_the_antennas_are_filtered_at_the_pilots():
    problem = gaussian()
    _, obs = drawn(problem)
    C, v = truth(problem).space, obs.noise_var.item()
    W = C @ torch.linalg.inv(C + v * torch.eye(len(C)))
    y = obs.y.reshape(len(obs.y), len(C), -1).to(W.dtype)
    x = Wiener.of(problem, truth(problem), "space", known_power=True)(obs).x.reshape(len(y), len(C), -1)
    assert (x[:, :, problem.mask.flatten()] - W @ y).abs().max() < 1e-5 * y.abs().max()  # eps times 12 antennas, and 8


@OVER
def test_what_a_receiver_stores_is_the_filter(over):
    problem = gaussian(SLOT)
    _, obs = drawn(problem)
    filtered = Wiener.of(problem, truth(problem), over, known_power=True)
    x = filtered.stored(0.1)(obs.y.unflatten(1, (problem.layout.antennas, -1))).flatten(1)
    assert (x - filtered(obs).x).abs().max() < 1e-4 * x.abs().max()  # products of single precision, of 24 or so


def test_one_filter_an_antenna_exists_only_over_the_grid():
    with pytest.raises(ValueError, match="over='grid'"):
        Wiener.of(gaussian(), truth(gaussian())).filter_of(0.1)


@pytest.mark.parametrize("method", ["linear", "nearest", "spline"])
def test_least_squares_gives_back_the_pilots(method):
    problem = gaussian(snr_db=300.0)  # noise far below rounding
    x, obs = drawn(problem, 20)
    at = Interpolation.of(problem, method)(obs).x.reshape(20, problem.layout.antennas, -1)[..., problem.mask.flatten()]
    assert (at.flatten(1) - problem.A @ x).abs().max() < 1e-6  # 8 eps


def test_between_pilots_linear_functions_are_exact():
    mask = torch.zeros(14, 12, dtype=torch.bool)
    mask[2, ::3] = mask[11, ::3] = True
    f, t = torch.arange(12.0).double(), torch.arange(14.0).double()
    plane = (0.3 + 2 * f)[None, :] + (1 - 0.7 * f)[None, :] * t[:, None]  # bilinear
    x = (interpolation_matrix(mask) @ plane[mask]).reshape(14, 12)
    assert torch.allclose(x[2:12, :10], plane[2:12, :10], rtol=1e-13, atol=1e-13)
    assert torch.equal(x[:2, :10], x[2:3, :10].expand(2, -1))  # held outside


def test_splines_are_exact_for_cubics():
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, ::4] = True
    f = torch.arange(24.0).double() / 24
    cubic = 1 - 2 * f + 3 * f**2 - 5 * f**3
    assert torch.allclose(interpolation_matrix(mask, "spline") @ cubic[mask[0]], cubic, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "spline"])
def test_noise_of_least_squares_has_mean_zero_and_the_stated_variance(method):
    problem, n = gaussian(snr_db=0.0), 4000
    noise = circular((n, problem.A.m), torch.Generator().manual_seed(1), torch.complex64)
    est = Interpolation.of(problem, method)(ff.Observation(noise, problem.A, torch.tensor(1.0)))
    shape = (n, problem.layout.antennas, -1)
    error, var = est.x.reshape(shape), est.var.reshape(shape)[0]
    # |e|² is exponential: of deviation its mean; 5 deviations, as the largest of 200 means is asked for
    assert (power(error.mean(0)) / (var / n)).max() < math.log(200) + 10
    assert (power(error).mean(0) / var - 1).abs().max() < 5 / n**0.5


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("source", [MODEL, "umi"])
def test_estimates_grow_with_the_observation(source, known):
    problem = gaussian(source, known_noise=known)
    _, obs = drawn(problem, 20)
    c = 1e-6 * np.exp(0.3j)
    v = None if obs.noise_var is None else obs.noise_var * abs(c) ** 2
    for name, estimator in estimators(problem).items():
        large, small = estimator(obs), estimator(ff.Observation(obs.y * c, obs.A, v))
        # single precision; an estimated variance repeats its rounding in eight rounds
        assert (small.x / c - large.x).abs().max() < 2e-4 * large.x.abs().max(), name
        if large.var is not None:
            assert torch.allclose(small.var / abs(c) ** 2, large.var, rtol=2e-3), name


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_not_to_know_the_noise_costs_little(snr_db):
    told = gaussian("umi", snr_db=snr_db)
    filtered = Wiener.of(told, ChannelCovariance.of(told, 1100))
    x, obs = drawn(told.held_out(), 128)
    known = nmse_db(filtered(obs).x, x)
    unknown = nmse_db(filtered(ff.Observation(obs.y, obs.A)).x, x)
    assert unknown < known + 0.3  # dB; of 192 pilots, and channels that are not Gaussian


@pytest.mark.parametrize("snr_db", [5.0, 10.0, 20.0, 30.0])
def test_where_pilots_are_nearly_white_noise_is_not_made_of_signal(snr_db):
    told = gaussian("rayleigh:array=2x4x4,subcarriers=24", snr_db=snr_db)
    filtered = Wiener.of(told, ChannelCovariance.of(told, 1000))
    x, obs = drawn(told, 200)
    known, unknown = filtered(obs), filtered(ff.Observation(obs.y, obs.A))
    assert nmse_db(unknown.x, x) < nmse_db(known.x, x) + 0.5  # dB
    # the power is taken to be 15 dB above the noise, and is from 10 dB below that to 15 dB above
    assert 1 / 40 < (power(unknown.x - x) / unknown.var).mean() < 20


@pytest.mark.parametrize("snr_db", [-10.0, -5.0, 0.0])
@pytest.mark.parametrize(
    "source", ["array=1,subcarriers=48,delay_spread_ns=100", "array=2,subcarriers=48,delay_spread_ns=300"]
)
def test_of_few_pilots_in_noise_the_variance_is_found_too(source, snr_db):
    told = gaussian("kronecker:" + source, snr_db=snr_db).shifted(pilots="comb-12")
    filtered = Wiener.of(told, truth(told))
    x, obs = drawn(told, 300)
    assert nmse_db(filtered(ff.Observation(obs.y, obs.A)).x, x) < nmse_db(filtered(obs).x, x) + 1  # dB; 4 and 8 pilots


@OVER
def test_error_variances_are_calibrated_on_gaussian_channels(over):
    problem = gaussian("kronecker:array=2x2x3,subcarriers=16,space=0.8,delay_spread_ns=600", snr_db=(0, 20))
    x, obs = drawn(problem, 4000)
    est = Wiener.of(problem, truth(problem), over, known_power=True)(obs)
    error = (power(est.x - x) / est.var).unflatten(1, (problem.layout.antennas, -1))
    if over == "space":  # which says that it knows the error at the pilots alone
        error = error[..., problem.mask.flatten()]
    error = error.mean((1, 2))
    assert abs(error.mean() - 1) < 4 * error.std() / len(error) ** 0.5


@pytest.mark.parametrize("over", ["grid", "space"])
def test_no_filter_beats_that_over_all(over):
    problem = gaussian()
    x, obs = drawn(problem, 1000)
    best = power(Wiener.of(problem, truth(problem), known_power=True)(obs).x - x).mean(1)
    other = power(Wiener.of(problem, truth(problem), over, known_power=True)(obs).x - x).mean(1)
    worse = other - best
    assert worse.mean() > 4 * worse.std() / len(x) ** 0.5  # half of what is correlated is left out


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_robust_lmmse_is_between_least_squares_and_lmmse(snr_db):
    problem = gaussian("umi", snr_db=snr_db)
    x, obs = drawn(problem.held_out(), 128)
    made = estimators(problem)
    nmse = {name: nmse_db(made[name](obs).x, x) for name in ("grid", "robust", "linear")}
    assert nmse["grid"] < nmse["robust"] < nmse["linear"]


def test_learned_covariances_are_those_of_the_model():
    problem, samples = gaussian(), 4000
    learned, true = ChannelCovariance.of(problem, samples), truth(problem)
    # entries of a mean over samples and the other axis, whose entries are alike at worst: deviation 1 / sqrt(samples)
    assert (learned.space - true.space).abs().max() < 5 / samples**0.5
    assert (learned.grid - true.grid).abs().max() < 5 / samples**0.5


def test_a_slot_that_moves_is_filtered_over_time_and_frequency():
    moving, still = gaussian(SLOT), gaussian(SLOT.replace("speed_mps=60", "speed_mps=0"))
    x, obs = drawn(moving, 500)
    nmse = {p: nmse_db(Wiener.of(moving, truth(p), known_power=True)(obs).x, x) for p in (moving, still)}
    stated = Wiener.of(moving, truth(moving), known_power=True)(obs).var.mean().item()
    error = power(Wiener.of(moving, truth(moving), known_power=True)(obs).x - x).mean(1)
    assert abs(error.mean() - stated) < 4 * error.std() / len(error) ** 0.5
    assert nmse[moving] < nmse[still]  # one that takes the slot to be still


def test_one_observation_is_estimated_as_a_batch_is():
    problem = gaussian()
    _, obs = drawn(problem, 4)
    for name, estimator in estimators(problem).items():
        alone = estimator(ff.Observation(obs.y[0], obs.A, obs.noise_var))
        assert alone.x.shape == (problem.layout.n,), name
        assert torch.allclose(alone.x, estimator(obs).x[0], rtol=1e-4, atol=1e-5), name
        assert alone.var.shape == alone.x.shape, name


def test_noise_variance_is_within_its_bound():
    problem, n, v = gaussian("kronecker:array=4x4,subcarriers=48,space=0.8,delay_spread_ns=600", snr_db=10.0), 2000, 0.1
    true, pick = truth(problem), problem.mask.flatten()
    at_pilots = true.grid[pick][:, pick]
    _, obs = drawn(problem, n)
    found = NoiseVariance(true.space, at_pilots)(obs.y)[:, 0].double()
    d = torch.outer(torch.linalg.eigvalsh(true.space), torch.linalg.eigvalsh(at_pilots)).flatten()
    directions = torch.stack([d, torch.ones_like(d)])
    information = (directions / (d + v).square()) @ directions.mT  # of powers with means s d + v
    bound = torch.linalg.inv(information)[1, 1]
    t = math.exp(
        -LARGEST_POWER
    )  # what cutting costs: the variance of min(e, LARGEST_POWER) over the square of its slope's mean
    efficiency = (1 - t * (1 + LARGEST_POWER)) ** 2 / (2 - 2 * t * (1 + LARGEST_POWER) - (1 - t) ** 2)
    spread = bound / efficiency
    # of n draws 4 deviations, of the variance's sqrt(2 / n); m = 192 numbers, of which the bias is about 1 / m
    assert abs(found.mean() - v) < 4 * (spread / n) ** 0.5 + v / problem.A.m * 2
    assert abs(found.var() / spread - 1) < 4 * (2 / n) ** 0.5 + 0.05


def test_silence_is_estimated_as_silence():
    problem = gaussian()
    for noise_var in (torch.tensor(0.0), torch.tensor(0.1), None):
        silent = ff.Observation(torch.zeros(2, problem.A.m, dtype=torch.complex64), problem.A, noise_var)
        for name, estimator in estimators(problem).items():
            assert not estimator(silent).x.any(), name


def test_one_pilot_leaves_nothing_to_interpolate():
    mask = torch.zeros(14, 12, dtype=torch.bool)
    mask[2, 5] = True
    with pytest.raises(ValueError, match="at least two pilots"):
        interpolation_matrix(mask)
    with pytest.raises(ValueError, match="nothing to interpolate"):
        Interpolation.of(ff.problems.OFDMChannel(pilots="comb-24"))
    with pytest.raises(ValueError, match="linear, nearest or spline"):
        Interpolation.of(gaussian(), "cubic")  # pyrefly: ignore


def test_covariances_and_observations_of_another_layout_are_refused():
    problem, other = gaussian(), gaussian("kronecker:array=2x2,subcarriers=16")
    with pytest.raises(ValueError, match="4 antennas"):
        Wiener.of(problem, truth(other))
    _, obs = drawn(other, 2)
    for estimator in estimators(problem).values():
        with pytest.raises(ValueError, match="48"):
            estimator(obs)
    with pytest.raises(ValueError, match="square"):
        NoiseVariance(torch.eye(3)[:2], torch.eye(2))


@pytest.mark.parametrize(
    ("longest", "doppler"), [(0.0, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1e-6, -1.0), (1e-6, math.nan)]
)
def test_robust_designs_are_of_finite_delays_and_shifts(longest, doppler):
    with pytest.raises(ValueError, match="longest_delay_s"):
        ChannelCovariance.robust(gaussian().layout, longest, doppler)


@pytest.mark.parametrize("noise_var", [-1.0, math.nan, math.inf])
def test_filters_are_kept_for_finite_noise_variances(noise_var):
    filtered = Wiener.of(gaussian(), truth(gaussian()), "grid")
    for keep in (filtered.filter_of, filtered.stored):
        with pytest.raises(ValueError, match="noise_var"):
            keep(noise_var)


def test_a_covariance_takes_draws_and_a_filter_something_to_go_over():
    with pytest.raises(ValueError, match="samples is 0"):
        ChannelCovariance.of(gaussian(), 0)
    with pytest.raises(ValueError, match="grid, space or space-grid"):
        Wiener.of(gaussian(), truth(gaussian()), "time")  # pyrefly: ignore


def test_on_one_subcarrier_every_interpolation_holds():
    problem = gaussian("kronecker:array=2x2,subcarriers=1", snr_db=300.0)
    problem = problem.shifted(pilots="comb-1")
    x, obs = drawn(problem, 3)
    for method in ("linear", "nearest", "spline"):
        assert (Interpolation.of(problem, method)(obs).x - x).abs().max() < 1e-6
