"""Stein's estimate has the risk as its mean, for thresholds, algorithms and networks, real and complex."""

import pytest
import torch

import fanfold as ff
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.guard import sure
from fanfold.guard.sure import View
from fanfold.observation import Estimate, Observation
from fanfold.problems import CompressedSensing, LinearGaussian
from fanfold.problems.draws import draw
from fanfold.shrinkage import soft

SAMPLES = 4000


class Soft:
    def __init__(self, threshold=0.5):
        self.threshold = threshold

    def __call__(self, obs):
        return Estimate(soft(obs.y, self.threshold))


def denoising(dtype, n=50, noise_var=0.25):
    generator = torch.Generator().manual_seed(2)
    x = ff.priors.BernoulliGaussian(0.2).sample((SAMPLES, n), generator, dtype)
    return x, Observation(x + circular(x.shape, generator, dtype, noise_var), None, torch.tensor(noise_var))


def unbiased(risk, loss):
    """The estimate less the loss has mean zero: within four of its own standard errors."""
    gap = risk.values - loss.double()
    return gap.mean().abs() < 4 * gap.std() / len(gap) ** 0.5


def test_soft_thresholding_has_the_closed_form():
    _, obs = denoising(torch.float64)
    risk = sure(Soft(), obs)
    y = obs.y.abs()
    closed = (y.clamp_max(0.5).square() - 0.25 + 2 * 0.25 * (y > 0.5)).sum(-1)  # Donoho & Johnstone (1995)
    torch.testing.assert_close(risk.values, closed)
    assert risk.value == pytest.approx(closed.mean().item())
    assert risk.standard_error == pytest.approx(closed.std().item() / SAMPLES**0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("divergence", ["autograd", "differences"])
def test_soft_thresholding_is_judged_without_bias(dtype, divergence):
    x, obs = denoising(dtype)
    risk, loss = sure(Soft(), obs, divergence=divergence), power(Soft()(obs).x - x).sum(-1)
    assert unbiased(risk, loss)
    assert abs(risk.value - loss.mean().item()) < 0.1 * loss.mean().item()


def test_the_best_threshold_is_found_without_the_truth():
    x, obs = denoising(torch.float32)
    grid = [0.1 * i for i in range(1, 16)]
    found = min(grid, key=lambda t: sure(Soft(t), obs).value)
    best = min(grid, key=lambda t: power(Soft(t)(obs).x - x).sum().item())
    assert abs(found - best) < 0.11


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("space", ["signal", "measurements"])
@pytest.mark.parametrize("divergence", ["autograd", "differences"])
def test_an_algorithm_is_judged_without_bias_where_its_operator_sees(dtype, space, divergence):
    problem = CompressedSensing(n=40, m=20, snr_db=15, dtype=dtype)
    x, obs = draw(problem, SAMPLES, 0, 2, 0)
    estimator = ff.iterate(ff.algorithms.OAMP(problem.prior), 5)
    risk = sure(estimator, obs, space=space, divergence=divergence)
    error = estimator(obs).x - x
    loss = power(problem.A @ error if space == "measurements" else View(obs, "signal").project(error)).sum(-1)
    assert unbiased(risk, loss)
    assert risk.standard_error < 0.2 * loss.mean()


def test_a_tall_operator_sees_all():
    problem = LinearGaussian(n=5, m=12, snr_db=10, show_operator=True)
    x, obs = draw(problem, SAMPLES, 0, 2, 0)
    risk = sure(problem.posterior, obs)
    assert unbiased(risk, power(problem.posterior(obs).x - x).sum(-1))
    bayes = problem.posterior(obs).var[0].sum().item()
    assert abs(risk.value - bayes) < 4 * risk.standard_error


def test_what_an_operator_does_not_see_is_not_judged():
    """Twelve measurements of rank three, of ten unknowns: noise outside the range of A counts for nothing."""
    generator = torch.Generator().manual_seed(6)
    U, V = (torch.randn(k, 3, generator=generator, dtype=torch.float64) for k in (12, 10))
    A = ff.linops.Dense(U @ V.mT / 3)
    x = torch.randn(SAMPLES, 10, generator=generator, dtype=torch.float64)
    y = A @ x + circular((SAMPLES, 12), generator, torch.float64, 0.3)
    obs = Observation(y, A, torch.tensor(0.3))
    estimator = lambda o: Estimate(soft(o.A.H @ o.y / 12, torch.tensor(0.5)))  # noqa: E731
    P = V @ torch.linalg.solve(V.mT @ V, V.mT)
    risk = sure(estimator, obs)
    assert unbiased(risk, power((estimator(obs).x - x) @ P).sum(-1))


def test_a_network_is_judged_without_bias():
    problem = LinearGaussian(n=6, m=8, snr_db=5, show_operator=True)
    net = ff.fit(ff.neural(problem, width=32), problem, steps=60, batch=128, validate_every=60, threads=1)
    x, obs = draw(problem, SAMPLES, 0, 2, 0)
    with torch.no_grad():
        loss = power(net(obs).x - x).sum(-1)
    assert unbiased(sure(net, obs), loss)


def test_each_sample_has_its_own_noise_variance():
    generator = torch.Generator().manual_seed(4)
    var = torch.rand(SAMPLES, 1, generator=generator) + 0.1
    x = torch.randn(SAMPLES, 20, generator=generator)
    obs = Observation(x + circular(x.shape, generator, var=var), None, var)
    risk = sure(lambda o: Estimate(soft(o.y, o.noise_var.sqrt())), obs)
    assert unbiased(risk, power(soft(obs.y, var.sqrt()) - x).sum(-1))


def test_more_probes_are_more_precise():
    problem = CompressedSensing(n=40, m=20, snr_db=15)
    _, obs = draw(problem, 300, 0, 2, 0)
    estimator = ff.iterate(ff.algorithms.OAMP(problem.prior), 5)
    many = torch.stack([sure(estimator, obs, space="measurements", seed=s).values for s in range(12)])
    few = torch.stack([sure(estimator, obs, space="measurements", probes=4, seed=100 + s).values for s in range(12)])
    ratio = (many.var(0).mean() / few.var(0).mean()).item()
    assert 2.5 < ratio < 6.5  # four times the variance, known to about a tenth


def test_mistakes_are_named():
    _, obs = denoising(torch.float32)
    with pytest.raises(ValueError, match="noise_var"):
        sure(Soft(), Observation(obs.y))
    with pytest.raises(ValueError, match="divergence='differences'"):
        sure(lambda o: Estimate(o.y.detach()), obs)
    with pytest.raises(ValueError, match="noise_var is zero"):
        sure(Soft(), Observation(obs.y, None, torch.tensor(0.0)), divergence="differences")
    with pytest.raises(ValueError, match="x is as y"):
        sure(lambda o: Estimate(o.y[:, :3]), obs)
    with pytest.raises(ValueError, match="at least 1"):
        sure(Soft(), obs, probes=0)
