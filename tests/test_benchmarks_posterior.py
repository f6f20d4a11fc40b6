"""Benchmarks of end-to-end estimators: their posteriors hold on draws, and against brute force from the prior."""

import math

import pytest
import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks import BENCHMARKS, BernoulliGLM, Epidemic, PredatorPrey, SeveralModes
from fanfold.observation import Observation
from fanfold.problems.protocols import Limited, Named

DRAWS = 150
each_benchmark = pytest.mark.parametrize("problem", BENCHMARKS.values(), ids=BENCHMARKS.keys())


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(products: Tensor) -> Tensor:
    """How many standard errors the mean over draws is from zero."""
    return products.mean(0) / (products.std(0) / len(products) ** 0.5 + 1e-30)


@each_benchmark
def test_errors_of_the_posterior_mean_are_orthogonal_to_functions_of_y_and_as_large_as_the_variance_says(problem):
    x, obs = problem.sample(DRAWS, rng(1))
    exact = problem.posterior(obs)
    assert exact.x.shape == exact.var.shape == x.shape
    known = ~exact.x.isnan().any(-1)
    assert known.double().mean() > 0.9  # what could not be computed is rare
    error, var = (x - exact.x)[known].double(), exact.var[known].double()
    ranks = obs.y[known].flatten(1).argsort(0).argsort(0).double() / known.sum()
    g = torch.cat([torch.ones(len(ranks), 1), ranks[:, :10], (6 * ranks[:, :10]).sin(), exact.x[known]], -1)
    # errors in posterior standard deviations too, whose product with any function of y is zero on average as well
    for scaled in (error, error / var.sqrt()):
        assert scores(scaled.unsqueeze(-1) * g.unsqueeze(-2)).abs().max() < 4.8  # of up to 600; P(|z| > 4.8) is 2e-6
    assert scores(error.square() - var).abs().max() < 4


@each_benchmark
def test_draws_and_estimates_lie_within_the_limits(problem):
    x, obs = problem.sample(50, rng(3))
    assert x.dtype == obs.y.dtype == torch.float32
    assert torch.equal(problem.sample(50, rng(3))[0], x)
    if isinstance(problem, Named):
        assert len(problem.names) == x.shape[-1]
    if isinstance(problem, Limited):
        low, high = torch.tensor(problem.limits).mT
        assert ((x >= low) & (x <= high)).all()


def brute_force(log_likelihood, x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Posterior mean, variance and effective size by weighting draws of the prior."""
    weight = torch.softmax(log_likelihood, 0)
    mean = weight @ x
    return mean, weight @ (x - mean).square(), (1 / weight.square().sum()).item()


def agree(exact, x: Tensor, log_likelihood: Tensor) -> None:
    mean, var, size = brute_force(log_likelihood, x)
    assert size > 100
    tolerance = 4.5 / size**0.5
    assert ((exact.x[0] - mean).abs() < tolerance * var.sqrt()).all()
    assert ((exact.var[0] / var).log().abs() < 2 * tolerance).all()


def test_the_glm_agrees_with_brute_force():
    problem = BernoulliGLM(bins=20, lags=3)
    _, obs = problem.sample(1, rng(4))
    x = problem.sample(200_000, rng(5))[0].double()
    V = problem.design()
    logits = x @ V.mT
    agree(problem.posterior(obs), x, x @ obs.y[0].double() - torch.nn.functional.softplus(logits).sum(-1))


@pytest.mark.parametrize("seed", [5, 11])
def test_several_modes_agree_with_brute_force(seed):
    problem = SeveralModes()
    _, obs = problem.sample(1, rng(seed))
    x = problem.sample(1_000_000, rng(9))[0].double()
    points = obs.y.double().view(4, 2)
    s1, s2, rho = x[:, 2] ** 2, x[:, 3] ** 2, torch.tanh(x[:, 4])
    log_likelihood = torch.zeros(len(x), dtype=torch.float64)
    for point in points:
        u, v = (point[0] - x[:, 0]) / s1, (point[1] - x[:, 1]) / s2
        log_likelihood -= (u * u + v * v - 2 * rho * u * v) / (2 * (1 - rho**2)) + (s1 * s2 * (1 - rho**2).sqrt()).log()
    agree(problem.posterior(obs), x, log_likelihood)


def test_an_epidemic_that_never_began_says_little_and_agrees_with_brute_force():
    problem = Epidemic()
    obs = Observation(torch.tensor([[0.0] * 9 + [1.0]]))
    x = problem.sample(20_000, rng(6))[0].double()
    share = problem.infected(x.log())
    agree(problem.posterior(obs), x, (obs.y * share.log() + (1000 - obs.y) * torch.log1p(-share)).sum(-1))


def test_predators_and_prey_agree_with_brute_force():
    problem = PredatorPrey(noise=1.0)
    _, obs = problem.sample(1, rng(8))
    x = problem.sample(20_000, rng(7))[0].double()
    misfit = (obs.y.double().log() - problem.log_populations(x.log())) / problem.noise
    agree(problem.posterior(obs), x, -0.5 * misfit.square().sum(-1))


def test_populations_follow_their_equations():
    """Lotka and Volterra's constant of motion stays."""
    problem = PredatorPrey(times=20)
    logs = torch.tensor([[-0.125, -3.0, -0.125, -3.0], [0.2, -3.5, -0.5, -2.5]], dtype=torch.float64)
    u, v = problem.log_populations(logs).chunk(2, -1)
    alpha, beta, gamma, delta = (part.unsqueeze(-1) for part in logs.exp().unbind(-1))
    constant = delta * u.exp() - gamma * u + beta * v.exp() - alpha * v
    first = delta * 30 - gamma * math.log(30) + beta
    assert ((constant - first) / first).abs().max() < 0.01
