"""LMMSE is the posterior mean of a Gaussian problem, and the best affine map of any other."""

import numpy as np
import pytest
import torch

from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.estimators import LMMSE
from fanfold.linops import DCT, Dense
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing, Pairs

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
M, N, NOISE_VAR = 5, 8, 0.05

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_precise = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def randn(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A mean, a factor of a covariance, and a matrix."""
    return randn(N, dtype=dtype, seed=1), randn(N, N, dtype=dtype, seed=2) / N**0.5, randn(M, N, dtype=dtype, seed=3)


def sampled(dtype: torch.dtype, draws: int, generator) -> tuple[torch.Tensor, Observation, LMMSE]:
    mean, root, matrix = gaussian(dtype)
    x = mean + circular((draws, N), generator, dtype) @ root.mT
    A = Dense(matrix)
    y = A @ x + circular((draws, M), generator, dtype, NOISE_VAR)
    return x, Observation(y, A, NOISE_VAR), LMMSE(mean, root @ root.mH)


@each_dtype
def test_lmmse_is_the_posterior_mean_of_a_gaussian(dtype, generator):
    """By the block inverse of the joint covariance of (x, y): information form, not the gain's."""
    mean, root, matrix = gaussian(dtype)
    _, obs, lmmse = sampled(dtype, 6, generator)
    estimate = lmmse(obs)
    precise = torch.complex128 if dtype.is_complex else torch.float64
    root, matrix, mean, y = (t.to(precise) for t in (root, matrix, mean, obs.y))
    stack = torch.cat([root, matrix @ root])
    joint = stack @ stack.mH
    joint[N:, N:] += NOISE_VAR * torch.eye(M, dtype=precise)
    joint[:N, :N] += 1e-12 * torch.eye(N, dtype=precise)
    information = torch.linalg.inv(joint)
    posterior = torch.linalg.inv(information[:N, :N])
    expected = mean - (y - mean @ matrix.mT) @ (posterior @ information[:N, N:]).mT
    # rounding to dtype is amplified by the gain of the filter, below 1e3 here
    atol = 1e3 * max(torch.finfo(dtype).eps, 1e-10)
    assert estimate.x.dtype == dtype
    assert estimate.var.dtype == dtype.to_real()
    assert estimate.var.shape == estimate.x.shape == (6, N)
    torch.testing.assert_close(estimate.x.to(precise), expected, rtol=0, atol=atol)
    torch.testing.assert_close(estimate.var[0].double(), posterior.diagonal().real, rtol=0, atol=atol)


@each_precise
def test_var_is_the_error(dtype, generator):
    draws = 40_000
    x, obs, lmmse = sampled(dtype, draws, generator)
    estimate = lmmse(obs)
    error = power(estimate.x - x).mean(0) / estimate.var[0]
    # |e|² / var has standard deviation sqrt(2) if real and 1 if complex; 5 standard errors for each of 8 entries
    assert (error - 1).abs().max() < 5 * (1 if dtype.is_complex else 2**0.5) / draws**0.5


@each_precise
def test_error_is_orthogonal_to_the_data(dtype, generator):
    """Of a signal that is not Gaussian: so no affine map is better."""
    draws = 20_000
    problem = CompressedSensing(n=16, m=8, sparsity=0.2, snr_db=20, dtype=str(dtype).removeprefix("torch."))
    x, obs = problem.sample(draws, generator)
    lmmse = LMMSE(None, 0.2 * torch.eye(16, dtype=dtype))
    error = lmmse(obs).x - x
    product = error[:, :, None] * obs.y[:, None, :].conj()
    deviation = product.abs().square().mean(0).sqrt() / draws**0.5
    assert (product.mean(0).abs() < 5 * deviation).all()
    assert (error.mean(0).abs() < 5 * error.abs().square().mean(0).sqrt() / draws**0.5).all()


@each_precise
def test_learning_converges_to_the_moments_of_the_problem(dtype):
    p, n = 0.2, 16
    problem = CompressedSensing(n=n, m=8, sparsity=p, dtype=str(dtype).removeprefix("torch."))
    fourth = p * (2 if dtype.is_complex else 3)  # E|x|⁴ of a Bernoulli-Gaussian
    for samples in (500, 20_000):
        lmmse = LMMSE.of(problem, samples)
        gap = (lmmse.covariance - p * torch.eye(n, dtype=dtype)).abs()
        # 5 standard errors of E|x_i|² and of E x_i x_j*; the loading and the mean's square are of order 1 / samples
        assert gap.diagonal().max() < 5 * ((fourth - p**2) / samples) ** 0.5 + 20 * p / samples
        assert gap.fill_diagonal_(0).max() < 5 * p / samples**0.5 + 20 * p / samples
        assert lmmse.mean.abs().max() < 5 * (p / samples) ** 0.5
        assert lmmse.covariance.dtype == dtype


@each_precise
def test_learning_finds_the_mean_and_covariance_of_correlated_signals(dtype, tmp_path):
    mean, root, _ = gaussian(dtype)
    x = mean + randn(50, N, dtype=dtype, seed=4) @ root.mT
    np.savez(tmp_path / "pairs.npz", x=x.numpy(), y=x[:, :M].numpy())
    problem, samples = Pairs(str(tmp_path / "pairs.npz")), 20_000
    lmmse = LMMSE.of(problem, samples)
    train = x[: len(problem.rows())]
    centred = train - train.mean(0)
    products = centred[:, :, None] * centred[:, None, :].conj()  # of (x - mean)(x - mean)ᴴ, row by row
    covariance = products.mean(0)
    spread = power(products - covariance).mean(0).sqrt()
    # draws with replacement have the moments of the rows; 5 standard errors, and terms of order 1 / samples
    assert ((lmmse.covariance - covariance).abs() < 5 * spread / samples**0.5 + 1e-3).all()
    assert ((lmmse.mean - train.mean(0)).abs() < 5 * covariance.diagonal().real.sqrt() / samples**0.5).all()
    if dtype.is_complex:  # its conjugate is another matrix: the law tells them apart
        assert (2 * covariance.imag).abs().max() > 10 * spread.max() / samples**0.5 + 1e-3


@each_precise
def test_learned_lmmse_is_as_good_as_the_one_that_knows(dtype, generator):
    problem = CompressedSensing(n=16, m=8, sparsity=0.2, snr_db=20, dtype=str(dtype).removeprefix("torch."))
    x, obs = problem.sample(4000, generator)
    knows = power(LMMSE(None, 0.2 * torch.eye(16, dtype=dtype))(obs).x - x).sum()
    excess = [power(LMMSE.of(problem, samples)(obs).x - x).sum() / knows - 1 for samples in (40, 400, 20_000)]
    # each of the m coefficients and the mean of an entry costs 1 / samples: 9 / 20 000; the cross term with the error
    # of the 4000 draws is of the root of that, over sqrt(4000)
    assert excess[2] < 9 / 20_000 + 5 * (9 / 20_000) ** 0.5 / 4000**0.5
    assert excess[0] > excess[1] > excess[2]


def test_learning_repeats_with_its_seed():
    problem = CompressedSensing(n=16, m=8)
    first, again, other = (LMMSE.of(problem, 100, seed) for seed in (4, 4, 5))
    assert torch.equal(first.covariance, again.covariance)
    assert not torch.equal(first.covariance, other.covariance)


@each_dtype
def test_no_noise_and_all_measured_is_an_inverse(dtype, generator):
    mean, root, _ = gaussian(dtype)
    A = DCT((N,), dtype)
    x = circular((3, N), generator, dtype)
    x_hat = LMMSE(mean, root @ root.mH)(Observation(A @ x, A, 0.0)).x
    # the filter multiplies a covariance by its inverse: its condition number, below 1e4, times eps
    assert torch.allclose(x_hat, x, rtol=0, atol=1e4 * torch.finfo(dtype).eps)


@each_dtype
def test_drowned_in_noise_the_estimate_is_the_mean(dtype, generator):
    _, obs, lmmse = sampled(dtype, 3, generator)
    estimate = lmmse(Observation(obs.y, obs.A, 1e12))
    # the gain is C Aᴴ / noise_var: 1e-12 times some tens
    assert torch.allclose(estimate.x, lmmse.mean.expand(3, N), rtol=1e-6, atol=1e-9)
    assert torch.allclose(estimate.var[0], lmmse.covariance.diagonal().real, rtol=1e-6, atol=1e-9)


def test_each_operator_and_variance_has_its_own_filter(generator):
    _, obs, lmmse = sampled(torch.float64, 3, generator)
    noisy = Observation(obs.y, obs.A, 1.0)
    other = Observation(obs.y, Dense(2 * obs.A.matrix()), NOISE_VAR)
    first = lmmse(obs).x
    fresh = LMMSE(lmmse.mean, lmmse.covariance)
    for observation in (noisy, other):
        assert not torch.equal(lmmse(observation).x, first)
        assert torch.equal(lmmse(observation).x, fresh(observation).x)
    assert torch.equal(lmmse(obs).x, first)


@pytest.mark.parametrize("known", [{}, {"noise_var": 0.1}, {"A": Dense(torch.ones(M, N))}])
def test_unknown_operator_or_variance_is_refused(known):
    with pytest.raises(ValueError, match="needs the operator A and noise_var"):
        LMMSE(None, torch.eye(N))(Observation(torch.ones(3, M), **known))


def test_variances_that_differ_are_refused():
    obs = Observation(torch.ones(3, M), Dense(torch.ones(M, N)), torch.tensor([[0.1], [0.1], [0.2]]))
    lmmse = LMMSE(None, torch.eye(N))
    with pytest.raises(ValueError, match="one noise_var for a batch; call it once for each"):
        lmmse(obs)
    assert lmmse(obs[:2]).x.shape == (2, N)


@pytest.mark.parametrize(("mean", "covariance"), [(None, (N, M)), ((M,), (N, N)), ((1, N), (N, N)), (None, (N,))])
def test_moments_of_the_wrong_shape_are_refused(mean, covariance):
    with pytest.raises(ValueError, match=r"pass \(n, n\) and \(n,\)"):
        LMMSE(None if mean is None else torch.ones(mean), torch.ones(covariance))
