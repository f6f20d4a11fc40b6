"""Posteriors by Tweedie's formula, by Monte Carlo and by brute-force integration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fanfold.bounds import mmse
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors import BernoulliGaussian, Constellation, Gaussian, GaussianMixture, Laplace

PRIORS = (
    Gaussian(0.7),
    BernoulliGaussian(0.2, 1.5),
    GaussianMixture((0.7, 0.3), (0, 0), (0.05, 2.0)),
    Laplace(1.3),
    Constellation("qpsk"),
    Constellation("256-qam"),
)
LOG_CONCAVE = (Gaussian(0.7), Laplace(1.3))
VARIANCES = (1e-4, 1e-2, 1.0, 10.0)
PRECISE = (torch.float64, torch.complex128)
EPS = torch.finfo(torch.float64).eps

each_prior = pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
each_circular = pytest.mark.parametrize(
    "prior", [prior for prior in PRIORS if prior.circular], ids=lambda prior: type(prior).__name__
)
each_log_concave = pytest.mark.parametrize("prior", LOG_CONCAVE, ids=lambda prior: type(prior).__name__)
each_variance = pytest.mark.parametrize("v", VARIANCES)
each_dtype = pytest.mark.parametrize("dtype", PRECISE, ids=str)


def skip_certain(prior, v: float) -> None:
    """Where no draw is ever taken for another point the errors are rounding, which obeys no law of the mean."""
    if isinstance(prior, Constellation) and prior.levels(torch.ones(1)).diff()[0] / 2 > 5 * v**0.5:
        pytest.skip("every point is certain")


def received(prior, v: float, dtype: torch.dtype, draws: int, generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = prior.sample((draws,), generator, dtype)
    return x, x + circular((draws,), generator, dtype, v)


@each_dtype
@each_variance
@each_prior
def test_posterior_mean_is_tweedies(prior, v, dtype, generator):
    """`r + v ∇ log p(r)`; complex: the gradient is `(∂/∂Re + i ∂/∂Im) / 2`, half of what autograd gives."""
    _, r = received(prior, v, dtype, 200, generator)
    r.requires_grad_()
    (slope,) = torch.autograd.grad(prior.log_evidence(r, v).sum(), r)
    tweedie = (r + v * slope / (2 if dtype.is_complex else 1)).detach()
    # log p is of order r²/v, and v times its derivative rounds as r does, times the 160 terms of a quadrature
    assert torch.allclose(prior.posterior_mean(r.detach(), v), tweedie, rtol=1e-9, atol=1e-10 * v**0.5)


@each_dtype
@each_variance
@each_prior
def test_posterior_var_is_the_slope_of_the_posterior_mean(prior, v, dtype, generator):
    _, r = received(prior, v, dtype, 200, generator)
    r.requires_grad_()
    mean = prior.posterior_mean(r, v)
    if dtype.is_complex:  # Wirtinger: (∂/∂Re r - i ∂/∂Im r) / 2; entries do not mix
        (by_real,) = torch.autograd.grad(mean.real.sum(), r, retain_graph=True)
        (by_imag,) = torch.autograd.grad(mean.imag.sum(), r)
        slope = torch.complex(by_real.real + by_imag.imag, by_imag.real - by_real.imag) / 2
        assert slope.imag.abs().max() <= 1e-9 * slope.real.abs().max()  # the mean is a gradient: no curl
        slope = slope.real
    else:
        (slope,) = torch.autograd.grad(mean.sum(), r)
    # a variance as E|x|² - |E x|² loses |r|² / v of its digits: at most 1e6 eps here
    torch.testing.assert_close(prior.posterior_var(r.detach(), v), v * slope, rtol=1e-7, atol=1e-10 * v)


@each_dtype
@each_variance
@each_prior
def test_expected_error_is_the_posterior_variance_and_the_mmse(prior, v, dtype, generator):
    skip_certain(prior, v)
    draws = 10_000
    x, r = received(prior, v, dtype, draws, generator)
    error, var = power(x - prior.posterior_mean(r, v)), prior.posterior_var(r, v)
    gap = error - var
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5
    limit = mmse(prior, v, is_complex=dtype.is_complex)
    # the quadrature's own error is far below the 1% of 10 000 draws
    assert abs(error.mean() - limit) < 5 * error.std() / draws**0.5
    assert abs(var.mean() - limit) <= 5 * var.std() / draws**0.5 + 1e-6 * limit


@each_dtype
@each_variance
@each_prior
def test_error_of_the_posterior_mean_is_orthogonal_to_every_function_of_the_data(prior, v, dtype, generator):
    """So no other estimator has a lower mean squared error, near or far."""
    skip_certain(prior, v)
    draws = 10_000
    x, r = received(prior, v, dtype, draws, generator)
    x_hat = prior.posterior_mean(r, v)
    for other in (x_hat, r, r * (r.abs() > 3 * v**0.5), r / (r.abs() + v**0.5)):
        product = ((x - x_hat).conj() * other).real
        assert abs(product.mean()) < 5 * product.std() / draws**0.5


@each_dtype
@each_variance
@each_prior
def test_neighbours_of_the_posterior_mean_are_worse(prior, v, dtype, generator):
    x, r = received(prior, v, dtype, 10_000, generator)
    x_hat = prior.posterior_mean(r, v)
    best = power(x - x_hat)
    step = 0.3 * v**0.5
    for other in (x_hat + step, x_hat - step, x_hat * 1.3, x_hat * 0.7, r * 0.999 + 3 * step):
        gain = power(x - other) - best
        assert gain.mean() > -5 * gain.std() / len(x) ** 0.5
        if (other - x_hat).abs().square().mean() > 0.05 * v:  # the loss is E|other - x_hat|²: then it must show
            assert gain.mean() > 0


@each_variance
@each_prior
def test_real_evidence_integrates_to_one(prior, v):
    u = torch.linspace(-18, 18, 40_001, dtype=torch.float64)  # finest at zero, where the density may peak
    r = 1e-4 * torch.sinh(u)
    total = torch.trapezoid(prior.log_evidence(r, v).exp() * 1e-4 * torch.cosh(u), u)
    assert abs(total.item() - 1) < 1e-9  # the rule converges exponentially for a smooth density that dies out


@each_variance
@each_circular
def test_complex_evidence_integrates_to_one(prior, v):
    u = torch.linspace(0, 18, 20_001, dtype=torch.float64)
    radius = 1e-4 * torch.sinh(u)
    density = prior.log_evidence(radius.to(torch.complex128), v).exp()
    total = torch.trapezoid(density * 2 * math.pi * radius * 1e-4 * torch.cosh(u), u)
    # odd in u at zero, so the rule's end correction is of second order: (du)² = 1e-6 times the integrand's slope there
    assert abs(total.item() - 1) < 1e-7


@each_circular
def test_complex_evidence_is_circular(prior, generator):
    r = torch.randn(50, generator=generator, dtype=torch.complex128)
    turn = torch.polar(torch.tensor(1.0, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64))
    assert torch.allclose(prior.log_evidence(r * turn, 0.1), prior.log_evidence(r, 0.1))
    assert torch.allclose(prior.posterior_mean(r * turn, 0.1), prior.posterior_mean(r, 0.1) * turn)
    assert torch.allclose(prior.posterior_var(r * turn, 0.1), prior.posterior_var(r, 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, *PRECISE, torch.complex64], ids=str)
@each_prior
def test_samples_have_the_power_of_the_prior(prior, dtype, generator):
    draws = 50_000
    x = prior.sample((draws,), generator, dtype)
    assert x.dtype == dtype
    square = power(x).double()
    rounding = 4 * torch.finfo(dtype).eps  # all that is left where every |x| is the same
    assert abs(square.mean() - prior.power) < 5 * square.std() / draws**0.5 + rounding
    assert abs(x.mean()) < 5 * (prior.power / draws) ** 0.5


@each_dtype
@each_log_concave
def test_samples_are_as_surprising_as_the_density_says(prior, dtype, generator):
    """`-E log p(x)` of draws is the entropy `-∫ p log p`."""
    radius = torch.linspace(0, 40, 400_001, dtype=torch.float64)
    log_p = prior.log_prob(radius.to(dtype))
    measure = 2 * math.pi * radius if dtype.is_complex else torch.full_like(radius, 2.0)
    assert abs(torch.trapezoid(log_p.exp() * measure, radius).item() - 1) < 1e-7  # step² = 1e-8
    entropy = -torch.trapezoid(log_p.exp() * log_p * measure, radius)
    draws = 50_000
    surprise = -prior.log_prob(prior.sample((draws,), generator, dtype))
    assert abs(surprise.mean() - entropy) < 5 * surprise.std() / draws**0.5 + 1e-6


@each_dtype
def test_bernoulli_gaussian_has_an_atom_at_zero(dtype, generator):
    prior, draws = BernoulliGaussian(0.2, 1.5), 50_000
    x = prior.sample((draws,), generator, dtype)
    zeros = (x == 0).double().mean().item()
    assert abs(zeros - 0.8) < 5 * (0.8 * 0.2 / draws) ** 0.5
    assert prior.log_prob(torch.zeros(1, dtype=dtype)).exp().item() == pytest.approx(0.8)
    away = torch.ones(1, dtype=dtype)
    gap = prior.log_prob(away) - Gaussian(1.5).log_prob(away)
    assert gap.exp().item() == pytest.approx(0.2)


@each_dtype
@each_variance
def test_activity_is_calibrated(v, dtype, generator):
    """Of the entries said to be active with probability pi, the share pi is."""
    prior, draws = BernoulliGaussian(0.2, 1.5), 20_000
    x, r = received(prior, v, dtype, draws, generator)
    gap = (x != 0).double() - prior.activity(r, v)
    assert abs(gap.mean()) < 5 * gap.std() / draws**0.5
    assert abs((gap * r.abs()).mean()) < 5 * (gap * r.abs()).std() / draws**0.5


@pytest.mark.parametrize("v", [1e-2, 1.0, 10.0])
@pytest.mark.parametrize("r", [0.0, 0.03, -0.4, 1.7, 6.0])
def test_real_laplace_posterior_is_the_brute_force_integral(r, v):
    prior = Laplace(1.3)
    reach = 12 * v**0.5
    halves = [np.linspace(0, abs(r) + reach, 200_001), np.linspace(-abs(r) - reach, 0, 200_001)]  # a kink at zero
    moments = np.zeros(3)
    for x in halves:
        density = np.exp(-abs(x) * math.sqrt(2 / 1.3) - (r - x) ** 2 / (2 * v))
        moments += [np.trapezoid(density * x**k, x) for k in range(3)]
    mean = moments[1] / moments[0]
    point = torch.tensor([r], dtype=torch.float64)
    # step² times a curvature of 1/v of each half: (1e-4)² or less
    assert prior.posterior_mean(point, v).item() == pytest.approx(mean, abs=1e-8 * (1 + abs(r)))
    assert prior.posterior_var(point, v).item() == pytest.approx(moments[2] / moments[0] - mean**2, rel=1e-7)
    evidence = moments[0] / math.sqrt(2 * math.pi * v) * math.sqrt(2 / 1.3) / 2
    assert prior.log_evidence(point, v).item() == pytest.approx(math.log(evidence), abs=1e-7)


@pytest.mark.parametrize("v", [1e-2, 1.0, 10.0])
@pytest.mark.parametrize("r", [0.0, 0.03j, -0.4 + 0.1j, 1.7, 3 - 4j])
def test_complex_laplace_posterior_is_the_brute_force_integral(r, v):
    """Over magnitude (Gauss-Legendre) and phase (equal steps: exponentially accurate for a period)."""
    prior, rate = Laplace(1.3), math.sqrt(6 / 1.3)
    low, high = max(0, abs(r) - 9 * v**0.5 - rate * v), abs(r) + 9 * v**0.5
    nodes, weights = np.polynomial.legendre.leggauss(120)
    rho = (low + (high - low) * (nodes + 1) / 2)[:, None]
    x = rho * np.exp(1j * np.linspace(0, 2 * np.pi, 600, endpoint=False))
    density = weights[:, None] * rho * np.exp(-rate * rho - abs(x - r) ** 2 / v)
    mass = density.sum()
    mean = (density * x).sum() / mass
    second = (density * abs(x) ** 2).sum() / mass
    point = torch.tensor([r], dtype=torch.complex128)
    assert abs(prior.posterior_mean(point, v).item() - mean) < 1e-9 * (1 + abs(r))
    # E|x|² - |E x|² loses |r|² / v = 2500 of its digits
    assert prior.posterior_var(point, v).item() == pytest.approx(second - abs(mean) ** 2, rel=1e-8)
    evidence = mass * (high - low) / 2 * 2 * math.pi / 600 / (math.pi * v) * rate**2 / (2 * math.pi)
    assert prior.log_evidence(point, v).item() == pytest.approx(math.log(evidence), abs=1e-9)


@given(st.floats(-5, 5), st.floats(1e-3, 10))
def test_gaussian_posterior_is_the_textbooks(r, v):
    prior, point = Gaussian(2.0), torch.tensor([r], dtype=torch.float64)
    assert prior.posterior_mean(point, v).item() == pytest.approx(2 * r / (2 + v), rel=8 * EPS)
    assert prior.posterior_var(point, v).item() == pytest.approx(1 / (1 / 2 + 1 / v), rel=8 * EPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("v", [1e-12, 1e-8, 1e-4, 1.0, 1e6])
@each_prior
def test_posterior_is_sane_at_the_extremes(prior, v, dtype):
    """Finite; the mean of a symmetric unimodal prior lies between zero and the data; a variance is not negative."""
    r = torch.tensor([0, 1e-3, 1, -100, 1e6], dtype=dtype)
    mean, var = prior.posterior_mean(r, v), prior.posterior_var(r, v)
    assert torch.isfinite(prior.log_evidence(r, v)).all()
    assert mean.dtype == dtype
    assert var.dtype == torch.float32
    slack = 1 + 8 * torch.finfo(torch.float32).eps
    if not isinstance(prior, Constellation):  # which has no point at zero to be drawn to
        assert (mean.abs() <= r.abs() * slack).all()
    assert (var >= 0).all()
    assert torch.isfinite(var).all()
    if prior in LOG_CONCAVE:  # data can only narrow a log-concave posterior (Brascamp & Lieb)
        assert (var <= v * slack).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("v", [1e-8, 1e-4, 1.0, 1e6])
@each_prior
def test_gradients_are_finite_at_the_extremes(prior, v, dtype):
    r = torch.tensor([0, 1e-3, 1, -100, 1e6], dtype=dtype, requires_grad=True)
    level = torch.tensor(v, requires_grad=True)
    power(prior.posterior_mean(r, level) / 1e3).sum().backward()
    assert torch.isfinite(torch.view_as_real(r.grad) if dtype.is_complex else r.grad).all()
    assert torch.isfinite(level.grad)


@each_dtype
@each_prior
def test_useless_data_leave_the_prior(prior, dtype):
    """As v grows, mean -> r power / v and variance -> power, both up to a few power / v."""
    v, r = 1e5, torch.tensor([0, 1, -3], dtype=dtype)
    close = 10 * prior.power / v  # the next term of the series, times a kurtosis of at most 10
    assert torch.allclose(prior.posterior_var(r, v), torch.full((3,), prior.power).double(), rtol=close, atol=0)
    # atol: at r = 0 opposite points cancel to rounding
    assert torch.allclose(prior.posterior_mean(r, v), r * prior.power / v, rtol=close, atol=EPS)


@pytest.mark.parametrize("dtype", [torch.float32, *PRECISE, torch.complex64], ids=str)
@each_prior
def test_variances_broadcast(prior, dtype, generator):
    r = torch.randn(3, 5, generator=generator, dtype=dtype)
    v = torch.tensor([[1e-3], [0.1], [2.0]], dtype=dtype.to_real())
    for function in (prior.log_evidence, prior.posterior_mean, prior.posterior_var):
        whole = function(r, v)
        assert whole.shape == (3, 5)
        assert whole.dtype == (dtype if function == prior.posterior_mean else dtype.to_real())
        for row in range(3):
            torch.testing.assert_close(whole[row], function(r[row], v[row].item()))


# Gaussian mixtures

LOPSIDED = GaussianMixture((3.0, 5.0, 2.0), (-1.0, 0.2, 2.5), (0.3, 0.01, 1.0))
LAWS_OF_ANY_PRIOR = (
    test_posterior_mean_is_tweedies,
    test_posterior_var_is_the_slope_of_the_posterior_mean,
    test_expected_error_is_the_posterior_variance_and_the_mmse,
    test_error_of_the_posterior_mean_is_orthogonal_to_every_function_of_the_data,
    test_neighbours_of_the_posterior_mean_are_worse,
)


@each_variance
@pytest.mark.parametrize("law", LAWS_OF_ANY_PRIOR)
def test_a_mixture_of_other_means_obeys_the_same_laws(law, v, generator):
    law(LOPSIDED, v, torch.float64, generator)


@each_variance
def test_evidence_of_a_mixture_of_other_means_integrates_to_one(v):
    test_real_evidence_integrates_to_one(LOPSIDED, v)


def test_a_mixture_of_other_means_has_its_moments(generator):
    draws = 50_000
    x = LOPSIDED.sample((draws,), generator, torch.float64)
    assert abs(x.mean() - (-3 + 1 + 5) / 10) < 5 * x.std() / draws**0.5
    assert abs(power(x).mean() - LOPSIDED.power) < 5 * power(x).std() / draws**0.5
    assert not LOPSIDED.symmetric
    assert GaussianMixture((1, 2, 1), (-1, 0, 1), (0.1, 1, 0.1)).symmetric


@each_dtype
@each_variance
def test_a_mixture_with_a_sharp_component_is_bernoulli_gaussian(v, dtype, generator):
    sparse = BernoulliGaussian(0.2, 1.5)
    mixture = GaussianMixture((0.8, 0.2), (0, 0), (1e-12, 1.5))
    _, r = received(sparse, v, dtype, 200, generator)
    # of what is nearly zero the mean is r, at most 5 sqrt(v), times the sharp component's gain 1e-12 / v; elsewhere
    # that gain changes the exponent by |r|² / v < 100 times as much
    for ours, theirs in zip(mixture.posterior(r, v), sparse.posterior(r, v), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-12 / v**0.5)


@each_dtype
def test_refit_finds_the_mixture_of_a_long_sample(dtype, generator):
    """Expectation maximisation from wrong settings, on 40 000 entries, with hardly any trust in the wrong ones."""
    true = GaussianMixture((0.7, 0.3), (0, 0), (0.05, 2.0)) if dtype.is_complex else LOPSIDED
    wrong = GaussianMixture((1.0,) * len(true.weights), true.means, (0.5,) * len(true.weights))
    if dtype.is_complex:
        wrong = GaussianMixture((1.0, 1.0), (0, 0), (0.3, 1.0))
    v = torch.tensor([0.02], dtype=torch.float64)
    _, r = received(true, 0.02, dtype, 40_000, generator)
    given = wrong
    likelihoods = []
    for _ in range(300):
        given = SimpleNamespace(**wrong.refit(r, v, given, wrong, 1e-9))
        log_parts, _ = wrong._log_parts(r, v, given)
        likelihoods.append(log_parts.logsumexp(-1).mean().item())
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(likelihoods))  # it never falls; trust is 1e-9
    assert likelihoods[-1] >= true.log_evidence(r, v).mean().item() - 1e-6  # and passes that of the truth
    shares = torch.tensor(true.weights, dtype=torch.float64) / sum(true.weights)
    # 5 standard errors of a share, doubled as components overlap
    assert (given.weights - shares).abs().max() < 10 * (0.25 / 40_000) ** 0.5


@pytest.mark.parametrize("law", [test_posterior_is_sane_at_the_extremes, test_gradients_are_finite_at_the_extremes])
def test_complex_signals_take_zero_means(law):
    with pytest.raises(ValueError, match="zero means"):
        law(LOPSIDED, 1.0, torch.complex64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((1.0,), (0.0, 1.0), (1.0,)), "as many of each"),
        (((), (), ()), "as many of each"),
        (((1.0, 0.0), (0.0, 0.0), (1.0, 1.0)), "weights"),
        (((1.0, 1.0), (0.0, 0.0), (1.0, -1.0)), "variances"),
    ],
)
def test_what_is_no_mixture_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*settings)
