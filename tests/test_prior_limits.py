"""Every prior says what is right, with finite gradients, at vanishing and huge variances and for tiny and huge r."""

import math

import mpmath as mp
import pytest
import torch

from fanfold.priors import (
    REGISTRY,
    BernoulliGaussian,
    Constellation,
    Gaussian,
    GaussianField,
    GaussianMixture,
    Laplace,
    SupportChain,
    Uniform,
)
from prior_references import chain, posterior

PRIORS = (
    Gaussian(0.7),
    BernoulliGaussian(0.2, 1.5),
    BernoulliGaussian(1e-4, 1e-12),
    GaussianMixture((0.7, 0.3), (0, 0), (0.05, 2.0)),
    GaussianMixture((3.0, 5.0, 2.0), (-1.0, 0.2, 2.5), (0.3, 0.01, 1.0)),
    GaussianMixture((1.0, 1.0), (-1.0, 1.0), (0.1, 0.1)),
    Laplace(1.3),
    Constellation("qpsk"),
    Constellation("64-qam"),
    Uniform(-1.0, 1.0),
    Uniform(2.0, 5.0),
)
REAL = [
    prior for prior in PRIORS if isinstance(prior, Uniform) or (isinstance(prior, GaussianMixture) and any(prior.means))
]
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
VARIANCES = (0.0, 1e-300, 1e-30, 1e-8, 0.03, 1e8)
SIZES = (0.0, 1e-20, 1.1, 1e30)

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_variance = pytest.mark.parametrize("v", VARIANCES)


def test_every_prior_has_a_row():
    assert {type(prior) for prior in PRIORS} == set(REGISTRY.values())


def points(v: float, dtype: torch.dtype) -> torch.Tensor:
    turn = complex(0.6, 0.8) if dtype.is_complex else 1.0
    return torch.tensor([s * turn for s in (*SIZES, -2.5 * math.sqrt(v), 7 * math.sqrt(v))], dtype=dtype)


def exact(a):
    return mp.mpc(a.real, a.imag) if isinstance(a, complex) else mp.mpf(a)


def agrees(prior, r, v, mean, var, wanted, exponent=100) -> None:
    """Means up to rounding of what they are made of, variances up to that of an exponent, 20 times over.

    A variance below the least number whose reciprocal has finite gradients counts as that number.
    """
    eps = torch.finfo(mean.dtype).eps
    least = 1e-15 if eps > 1e-10 else 1e-70
    x, spread = wanted
    away = math.sqrt(prior.power) if isinstance(prior, Constellation) else min(math.sqrt(prior.power), math.sqrt(v))
    assert abs(exact(mean.item()) - x) <= 200 * eps * (abs(x) + away + least), (prior, r, v, mean.item(), mp.nstr(x, 8))
    assert abs(var.item() - spread) <= 20 * exponent * eps * spread + 4 * least**2, (
        prior,
        r,
        v,
        var.item(),
        mp.nstr(spread, 8),
    )


@each_dtype
@each_variance
@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_posterior_is_right_at_every_scale(prior, v, dtype):
    if dtype.is_complex and prior in REAL:
        with pytest.raises(ValueError, match=r"real|zero means"):
            prior.posterior(torch.ones(1, dtype=dtype), v)
        return
    seen = torch.tensor(v, dtype=dtype.to_real())
    r, levels = points(v, dtype), []
    if isinstance(prior, Constellation):
        levels = prior.levels(r).tolist()
        r = torch.cat([r, prior.sample((2,), torch.Generator().manual_seed(0), dtype) + math.sqrt(v)])
    mean, var = prior.posterior(r, seen)
    assert mean.dtype == dtype
    assert var.dtype == dtype.to_real()
    if isinstance(prior, Laplace) and dtype == torch.complex64:  # what double precision says, which is a row of its own
        for half, full in zip((mean, var), prior.posterior(r.to(torch.complex128), seen.double()), strict=True):
            torch.testing.assert_close(half, full.to(half.dtype), rtol=1e-6, atol=0)
        return
    every = 2 if isinstance(prior, Laplace) and dtype.is_complex else 1  # whose integrals take a second each
    for a, m, s in list(zip(r, mean, var, strict=True))[::every]:
        wanted = posterior(prior, exact(a.item()), mp.mpf(seen.item()), dtype.is_complex, levels)
        agrees(prior, a.item(), seen.item(), m, s, wanted)


def skip_refused(prior, dtype) -> None:
    if dtype.is_complex and prior in REAL:
        pytest.skip("real signals only")


