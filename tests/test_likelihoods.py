"""Likelihoods: scores are derivatives of the evidence, moments are brute-force integrals, tails stay finite."""

import math

import numpy as np
import pytest
import torch

from fanfold.algorithms import GAMP
from fanfold.core.truncated import truncated_gaussian
from fanfold.core.units import power
from fanfold.likelihoods import REGISTRY, GaussianNoise, Logistic, OneBit, Poisson, Quantised
from fanfold.likelihoods.logistic import kolmogorov_rule
from fanfold.likelihoods.poisson import wright_omega
from fanfold.linops import Dense
from fanfold.observation import Observation
from fanfold.unfolding import iterate, unfold

LIKELIHOODS = (GaussianNoise(), OneBit(), Quantised(3, 0.4), Quantised(1, 1.0), Logistic(), Poisson(20.0), Poisson(0.5))
EPS = torch.finfo(torch.float64).eps

each_channel = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
each_complex = pytest.mark.parametrize("likelihood", [c for c in LIKELIHOODS if not isinstance(c, Poisson)], ids=str)
each_level = pytest.mark.parametrize(("tau", "noise_var"), [(0.2, 0.05), (1.0, 0.3), (1e-3, 0.3), (0.5, 1e-3)])


def seen(likelihood, tau: float, noise_var: float, draws: int, generator, dtype=torch.float64):
    """Means, true values around them and measurements."""
    p = torch.randn(draws, generator=generator, dtype=dtype) * 0.7
    z = p + tau**0.5 * torch.randn(draws, generator=generator, dtype=dtype)
    return p, z, likelihood.sample(z, generator, noise_var)


@each_level
@each_channel
def test_score_and_curvature_are_derivatives_of_the_log_evidence(likelihood, tau, noise_var, generator):
    p, _, y = seen(likelihood, tau, noise_var, 300, generator)
    p.requires_grad_()
    (slope,) = torch.autograd.grad(likelihood.log_evidence(y, p, tau, noise_var).sum(), p, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), p)
    score, curvature = likelihood.score(y, p.detach(), tau, noise_var)
    # rounding of a variance against tau, and quadratures of 40 nodes for a cell or a count
    torch.testing.assert_close(score, slope.detach(), rtol=1e-6, atol=1e-7 / tau**0.5)
    torch.testing.assert_close(curvature, -bend, rtol=1e-5, atol=1e-6 / tau)


@each_level
@each_channel
def test_moments_are_the_brute_force_integral(likelihood, tau, noise_var, generator):
    p, _, y = seen(likelihood, tau, noise_var, 20, generator)
    u = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    z = p + tau**0.5 * u[:, None]
    log_mass = likelihood.log_likelihood(y, z, noise_var) - u[:, None].square() / 2
    mass = torch.softmax(log_mass, 0)
    mean = (mass * z).sum(0)
    var = (mass * (z - mean).square()).sum(0)
    ours = likelihood.posterior(y, p, tau, noise_var)
    torch.testing.assert_close(ours[0], mean, rtol=0, atol=1e-5 * tau**0.5)
    torch.testing.assert_close(ours[1], var, rtol=0, atol=1e-5 * tau)
    evidence = torch.log(torch.exp(log_mass).sum(0) * (u[1] - u[0]) / math.sqrt(2 * math.pi))
    torch.testing.assert_close(likelihood.log_evidence(y, p, tau, noise_var), evidence, rtol=0, atol=1e-5)


@each_level
@each_channel
def test_posterior_is_calibrated_and_orthogonal_to_the_data(likelihood, tau, noise_var, generator):
    draws = 20_000
    p, z, y = seen(likelihood, tau, noise_var, draws, generator)
    mean, var = likelihood.posterior(y, p, tau, noise_var)
    gap = (z - mean).square() - var
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5
    for other in (mean, p, torch.ones_like(p), torch.tanh(y)):
        product = (z - mean) * other
        assert abs(product.mean()) < 5 * product.std() / draws**0.5


@each_level
@each_channel
def test_score_has_zero_mean_and_its_square_the_mean_curvature(likelihood, tau, noise_var, generator):
    """Fisher's identities: what keeps GAMP's variances true."""
    draws = 20_000
    p, _, y = seen(likelihood, tau, noise_var, draws, generator)
    score, curvature = likelihood.score(y, p, tau, noise_var)
    gap = score.square() - curvature
    assert abs(score.mean()) < 5 * score.std() / draws**0.5
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5


