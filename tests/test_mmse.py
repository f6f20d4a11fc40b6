"""The minimum mean squared error of one unknown against other quadratures, for rare spikes as for common ones."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from fanfold.bounds import bayes_limit, mmse
from fanfold.bounds.gamp_evolution import gamp
from fanfold.bounds.state_evolution import amp, oamp_evolution, soft_risk, vamp
from fanfold.likelihoods import GaussianNoise
from fanfold.priors import (
    BernoulliGaussian,
    Constellation,
    Gaussian,
    GaussianField,
    GaussianMixture,
    SupportChain,
    Uniform,
)
from fanfold.problems import Clustered, CompressedSensing, GeneralizedLinear
from test_prior_limits import PRIORS, REAL

NOISES = (1e-6, 1e-4, 1e-3, 1e-2, 1.0, 10.0)


def integral(f, edges) -> float:
    return sum(quad(f, a, b, epsrel=1e-9, epsabs=0, limit=200)[0] for a, b in itertools.pairwise(edges))


def of_spikes(p: float, v: float, is_complex: bool) -> float:
    """The MMSE of a Bernoulli-Gaussian from the textbook's posterior, `var = 1`, in numpy."""
    degrees = 1 if is_complex else 2

    def integrand(r):
        one, zero = (
            w * np.exp(-(r**2) / (degrees * s)) / (np.pi * degrees * s) ** (1 / degrees)
            for w, s in ((p, 1 + v), (1 - p, v))
        )
        total = one + zero
        if total == 0:
            return 0.0
        pi = one / total
        var = pi * (v / (1 + v) + (1 - pi) * (r / (1 + v)) ** 2)
        return total * var * (2 * np.pi * r if is_complex else 2)

    s = np.sqrt(v)
    return integral(
        integrand, sorted([*s * np.arange(0, 12), 15 * s, 40 * s, *np.sqrt(1 + v) * np.array([0.3, 1, 3, 6, 10, 30])])
    )


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("v", NOISES)
@pytest.mark.parametrize("p", [1e-4, 1e-3, 0.015, 0.02, 0.1, 0.5])
def test_mmse_of_spikes_is_the_textbooks_integral_however_rare(p, v, is_complex):
    assert mmse(BernoulliGaussian(p), v, is_complex=is_complex) == pytest.approx(of_spikes(p, v, is_complex), rel=1e-7)
    # in other units
    assert mmse(BernoulliGaussian(p, 1e-12), 1e-12 * v, is_complex=is_complex) == pytest.approx(
        1e-12 * of_spikes(p, v, is_complex), rel=1e-7
    )


