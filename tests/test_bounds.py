"""State evolution against numbers from the literature's fixed points, closed forms, and each other."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fanfold.bounds import bayes_limit, mmse, support_oracle
from fanfold.bounds.state_evolution import amp, vamp
from fanfold.core.noise import circular
from fanfold.core.units import db, power
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, Gaussian, Laplace
from fanfold.problems import CompressedSensing, Photographs
from fanfold.shrinkage import soft

PRIORS = (Gaussian(0.7), BernoulliGaussian(0.2, 1.5), Laplace(1.3))
each_prior = pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
real_or_complex = pytest.mark.parametrize("is_complex", [False, True])


@pytest.mark.parametrize(("snr_db", "limit_db"), [(40.0, -45.60), (30.0, -35.01), (20.0, -23.76)])
def test_amps_limit_of_the_standard_problem(snr_db, limit_db):
    # the numbers are rounded to 0.01 dB; noise_var scales with ‖A‖_F² = n exactly
    assert db(bayes_limit(CompressedSensing(snr_db=snr_db))) == pytest.approx(limit_db, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "limits_db"),
    [
        ({"ensemble": "row-orthogonal"}, (-46.1, -35.6, -24.6)),
        ({"ensemble": "conditioned", "condition_number": 15.0}, (-44.25, -33.4, -21.5)),
        ({"ensemble": "conditioned", "condition_number": 100.0}, (-41.8, -30.3, -16.4)),
    ],
)
def test_vamps_limits_of_other_spectra(changes, limits_db):
    problem = CompressedSensing(**changes)
    limits = [db(bayes_limit(problem.shifted(snr_db=snr_db))) for snr_db in (40.0, 30.0, 20.0)]
    assert limits == pytest.approx(limits_db, abs=0.1)  # the numbers are rounded to 0.1 dB


def test_limit_rises_with_the_condition_number():
    problem = CompressedSensing(n=100, m=50, ensemble="conditioned")
    limits = [bayes_limit(problem.shifted(condition_number=c)) for c in (1.0, 5.0, 20.0, 100.0)]
    assert limits == sorted(limits)
    assert limits[0] == pytest.approx(bayes_limit(problem.shifted(ensemble="row-orthogonal")), rel=1e-9)


def test_no_noise_no_error():
    assert bayes_limit(CompressedSensing(n=40, m=20, snr_db=math.inf)) == 0


def test_limit_is_unknown_where_the_prior_is():
    assert bayes_limit(Photographs()) is None


@real_or_complex
@given(v=st.floats(1e-8, 1e8))
def test_gaussian_mmse_is_wieners(is_complex, v):
    # the trapezoidal rule with 4001 nodes: second-order end corrections of (24 / 4001)² at the most
    assert mmse(Gaussian(1.0), v, is_complex=is_complex) == pytest.approx(v / (1 + v), rel=1e-5)


@real_or_complex
@each_prior
def test_mmse_lies_below_the_linear_one_and_rises_with_the_noise(prior, is_complex):
    levels = [10.0**exponent for exponent in range(-7, 4, 2)]
    errors = [mmse(prior, v, is_complex=is_complex) for v in levels]
    assert errors == sorted(errors)
    for v, error in zip(levels, errors, strict=True):
        assert 0 < error <= v * prior.power / (v + prior.power) * (1 + 1e-5)  # the rule's error, as above
    assert errors[-1] == pytest.approx(prior.power, rel=10 * prior.power / levels[-1])  # data of pure noise


@real_or_complex
@each_prior
@pytest.mark.parametrize("v", [1e-3, 0.1, 2.0])
def test_mse_never_beats_the_bayes_bound(prior, is_complex, v, generator):
    """Thresholds, linear shrinkage, the data themselves: none has an error below `mmse`."""
    draws, dtype = 20_000, torch.complex128 if is_complex else torch.float64
    x = prior.sample((draws,), generator, dtype)
    r = x + circular((draws,), generator, dtype, v)
    bound = mmse(prior, v, is_complex=is_complex)
    thresholds = [soft(r, torch.tensor(c * v**0.5, dtype=torch.float64)) for c in (0.5, 1.5, 3.0)]
    for x_hat in (r, r * prior.power / (prior.power + v), *thresholds):
        error = power(x_hat - x)
        assert error.mean() > bound - 4 * error.std() / draws**0.5


@real_or_complex
def test_vamp_on_the_spectrum_of_an_iid_matrix_is_amp(is_complex):
    n, m, noise_var = 1000, 500, 1e-3
    dtype = torch.complex128 if is_complex else torch.float64
    G = torch.randn(m, n, generator=torch.Generator().manual_seed(0), dtype=dtype) / m**0.5
    prior = BernoulliGaussian(0.1)
    by_amp = amp(prior, m / n, noise_var, is_complex=is_complex)[-1]
    by_vamp = vamp(prior, torch.linalg.svdvals(G), n, noise_var, is_complex=is_complex)[-1]
    # eigenvalue averages of an iid matrix deviate by about 1/n from their limit: 0.1 dB is 2%
    assert abs(db(by_vamp / by_amp)) < 0.1


@real_or_complex
def test_amp_for_gaussian_signals_ends_at_the_mmse_of_the_matrix(is_complex):
    """Where the prior is Gaussian the limit has a closed form: the Marchenko-Pastur fixed point."""
    delta, noise_var = 0.5, 0.01
    errors = amp(Gaussian(1.0), delta, noise_var, is_complex=is_complex)
    # e = tau² / (1 + tau²) with tau² = noise_var + e / delta: a quadratic in tau²
    b = 1 - noise_var - 1 / delta
    tau2 = (-b + math.sqrt(b * b + 4 * noise_var)) / 2
    assert errors[-1] == pytest.approx(tau2 / (1 + tau2), rel=1e-5)
    # the fixed point is approached from above; once there, the last digit goes to and fro
    assert all(later <= earlier * (1 + 8e-15) for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_support_oracle_is_a_ridge_regression_on_each_support(dtype, per_sample, generator):
    problem = CompressedSensing(n=40, m=20, sparsity=0.2, snr_db=15, dtype=dtype)
    x, obs = problem.sample(12, generator)
    x[3] = 0  # nothing to estimate
    precise = torch.complex128 if x.is_complex() else torch.float64
    var = 1.0
    if per_sample:
        obs = Observation(obs.y, obs.A, problem.noise_var * torch.linspace(0.1, 3, 12)[:, None])
        var = 2.5
    x_hat = support_oracle(x, obs, var)
    assert x_hat.dtype == x.dtype
    for row in range(12):
        support = x[row] != 0
        A_s = obs.A.matrix()[:, support].to(precise)
        # the other side of the push-through identity: an m x m system, not one of the support's size
        received = var * A_s @ A_s.mH + obs.noise_var.expand(12, 1)[row].double() * torch.eye(20, dtype=precise)
        expected = torch.zeros(40, dtype=precise)
        expected[support] = var * A_s.mH @ torch.linalg.solve(received, obs.y[row].to(precise))
        # both solve in double precision, with condition numbers up to 1e3; the answer is rounded to dtype
        eps = max(torch.finfo(x.dtype).eps, 1e-12)
        torch.testing.assert_close(x_hat[row].to(precise), expected, rtol=0, atol=10 * eps * (1 + expected.abs().max()))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_support_oracle_of_the_standard_problem(dtype, generator):
    problem = CompressedSensing(snr_db=20, dtype=dtype)
    x, obs = problem.sample(400, generator)
    error, energy = power(support_oracle(x, obs) - x).sum(-1).double(), power(x).sum(-1).double()
    ratio = error.sum() / energy.sum()
    deviation = (error - ratio * energy).std() / (len(x) ** 0.5 * energy.mean())  # delta method for a ratio
    assert abs(ratio - 10**-2.599) < 4 * deviation + 10**-2.599 * 0.0023  # -25.99 dB is rounded to 0.01 dB: 0.23%
    assert ratio < bayes_limit(problem)  # it knows more than any estimator


def test_support_oracle_is_exact_as_the_noise_vanishes(generator):
    problem = CompressedSensing(n=40, m=30, sparsity=0.2, snr_db=200, dtype="float64")
    x, obs = problem.sample(10, generator)
    # noise of 1e-10, and fewer non-zeros than measurements: a regular system, solved by its normal equations
    assert torch.allclose(support_oracle(x, obs), x, rtol=0, atol=1e-8)


def test_no_limit_is_claimed_where_message_passing_stops_above_the_posterior_mean():
    hard = CompressedSensing(n=500, m=100, sparsity=0.12, snr_db=60)
    assert bayes_limit(hard) is None
    assert bayes_limit(CompressedSensing(snr_db=float("inf"))) == 0.0
    too_few = bayes_limit(CompressedSensing(n=500, m=25, sparsity=0.2, snr_db=float("inf")))
    assert too_few is None or too_few > 0.1