@each_complex
def test_complex_moments_are_calibrated(likelihood, generator):
    draws, tau, noise_var = 20_000, 0.5, 0.2
    p = torch.randn(draws, generator=generator, dtype=torch.complex128)
    z = p + tau**0.5 * torch.randn(draws, generator=generator, dtype=torch.complex128)
    y = likelihood.sample(z, generator, noise_var)
    assert y.dtype == z.dtype
    mean, var = likelihood.posterior(y, p, tau, noise_var)
    gap = power(z - mean) - var
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5
    product = (z - mean).conj() * mean
    assert abs(product.mean()) < 5 * product.abs().std() / draws**0.5
    score, curvature = likelihood.score(y, p, tau, noise_var)
    gap = power(score) - curvature
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5


@each_channel
def test_measurements_have_the_frequencies_of_the_likelihood(likelihood, generator):
    draws, noise_var = 50_000, 0.2
    z = torch.full((draws,), 0.3, dtype=torch.float64)
    y = likelihood.sample(z, generator, noise_var)
    if isinstance(likelihood, GaussianNoise):
        assert abs(y.mean() - 0.3) < 5 * (noise_var / draws) ** 0.5
        assert abs(y.var() - noise_var) < 5 * noise_var * (2 / draws) ** 0.5
        return
    for value in y.unique():
        chance = likelihood.log_likelihood(value, z[0], noise_var).exp().item()
        share = (y == value).double().mean().item()
        assert abs(share - chance) < 5 * (chance * (1 - chance) / draws) ** 0.5 + 5 / draws


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1e-8, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("noise_var", [0.0, 1e-10, 1.0])
@each_channel
def test_score_and_gradient_are_finite_in_every_tail(likelihood, noise_var, tau, dtype, generator):
    p = torch.tensor([-300.0, -30, -3, -0.1, 0, 0.1, 3, 30, 300], dtype=dtype)
    if isinstance(likelihood, Poisson):
        p = p.clamp(-10, 10)  # a rate of exp(300) is no count
    y = likelihood.sample(p.flip(0).clamp(-5, 5), generator, 0.0)  # most of them surprising
    p.requires_grad_()
    level, noise = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (tau, noise_var))
    score, curvature = likelihood.score(y, p, level, noise)
    assert torch.isfinite(score).all()
    assert torch.isfinite(curvature).all()
    precision = 1 / max(tau + noise_var * likelihood.uses_noise_var, 1e-30)
    if isinstance(likelihood, Poisson):
        precision = 1 / tau
    # a log-concave likelihood takes from the variance, never more than there is; up to cancellation for far p
    slack = 40 * torch.finfo(dtype).eps * (1 + (p.detach().square() * precision).clamp_max(1e3))
    assert (curvature >= -slack * precision).all()
    assert (curvature <= (1 + slack) * precision * (1 + 1e-3)).all()
    slopes = torch.autograd.grad((score * tau).sum() + (curvature * tau).sum(), (p, level, noise), allow_unused=True)
    for slope in slopes:
        assert slope is None or torch.isfinite(slope).all()


