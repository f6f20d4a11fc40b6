"""Problems whose posterior is known: what it says holds on draws, against integration, and in its limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate

from fanfold.core.noise import circular
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, Gaussian, GaussianMixture, Laplace, Uniform
from fanfold.problems import Denoising, LinearGaussian, MixtureSignal, Modulation
from fanfold.problems.protocols import KnownModel
from fanfold.problems.radio.modulation import CONSTELLATIONS, constellation

KNOWN = {
    "linear": LinearGaussian(n=4, m=3, snr_db=3),
    "tall": LinearGaussian(n=2, m=7, snr_db=-3),
    "mixture": MixtureSignal(),
    "sparse": Denoising(n=3),
    "uniform": Denoising(Uniform(-1, 2), snr_db=5),
    "laplace": Denoising(Laplace()),
    "modulation": Modulation(symbols=3),
    "turned": Modulation(symbols=3, classes=("bpsk", "qpsk"), unknown_phase=True),
}
each_problem = pytest.mark.parametrize("problem", KNOWN.values(), ids=KNOWN.keys())


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each_problem
def test_the_error_of_the_posterior_mean_is_orthogonal_to_every_function_of_y(problem):
    x, obs = problem.sample(50_000, rng(1))
    error = (x - problem.posterior(obs).x).double()
    y = obs.y.double().flatten(1)
    tests = [torch.ones(len(y), 1), y, y.square(), torch.sin(3 * y), y.sign()]
    for g in tests:
        products = error.unsqueeze(-1) * g.unsqueeze(-2)
        z = products.mean(0) / (products.std(0) / len(y) ** 0.5 + 1e-12)
        assert z.abs().max() < 5.5  # of at most 100 products; P(|z| > 5.5) is 4e-8 each


@each_problem
def test_the_posterior_variance_is_the_mean_squared_error(problem):
    x, obs = problem.sample(50_000, rng(2))
    exact = problem.posterior(obs)
    gap = (x - exact.x).double().square() - exact.var.double()
    z = gap.mean(0) / (gap.std(0) / len(x) ** 0.5)
    assert z.abs().max() < 5
    # and so where the variance is small and where it is large
    small = exact.var.sum(-1) < exact.var.sum(-1).median()
    for some in (small, ~small):
        if some.sum() > 1000:
            part = gap[some].sum(-1)
            assert abs(part.mean() / (part.std() / len(part) ** 0.5)) < 5


@pytest.mark.parametrize(
    "problem", [p for p in KNOWN.values() if isinstance(p, KnownModel)], ids=lambda p: type(p).__name__
)
def test_densities_integrate_to_their_posterior(problem):
    """Importance sampling from the prior: weights `p(y|x)` give the posterior mean, and their mean the evidence."""
    if problem.n > 3:
        problem = replace(problem, n=2)
    _, obs = problem.sample(1, rng(3))
    draws, _ = problem.sample(400_000, rng(4))
    log_w = problem.log_likelihood(draws.double(), Observation(obs.y.double())).double()
    w = torch.softmax(log_w, 0).unsqueeze(-1)
    mean = (w * draws).sum(0)
    effective = 1 / w.square().sum()
    exact = problem.posterior(obs)
    assert effective > 1000
    assert ((mean - exact.x[0]).abs() < 6 * (exact.var[0] / effective).sqrt() + 1e-6).all()


@pytest.mark.parametrize(
    "prior", [Gaussian(0.7), Laplace(), Uniform(), GaussianMixture((0.6, 0.4), (0, 1), (0.1, 0.5))]
)
def test_the_prior_of_denoising_integrates_to_one(prior):
    problem = Denoising(prior)
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    # a trapezoid of step 1e-4 errs by the step at a jump
    assert torch.trapezoid(problem.log_prior(x.unsqueeze(-1)).exp(), x).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("v", [1e-4, 0.01, 0.3, 10.0])
@pytest.mark.parametrize("r", [-3.0, -0.9, 0.0, 0.4, 1.0, 1.3, 8.0])
def test_the_uniform_posterior_is_the_integral(r, v):
    prior = Uniform(-1, 2)
    if (max(0.0, r - 2, -1 - r) / v**0.5) > 30:
        pytest.skip("no quadrature sees so far into a tail")
    nearest = min(max(r, -1.0), 2.0)
    density = lambda x: math.exp(-((r - x) ** 2 - (r - nearest) ** 2) / (2 * v))  # noqa: E731
    width = v / max(abs(r - nearest), v**0.5)  # how far it reaches from its peak
    edges = (max(-1, nearest - 40 * width), min(2, nearest + 40 * width))
    moments = [
        integrate.quad(
            lambda x, k=k: x**k * density(x), *edges, points=[nearest], epsabs=1e-14, epsrel=1e-10, limit=500
        )[0]
        for k in range(3)
    ]
    mean, var = prior.posterior(torch.tensor([r], dtype=torch.float64), v)
    expected = moments[1] / moments[0]
    assert mean.item() == pytest.approx(expected, abs=1e-9)
    assert var.item() == pytest.approx(moments[2] / moments[0] - expected**2, rel=1e-5, abs=1e-10)
    log_evidence = math.log(moments[0] / 3) - (r - nearest) ** 2 / (2 * v) - 0.5 * math.log(2 * math.pi * v)
    assert prior.log_evidence(torch.tensor([r], dtype=torch.float64), v).item() == pytest.approx(log_evidence, rel=1e-9)


def test_far_outside_the_interval_the_uniform_posterior_is_an_exponential_from_its_end():
    mean, var = Uniform().posterior(torch.tensor([1e3, -1e6], dtype=torch.float64), 0.1)
    assert torch.allclose(mean, torch.tensor([1.0, -1.0], dtype=torch.float64), atol=2e-4)
    # rate (r - 1) / v
    assert var[0].item() == pytest.approx((0.1 / 999) ** 2, rel=1e-3)
    assert torch.isfinite(var).all()


def test_a_uniform_prior_is_real_and_an_interval():
    with pytest.raises(ValueError, match="low < high"):
        Uniform(1, 1)
    with pytest.raises(ValueError, match="real parameters"):
        Uniform().posterior(torch.zeros(2, dtype=torch.complex64), 1.0)


@pytest.mark.parametrize("name", CONSTELLATIONS)
def test_constellations_have_unit_power_and_distinct_points(name):
    points = constellation(name)
    assert points.abs().square().mean().item() == pytest.approx(1)
    assert len(points) == {"bpsk": 2, "qpsk": 4, "8-psk": 8, "16-qam": 16, "64-qam": 64}[name]
    assert len(np.unique(points.numpy().round(9))) == len(points)


def test_without_noise_the_class_is_certain():
    problem = Modulation(symbols=64, snr_db=25)
    x, obs = problem.sample(200, rng(0))
    assert torch.allclose(problem.posterior(obs).x, x, atol=1e-3)


def test_an_unknown_phase_is_integrated_to_a_finer_grids_value():
    problem = Modulation(symbols=20, classes=("bpsk", "qpsk", "16-qam"), snr_db=15, unknown_phase=True)
    _, obs = problem.sample(50, rng(0))
    fine = replace(problem, symbols=2000)  # takes ten times as many angles
    assert torch.allclose(problem.posterior(obs).x, fine.posterior(obs).x, atol=1e-6)


def test_an_unknown_phase_costs_certainty():
    told = Modulation(symbols=8, classes=("bpsk", "qpsk"), snr_db=0)
    turned = told.shifted(unknown_phase=True)
    losses = []
    for problem in (told, turned):
        x, obs = problem.sample(20_000, rng(0))
        losses.append(-(problem.posterior(obs).x * x).sum(-1).log().mean().item())
    assert losses[0] < 0.8 * losses[1] < losses[1] < math.log(2)


def test_the_linear_model_is_what_it_says():
    problem = LinearGaussian(n=3, m=5, snr_db=2, show_operator=True)
    x, obs = problem.sample(200_000, rng(0))
    noise = obs.y - obs.A @ x
    var = 10**-0.2
    assert noise.var().item() == pytest.approx(var, rel=5 * math.sqrt(2 / noise.numel()))
    assert obs.noise_var.item() == pytest.approx(var)
    assert (problem.A.gram_diagonal().mean() - 1).abs() < 5 * (2 / 15) ** 0.5
    w = circular((4, 5), rng(1)).double()
    expected = -0.5 * (w.square() / var + math.log(2 * math.pi * var)).sum(-1)
    seen = Observation(problem.mean(x[:4].double()) + w)
    assert torch.allclose(problem.log_likelihood(x[:4].double(), seen), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearGaussian(n=0), "positive"),
        (lambda: MixtureSignal(spread=0), "positive"),
        (lambda: Denoising(n=0), "at least 1"),
        (lambda: Modulation(classes=("qpsk",)), "two or more"),
        (lambda: Modulation(classes=("qpsk", "9-qam")), "two or more of bpsk"),
        (lambda: Denoising(BernoulliGaussian()).shifted(m=3), "has no 'm'"),
    ],
)
def test_what_is_no_problem_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