@pytest.mark.parametrize("v", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_mmse_of_every_prior_is_the_integral(prior, v, is_complex):
    if is_complex and prior in REAL:
        with pytest.raises(ValueError, match=r"real|zero means"):
            mmse(prior, v, is_complex=True)
        return
    circular = is_complex and prior.circular
    dtype = torch.complex128 if circular else torch.float64

    centres = [c + math.hypot(s, math.sqrt(v)) * k for c, s in prior.landmarks for k in np.linspace(-20, 20, 41)]
    if isinstance(prior, Constellation):  # where a decision is in doubt, however improbable, is all of the error
        levels = [c for c, _ in prior.landmarks]
        centres += [(a + b) / 2 + k * v for a, b in itertools.pairwise(levels) for k in (-400, -40, 0, 40, 400)]
    edges = np.array(sorted({c for c in centres if c > 0} | {0.0} if circular else set(centres)))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = np.diff(edges)[:, None] / 2
    r = torch.from_numpy(edges[:-1, None] + half * (nodes + 1))
    density = prior.log_evidence(r.to(dtype), v).exp() * prior.posterior_var(r.to(dtype), v)
    wanted = (density * (2 * math.pi * r if circular else 1)).numpy() @ weights @ half[:, 0]
    # an error below 1e-280 is none
    assert mmse(prior, v, is_complex=is_complex) == pytest.approx(wanted, rel=1e-6, abs=1e-280)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_mmse_has_its_limits(prior):
    assert mmse(prior, 0.0) == 0
    # per unit of noise an atom costs nothing and a density one
    dimension = prior.p if isinstance(prior, BernoulliGaussian) else 0.0 if isinstance(prior, Constellation) else 1.0
    for v in (1e-300, 1e-60 * prior.power, 1e-30 * prior.power):
        assert mmse(prior, v) / v == pytest.approx(dimension, rel=1e-8)
    x = prior.sample((100_000,), torch.Generator().manual_seed(0), torch.float64)
    square = (x - x.mean()).square()
    assert mmse(prior, math.inf) == mmse(prior, 1e300)
    assert abs(mmse(prior, math.inf) - square.mean().item()) <= 5 * square.std().item() / 1e5**0.5 + 1e-4 * prior.power
    errors = [mmse(prior, v * prior.power) for v in (1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e9)]
    assert errors == sorted(errors)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("p", [1e-3, 0.1])
def test_the_risk_of_a_threshold_is_what_draws_say(p, is_complex):
    prior, v, t = BernoulliGaussian(p), 1e-3, 0.05
    draws, dtype = 400_000, torch.complex128 if is_complex else torch.float64
    generator = torch.Generator().manual_seed(0)
    x = prior.sample((draws,), generator, dtype)
    r = x + torch.randn(draws, generator=generator, dtype=dtype) * v**0.5
    error = (r * (1 - t / r.abs()).clamp_min(0) - x).abs().square()
    assert abs(error.mean() - soft_risk(prior, v, t, is_complex=is_complex)) < 5 * error.std() / draws**0.5


def test_what_has_no_mmse_is_refused():
    for v in (-1e-3, math.nan):
        with pytest.raises(ValueError, match="not negative"):
            mmse(Gaussian(), v)
    chain = SupportChain(torch.full((5,), 0.1), torch.ones(5))
    for prior in (chain, GaussianField(torch.zeros(5), torch.eye(5))):
        with pytest.raises(ValueError, match="depend on each other"):
            mmse(prior, 0.1)


class Hidden(GaussianMixture):
    """A guest's prior that does not say where it lies."""

    landmarks = ((0.0, 1e-3),)


def test_a_part_that_is_missed_is_named():
    with pytest.raises(ValueError, match="landmarks"):
        mmse(Hidden((1.0, 1.0), (0.0, 50.0), (1e-6, 1e-6)), 1e-8)


@pytest.mark.parametrize("prior", [Constellation("qpsk"), BernoulliGaussian(1e-3), Uniform()], ids=str)
def test_evolutions_end_where_the_noise_takes_them_and_divide_by_nothing(prior):
    s = torch.linspace(0.5, 1.5, 50, dtype=torch.float64)
    for noise_var in (1e-30, 1e-12):
        for errors in (
            amp(prior, 4.0, noise_var, 60),
            vamp(prior, s, 50, noise_var, 60),
            oamp_evolution(prior, s, 50, noise_var, 60),
            gamp(prior, GaussianNoise(), 4.0, noise_var, 60),
        ):
            assert all(math.isfinite(e) and e >= 0 for e in errors)
            assert errors[-1] <= 20 * noise_var
    assert gamp(prior, GaussianNoise(), 4.0, 0.0, 60)[-1] < 1e-20 * prior.power


def test_limits_of_rare_spikes_are_fixed_points():
    """The error of the textbook's integral at the noise it makes itself."""
    for p in (0.002, 0.02):
        problem = CompressedSensing(n=500, m=250, sparsity=p, snr_db=30.0)
        error = bayes_limit(problem) * p
        tau2 = problem.noise_var + error * problem.n / problem.m
        assert error == pytest.approx(of_spikes(p, tau2, False), rel=1e-5)
    assert bayes_limit(GeneralizedLinear(n=200, m=800, sparsity=0.01)) > 0
    assert bayes_limit(Clustered(n=60, m=30)) is None