DEPENDENT = (
    SupportChain(torch.tensor([0.3, 0.2, 0.2, 0.1]), torch.tensor([1.0, 0.5, 2.0, 1.0]), 0.7),
    GaussianField(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64) + 0.5),
)


@each_dtype
@pytest.mark.parametrize("prior", [*PRIORS, *DEPENDENT], ids=lambda prior: type(prior).__name__)
def test_gradients_are_finite_at_every_scale(prior, dtype):
    skip_refused(prior, dtype)
    for v in (*VARIANCES, 1e-38, 1e-320):
        for r in (points(v, dtype)[:4], points(v, dtype)[2:]):
            r, level = r.clone().requires_grad_(), torch.tensor(v, dtype=dtype.to_real(), requires_grad=True)
            mean, var = prior.posterior(r, level)
            for value in (mean.real / 1e30, mean.imag / 1e30 if dtype.is_complex else var, var):
                slopes = torch.autograd.grad(value.sum(), (r, level), retain_graph=True, allow_unused=True)
                assert all(s is None or torch.isfinite(s).all() for s in slopes), v


@pytest.mark.parametrize("prior", PRIORS, ids=str)
@pytest.mark.parametrize("v", [1e-30, 1e-12, 1e-4])
def test_slopes_stay_those_of_the_posterior_as_the_variance_vanishes(prior, v):
    """The derivative of the mean is the variance over v: one between atoms and edges, zero on atoms."""
    r = torch.tensor([0.3, 0.9, -0.55, 2.7, 3e-7], dtype=torch.float64, requires_grad=True)
    mean, var = prior.posterior(r, v)
    (slope,) = torch.autograd.grad(mean.sum(), r)
    torch.testing.assert_close(slope, var.detach() / v, rtol=1e-8, atol=1e-8)
    assert ((slope >= 0) & torch.isfinite(slope)).all()


@each_dtype
@each_variance
def test_a_chain_is_right_at_every_scale(v, dtype):
    prior = DEPENDENT[0]
    seen, r = torch.tensor(v, dtype=dtype.to_real()), points(v, dtype)[:4]
    mean, var = prior.posterior(r, seen)
    with mp.workdps(60):
        wanted = chain(prior, [exact(a) for a in r.tolist()], mp.mpf(seen.item()), dtype.is_complex)
    for a, m, s, w in zip(r.tolist(), mean, var, wanted, strict=True):
        agrees(prior, a, seen.item(), m, s, w, exponent=1e4)  # its neighbours are certain by as much


@each_dtype
@each_variance
def test_a_field_is_right_at_every_scale(v, dtype):
    prior, seen = DEPENDENT[1], torch.tensor(v, dtype=dtype.to_real())
    r = points(v, dtype)[:3].repeat(2)[:4]
    mean, var = prior.posterior(r, seen)
    assert mean.dtype == dtype
    covariance = mp.matrix([[1.5 if i == j else 0.5 for j in range(4)] for i in range(4)])
    with mp.workdps(60):
        noise = mp.mpf(seen.item())
        gain = covariance * mp.inverse(covariance + noise * mp.eye(4))
        x = gain * mp.matrix([exact(a) for a in r.tolist()])
    eps = torch.finfo(dtype).eps
    for i in range(4):
        assert abs(exact(mean[i].item()) - x[i]) <= 50 * eps * max(abs(a) for a in x)
        assert abs(var[i].item() - gain[i, i] * noise) <= 50 * eps * gain[i, i] * noise


@each_dtype
@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_without_noise_the_evidence_is_the_prior(prior, dtype):
    skip_refused(prior, dtype)
    x = torch.cat([prior.sample((5,), torch.Generator().manual_seed(0), dtype), torch.tensor([0, 0.3], dtype=dtype)])
    torch.testing.assert_close(prior.log_evidence(x, 0.0), prior.log_prob(x))
    for v in (1e-30, 1e8):
        assert not prior.log_evidence(points(v, dtype), v).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("prior", [*PRIORS, *DEPENDENT], ids=lambda prior: type(prior).__name__)
def test_half_precision_is_single_precision_rounded(prior, dtype):
    r = torch.tensor([0.0, 0.3, -1.5, 2.75], dtype=dtype)
    for v in (0.0, 1e-8, 0.25, torch.tensor(4.0, dtype=dtype)):
        wide = v.float() if isinstance(v, torch.Tensor) else v
        for ours, theirs in zip(prior.posterior(r, v), prior.posterior(r.float(), wide), strict=True):
            assert ours.dtype == dtype
            assert torch.equal(ours, theirs.to(dtype))
