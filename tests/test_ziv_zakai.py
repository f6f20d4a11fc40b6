"""Ziv and Zakai's bound: its tests are the best tests, it is below the MMSE, and it covers priors that jump."""

import math

import pytest
import torch
from scipy.special import ive
from scipy.stats import ncx2, norm

from fanfold.bounds import ziv_zakai
from fanfold.bounds.ziv_zakai import gaussian_test_error, phase_test_error, rayleigh_test_error
from fanfold.priors import BernoulliGaussian, Gaussian, GaussianMixture, Laplace, Uniform
from fanfold.problems import Denoising, DirectionOfArrival, LinearGaussian, Modulation, TimeDelay, Tone

MIXTURE = GaussianMixture((0.5, 0.5), (-1.0, 1.0), (0.01, 0.01))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def variances(problem, draws: int) -> torch.Tensor:
    var = problem.posterior(problem.sample(draws, rng(1))[1]).var
    assert var is not None
    return var.double()


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("snr", [0.1, 3.0, 40.0])
def test_a_phase_costs_what_marcums_function_says(snr):
    rho = tensor(0.0, 0.3, 0.8, 0.95)
    root = (1 - rho.square()).sqrt()
    a, b = (snr / 2 * (1 - root)).sqrt().numpy(), (snr / 2 * (1 + root)).sqrt().numpy()
    marcum = ncx2.sf(b**2, 2, a**2)
    known = marcum - 0.5 * ive(0, a * b) * torch.exp(-tensor(*((a - b) ** 2 / 2))).numpy()
    assert torch.allclose(phase_test_error(rho, snr), torch.from_numpy(known), rtol=1e-9, atol=1e-12)


def test_signals_that_are_the_same_are_told_apart_by_their_odds_alone():
    p0 = tensor(0.2, 0.5, 0.9)
    least = torch.minimum(p0, 1 - p0)
    assert torch.allclose(gaussian_test_error(tensor(0.0), p0, 1 - p0), least)
    assert torch.allclose(rayleigh_test_error(tensor(1.0), 10.0, p0, 1 - p0), least)
    assert torch.allclose(phase_test_error(tensor(1.0), 10.0), tensor(0.5))


def test_signals_of_equal_odds_are_mistaken_as_their_distance_says():
    d = tensor(0.1, 1.0, 5.0)
    half = torch.full_like(d, 0.5)
    assert torch.allclose(gaussian_test_error(d, half, half), torch.from_numpy(norm.sf(d.numpy() / 2)), rtol=1e-12)


@pytest.mark.parametrize("p0", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_test_of_fading_signals_errs_as_often_as_it_says(p0, correlation):
    snr, m, n = 4.0, 1.0, 200_000
    var = m / snr
    s = torch.tensor([[1, 0], [correlation, math.sqrt(1 - correlation**2)]], dtype=torch.complex128)
    which = (torch.rand(n, generator=rng(0)) >= p0).long()
    gain, noise = (torch.randn(n, k, dtype=torch.complex128, generator=rng(k)) for k in (1, 2))
    c = (s[which] * gain + noise * var**0.5) @ s.mH
    ratio = (c[:, 1].abs() ** 2 - c[:, 0].abs() ** 2) / (var * (m + var)) + math.log((1 - p0) / p0)
    wrong = ((ratio > 0).long() != which).double().mean().item()
    expected = rayleigh_test_error(tensor(correlation), snr, tensor(p0), tensor(1 - p0)).item()
    assert wrong == pytest.approx(expected, abs=4 * math.sqrt(expected / n))  # four standard errors of a count


KNOWN = [
    *(Denoising(Uniform(), snr_db=s) for s in (-10, 0, 5, 10, 20, 30)),
    Denoising(Uniform(0, 5), snr_db=10),
    *(Denoising(MIXTURE, snr_db=s) for s in (-5, 0, 10, 20)),
    *(Denoising(Laplace(), snr_db=s) for s in (0, 20)),
]
SOURCES = [
    *(Tone(gain=g, snr_db=s) for g in ("known", "phase", "rayleigh") for s in (-20, -5, 10)),
    *(Tone(gain="rayleigh", density="raised-cosine", snr_db=s) for s in (-10, 10)),
    *(TimeDelay(gain="known", snr_db=s) for s in (-10, 5, 20)),
    TimeDelay(gain="phase", snr_db=0),
]


@pytest.mark.parametrize("problem", KNOWN + SOURCES, ids=lambda p: f"{type(p).__name__}-{p.snr_db}")
def test_it_never_exceeds_the_mmse(problem):
    draws = 500 if problem in SOURCES else 20_000
    bound = ziv_zakai(problem, cells=16 if problem in SOURCES else 32)
    var = variances(problem, draws)
    slack = 4 * var.std() / draws**0.5 + bound.numerical_error + 1e-6 * var.mean()  # variances of single precision
    assert 0 < bound.mse <= (var.mean() + slack).item()
    assert bound.numerical_error < 2e-3 * bound.mse


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 5.0, 10.0, 20.0, 30.0])
def test_it_is_near_the_mmse_of_a_uniform_prior(snr_db):
    problem = Denoising(Uniform(), snr_db=snr_db)
    least = variances(problem, 50_000).mean().item()
    # 0.862 at worst, at 0 dB; draws of a variance err by 0.2 %
    assert 0.855 <= ziv_zakai(problem).mse / least <= 1.005


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_it_is_the_mmse_of_a_linear_gaussian_model(snr_db):
    problem = LinearGaussian(n=1, m=3, snr_db=snr_db)
    exact = variances(problem, 1).item()
    assert ziv_zakai(problem).mse == pytest.approx(exact, rel=1e-6)  # of single precision


def test_noise_that_hides_all_leaves_the_variance_of_a_symmetric_unimodal_prior():
    for prior in (Gaussian(2.0), Laplace()):
        assert ziv_zakai(Denoising(prior, snr_db=-80)).mse == pytest.approx(prior.power, rel=1e-3)


def test_equal_odds_bound_less_unless_the_prior_is_flat():
    for problem in (Denoising(Gaussian()), Tone(gain="rayleigh", density="raised-cosine", snr_db=-10)):
        assert ziv_zakai(problem, equally_likely=True).mse < 0.95 * ziv_zakai(problem).mse
    flat = Denoising(Uniform())
    assert ziv_zakai(flat, equally_likely=True).mse == pytest.approx(ziv_zakai(flat).mse, rel=1e-12)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Denoising(BernoulliGaussian()), "x0 has atoms.*exact_mmse"),
        (LinearGaussian(), "one parameter.*x0, x1.*van_trees"),
        (Tone(estimate=("phase",)), "one parameter"),
        (DirectionOfArrival(), "white Gaussian noise"),
        (Modulation(), "ziv_zakai needs .*`log_prior`; Modulation has none"),
    ],
    ids=lambda p: type(p).__name__ if not isinstance(p, str) else "",
)
def test_other_models_are_refused_with_the_bound_to_use(problem, message):
    with pytest.raises(ValueError, match=message):
        ziv_zakai(problem)