def test_one_bit_is_one_bit_of_quantisation(generator):
    p, _, y = seen(OneBit(), 0.5, 0.1, 500, generator)
    fine = Quantised(1, 2.0)  # its cells have their middles at ±1
    for ours, theirs in zip(OneBit().score(y, p, 0.5, 0.1), fine.score(y, p, 0.5, 0.1), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_many_bits_are_none(generator):
    """A fine quantiser is uniform noise of variance step² / 12."""
    step, tau, noise_var = 1e-3, 0.4, 0.1
    p, _, y = seen(Quantised(16, step), tau, noise_var, 500, generator)
    gaussian = GaussianNoise().score(y, p, tau, noise_var + step**2 / 12)
    for ours, theirs in zip(Quantised(16, step).score(y, p, tau, noise_var), gaussian, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high"), [(-1e6, 1e6), (0, 1e6), (5, 1e6), (40, 1e6), (-2, 1), (3, 3.001), (-30, -29.9), (300, 301)]
)
def test_truncated_gaussian_is_scipys_or_the_asymptote(low, high):
    from scipy.stats import truncnorm

    cell = truncated_gaussian(*torch.tensor([low, high], dtype=torch.float64))
    log_mass, mean, var = (v.item() for v in (cell.log_mass, cell.mean, cell.var))
    if max(abs(low), abs(high)) < 50 or low <= 5:
        theirs = truncnorm(low, high)
        assert mean == pytest.approx(theirs.mean(), rel=1e-6, abs=1e-9)
        if high - low > 0.5:  # scipy's variance of a narrow cell loses its digits
            assert var == pytest.approx(theirs.var(), rel=1e-4 if low >= 5 else 1e-7)
    if low >= 40:  # an exponential of rate `low`
        assert mean == pytest.approx(low + 1 / low - 2 / low**3, rel=1e-6)
        assert var == pytest.approx(1 / low**2 - 6 / low**4, rel=1e-4)
    if high - low < 0.01:
        assert var == pytest.approx((high - low) ** 2 / 12, rel=1e-3)
    assert math.isfinite(log_mass)


@pytest.mark.parametrize("x", [0.0, 0.1, -1.0, 3.0, -8.0, -20.0, -60.0])
def test_the_mixture_of_gaussians_is_logistic(x):
    """Also far down the tail, to a relative 1e-5."""
    scale, weight = (torch.tensor(a, dtype=torch.float64) for a in kolmogorov_rule())
    c = x * math.sqrt(3) / math.pi / scale  # x in units of s
    ours = (torch.log(weight) + torch.special.log_ndtr(c)).logsumexp(-1).item()
    assert ours == pytest.approx(-np.logaddexp(0, -x), rel=1e-9, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wright_omega_solves_its_equation(dtype):
    c = torch.cat([torch.linspace(-60, 60, 400), torch.logspace(2, 5, 50)]).to(dtype)
    w = wright_omega(c)
    assert ((w + torch.log(w) - c).abs() <= 16 * torch.finfo(dtype).eps * (1 + c.abs())).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: Quantised(0), "bits"), (lambda: Quantised(2, 0.0), "step"), (lambda: Poisson(-1.0), "exp")],
)
def test_what_is_no_channel_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_counts_of_complex_signals_are_refused(generator):
    with pytest.raises(ValueError, match="real"):
        Poisson().sample(torch.ones(2, dtype=torch.complex64), generator)


FOREIGN = (
    (OneBit(), [0.0, 1.0], "OneBit gives -1 and 1.*2 \\* y - 1"),
    (Logistic(), [1.0, 0.0], "Logistic gives -1 and 1"),
    (OneBit(), [1.0, -1.0001], "at index"),
    (Quantised(3, 0.4), [0.0, 7.0], "8 cells of width 0.4, from -1.4 to 1.4; of codes 0 to 7 pass .code - 3.5"),
    (Quantised(3, 0.4), [0.2, 1.8], "y is 1.8 at index .*6 values"),
    (Quantised(1, 1.0), [0.0, 1.0], "2 cells"),
    (Poisson(), [3.0, -1.0], "y is -1.*whole numbers"),
    (Poisson(), [0.5, 2.0], "whole numbers"),
)


def test_every_likelihood_with_an_alphabet_has_foreign_values():
    refusing = {type(likelihood) for likelihood, *_ in FOREIGN}
    assert refusing == set(REGISTRY.values()) - {GaussianNoise}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, Quantised(16, 1e-3), Quantised(20, 0.1)], ids=str)
def test_what_a_likelihood_draws_is_of_its_alphabet(likelihood, dtype, generator):
    if isinstance(likelihood, Poisson) and dtype.is_complex:
        with pytest.raises(ValueError, match="real"):
            likelihood.check(torch.ones(2, dtype=dtype))
        return
    z = 3 * torch.randn(200, generator=generator, dtype=dtype)
    likelihood.check(likelihood.sample(z, generator, 0.3))


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(("likelihood", "values", "message"), FOREIGN, ids=str)
def test_foreign_values_are_refused_with_the_values_there_are_before_the_first_step(
    likelihood, values, message, is_complex
):
    if isinstance(likelihood, Poisson) and is_complex:
        pytest.skip("counts are real")
    y = torch.tensor(values).repeat(3, 2)
    y = torch.complex(torch.full_like(y, values[0]), y) if is_complex else y
    A = Dense(torch.ones(4, 5, dtype=y.dtype))
    observation = Observation(y, A, torch.tensor(0.1))
    with pytest.raises(ValueError, match="cannot be" if is_complex else message):
        iterate(GAMP(likelihood=likelihood), 3)(observation)
    with pytest.raises(ValueError, match="cannot be" if is_complex else message):
        unfold(GAMP(likelihood=likelihood), observation, layers=2)(observation)
