"""Benchmarks of end-to-end estimators: their posteriors hold on draws, and against brute force from the prior."""

import math

import pytest
import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks import (
    BENCHMARKS,
    Autoregression,
    BernoulliGLM,
    BlobPicture,
    Epidemic,
    HeavyTails,
    MixtureSet,
    PeriodicPhase,
    PoissonRegression,
    PredatorPrey,
    SeveralModes,
    SourceLocalisation,
)
from fanfold.experiments.simulators.benchmarks.moments import halved_cells, student_points
from fanfold.experiments.simulators.benchmarks.source_localisation import loss
from fanfold.observation import Observation
from fanfold.problems.protocols import Limited, Named

DRAWS = 150
FEWER = {  # points of the posterior than the benchmarks take, for the time of the tests
    "Bernoulli GLM": {"points": 2048},
    "several modes": {"samples": 2048},
    "epidemic": {"keep": 24},
    "predator and prey": {"points": 512, "searches": 2, "steps_a_day": 5},
    "Poisson regression": {"points": 2048},
    "source localisation": {"first": 24, "keep": 100},
    "heavy tails": {"points": 2048},
    "periodic phase": {"first": 24, "keep": 100},
}
PROBLEMS = {name: problem.shifted(**FEWER.get(name, {})) for name, problem in BENCHMARKS.items()}
each_benchmark = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())


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
    ranks = obs.y[known].flatten(1)[:, :10].argsort(0).argsort(0).double() / known.sum()
    g = torch.cat([torch.ones(len(ranks), 1), ranks, (6 * ranks).sin(), exact.x[known]], -1)
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
    problem = SeveralModes(samples=4096)
    _, obs = problem.sample(1, rng(seed))
    x = problem.sample(500_000, rng(9))[0].double()
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


def test_poisson_regression_agrees_with_brute_force():
    problem = PoissonRegression(coefficients=2, rows=4)
    _, obs = problem.sample(1, rng(4))
    x = problem.sample(100_000, rng(5))[0].double()
    agree(problem.posterior(obs), x, x @ obs.y[0].double() - (x @ problem.design().mT).exp().sum(-1))


def test_a_fainter_source_than_all_and_one_on_either_side_of_the_sensors_agree_with_brute_force():
    problem = SourceLocalisation()
    x = problem.sample(200_000, rng(7))[0].double()
    for at in ([0.3, -0.6, -6.9], [-0.2, 0.4, 3.0]):
        place = torch.tensor([at], dtype=torch.float64)
        obs = Observation((place[:, 2:] - loss(place[:, :2])).exp().float())
        misfit = (obs.y.double().log() - x[:, 2:] + loss(x[:, :2])) / problem.shadowing
        agree(problem.posterior(obs), x, -0.5 * misfit.square().sum(-1))


def test_heavy_tails_agree_with_brute_force():
    problem = HeavyTails()
    _, obs = problem.sample(1, rng(4))
    x = problem.sample(200_000, rng(5))[0].double()
    law = torch.distributions.StudentT(x[:, 2:].exp(), x[:, :1], x[:, 1:2].exp())
    agree(problem.posterior(obs), x, law.log_prob(obs.y.double()).sum(-1))


@pytest.mark.parametrize("seed", [4, 6])
def test_a_sinusoid_and_its_phases_agree_with_brute_force(seed):
    problem = PeriodicPhase()
    _, obs = problem.sample(1, rng(seed))
    x, y = problem.sample(200_000, rng(5))[0].double(), obs.y.double()
    phases = 2 * math.pi * x[:, 1:2] * torch.arange(12) + x[:, 2:]
    misfit = ((y[:, :12] - x[:, :1] * phases.cos()) / problem.noise).square().sum(-1)
    turned = (y[:, 12:] - phases[:, [4, 8]]).cos().sum(-1)
    agree(problem.posterior(obs), x, -0.5 * misfit + problem.concentration * turned)


def test_a_set_agrees_with_brute_force():
    problem = MixtureSet(count=20)
    _, obs = problem.sample(1, rng(4))
    x, y = problem.sample(50_000, rng(5))[0].double(), obs.y.double().flatten()
    weight, half = x[:, :1], x[:, 1:] / 2
    density = weight * torch.exp(-0.5 * (y + half) ** 2) + (1 - weight) * torch.exp(-0.5 * (y - half) ** 2)
    agree(problem.posterior(obs), x, density.log().sum(-1))


def test_a_series_agrees_with_brute_force():
    problem = Autoregression(length=6)
    _, obs = problem.sample(1, rng(4))
    x, y = problem.sample(50_000, rng(5))[0].double(), obs.y.double().flatten()
    lags = (torch.arange(6)[:, None] - torch.arange(6)).abs()
    covariance = x[:, 0, None, None] ** lags * ((2 * x[:, 1]).exp() / (1 - x[:, 0] ** 2))[:, None, None]
    law = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance)
    agree(problem.posterior(obs), x, law.log_prob(y))


def test_a_picture_agrees_with_brute_force():
    problem = BlobPicture(pixels=6, noise=0.8)
    _, obs = problem.sample(1, rng(4))
    x, y = problem.sample(50_000, rng(5))[0].double(), obs.y.double()[0, 0]
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    distance = (rows - x[:, 0, None, None]) ** 2 + (columns - x[:, 1, None, None]) ** 2
    spots = torch.exp(-0.5 * distance * torch.exp(-2 * x[:, 2])[:, None, None])
    agree(problem.posterior(obs), x, -0.5 * ((y - spots) / problem.noise).square().sum((-2, -1)))


def test_cells_and_points_have_the_moments_of_two_narrow_peaks_and_of_a_correlated_gaussian():
    peaks = torch.tensor([[[-0.7, 0.2], [0.5, 0.4]]], dtype=torch.float64)

    def two(z: Tensor) -> Tensor:
        return (-0.5 * ((z.unsqueeze(-2) - peaks.unsqueeze(1)) / 0.01).square().sum(-1)).logsumexp(-1)

    low = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    cells = halved_cells(two, low, -low, (16, 16), 64, 7).estimate(10.0)
    assert torch.allclose(cells.x, peaks.mean(1), atol=1e-3)
    assert torch.allclose(cells.var, torch.tensor([[0.36, 0.01]], dtype=torch.float64) + 1e-4, rtol=2e-3)

    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=torch.float64)
    precision, centre = torch.linalg.inv(covariance), torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    points = student_points(
        lambda z: -0.5 * ((z - centre) @ precision * (z - centre)).sum(-1),
        centre + 0.3,
        torch.linalg.cholesky(covariance).unsqueeze(0),
        4096,
        dof=5.0,
    )
    assert torch.allclose(points.estimate(1000.0).x, centre, atol=0.02)
    assert torch.allclose(points.estimate(1000.0).var, torch.ones(1, 2, dtype=torch.float64), rtol=0.03)
    assert points.estimate(5000.0).x.isnan().all()  # more than there are


def test_populations_follow_their_equations():
    """Lotka and Volterra's constant of motion stays."""
    problem = PredatorPrey(times=20)
    logs = torch.tensor([[-0.125, -3.0, -0.125, -3.0], [0.2, -3.5, -0.5, -2.5]], dtype=torch.float64)
    u, v = problem.log_populations(logs).chunk(2, -1)
    alpha, beta, gamma, delta = (part.unsqueeze(-1) for part in logs.exp().unbind(-1))
    constant = delta * u.exp() - gamma * u + beta * v.exp() - alpha * v
    first = delta * 30 - gamma * math.log(30) + beta
    assert ((constant - first) / first).abs().max() < 0.01
