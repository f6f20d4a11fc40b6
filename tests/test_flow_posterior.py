"""A flow posterior starts at the Gaussian one and learns the rest; ranks of the truth tell right from wrong."""

import math
import sys

import pytest
import torch

import fanfold as ff
from fanfold.estimators import FlowPosterior
from fanfold.guard import sbc
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing, LinearGaussian, MixtureSignal
from fanfold.problems.draws import draw

pytest.importorskip("zuko")
GAUSSIAN, MIXTURE = LinearGaussian(n=3, m=5, snr_db=8.0), MixtureSignal(n=2, m=2)


class Exact:
    """The posterior of the linear Gaussian model, its spread and place multiplied and moved."""

    def __init__(self, problem=GAUSSIAN, spread=1.0, shift=0.0, independent=False):
        A, n = problem.operator.matrix().double(), problem.n
        self.problem, self.shift = problem, shift
        covariance = torch.linalg.inv(A.mT @ A / problem.noise_var + torch.eye(n, dtype=A.dtype))
        self.covariance = covariance.diagonal().diag() if independent else covariance
        self.root = spread * torch.linalg.cholesky(self.covariance)

    def sample(self, obs, count, generator):
        mean = self.problem.posterior(obs).x.double() + self.shift * self.covariance.diagonal().sqrt()
        z = torch.randn(count, *mean.shape, generator=generator, dtype=torch.float64)
        return (mean + z @ self.root.mT).to(obs.y.dtype)


def prepared(problem, **settings):
    flow = FlowPosterior.of(problem, **settings)
    flow.prepare(*draw(problem, 20_000, 0, 4, 0))
    return flow


@pytest.fixture(scope="module")
def trained():
    flow = FlowPosterior.of(MIXTURE, transforms=2)
    return ff.fit(flow, MIXTURE, steps=200, lr=5e-3, validate_every=200, validation_samples=100, threads=1)


@pytest.mark.parametrize("kind", ["spline", "affine"])
def test_an_untrained_flow_is_the_posterior_of_a_linear_gaussian_model(kind):
    flow = prepared(GAUSSIAN, flow=kind)
    x, obs = draw(GAUSSIAN, 1000, 0, 2, 0)
    with torch.no_grad():
        exact, said = GAUSSIAN.posterior(obs), flow(obs)
    excess = (said.x - exact.x).square().sum() / exact.var.sum()
    assert excess < 1e-3  # five weights known from 20 000 draws: 5 / 20 000, and as much again for their spread
    assert (said.var / exact.var - 1).abs().max() < 0.05  # a variance from 20 000 draws: five times √(2 / 20 000)
    root = torch.linalg.cholesky(Exact().covariance)
    z = torch.linalg.solve_triangular(root, (x - exact.x).double().mT, upper=False).mT
    log_p = -0.5 * (z.square().sum(-1) + 3 * math.log(2 * math.pi)) - root.diagonal().log().sum()
    with torch.no_grad():
        gap = (log_p - flow.log_prob(obs, x)).mean().item()
    assert abs(gap) < 5e-3  # Kullback-Leibler divergence: half the number of estimated numbers over that of draws


def test_training_goes_from_the_gaussian_to_the_posterior(trained):
    x, obs = draw(MIXTURE, 1000, 0, 2, 0)
    exact = MIXTURE.posterior(obs)

    @torch.no_grad()
    def excess(flow):
        return ((flow(obs).x - exact.x).square().sum() / exact.var.sum()).item()

    untrained = prepared(MIXTURE)
    with torch.no_grad():
        gain = (untrained.losses(obs, x) - trained.losses(obs, x)).mean()
    assert gain > 0.1
    assert excess(trained) < 0.02 < excess(untrained)


def test_a_trained_flow_passes_and_a_deliberately_narrow_one_fails(trained):
    right = sbc(trained, MIXTURE, samples=1500)
    assert right.p_value > 1e-3  # one test in a thousand fails for a right one; the seed is fixed
    assert right.joint_p_value > 1e-3

    class Narrow:
        def sample(self, obs, count, generator):
            draws = trained.sample(obs, count, generator)
            return draws.mean(0) + 0.8 * (draws - draws.mean(0))

    assert sbc(Narrow(), MIXTURE, samples=1500).p_value < 1e-6


def test_an_exact_posterior_has_uniform_ranks():
    result = sbc(Exact(), GAUSSIAN, samples=4000)
    assert result.ranks.shape == (4000, 3)
    assert result.ranks.min() == 0
    assert result.ranks.max() == result.draws == 99
    assert result.p_value > 1e-3
    assert result.joint_p_value > 1e-3
    mean = result.ranks.double().mean(0)
    assert (mean - 49.5).abs().max() < 4 * (100**2 / 12 / 4000) ** 0.5
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert (result.expected_coverage(levels) - levels).abs().max() < 1.95 / 4000**0.5  # Kolmogorov's at 0.001


@pytest.mark.parametrize("wrong", [{"spread": 0.8}, {"spread": 1.25}, {"shift": 0.3}])
def test_wrong_posteriors_have_other_ranks(wrong):
    assert sbc(Exact(**wrong), GAUSSIAN, samples=2000).p_value < 1e-6


def test_lost_correlation_shows_in_the_joint_test_alone():
    """Each entry by itself is right, and every one passes."""
    problem = LinearGaussian(n=2, m=1, snr_db=20)
    result = sbc(Exact(problem, independent=True), problem, samples=16_000)
    assert result.p_value > 1e-3
    assert result.joint_p_value < 1e-6  # which a right posterior shows once in a million times
    assert sbc(Exact(problem), problem, samples=3000).joint_p_value > 1e-3


def test_ties_have_any_rank_among_equals():
    class Coin:
        def sample(self, obs, count, generator):
            return torch.randint(2, (count, *obs.y.shape), generator=generator).float()

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (2000, 1), generator=generator).float()
    assert sbc(Coin(), (x, Observation(torch.zeros_like(x)))).p_value > 1e-3


def test_draws_follow_the_density(trained):
    """The density has the area one, and the mean of the draws."""
    _, obs = draw(MIXTURE, 1, 0, 2, 5)
    draws = trained.sample(obs, 20_000, torch.Generator().manual_seed(1))[:, 0]
    middle, spread = draws.mean(0), draws.std(0)
    steps = torch.linspace(-5, 5, 101)
    grid = torch.cartesian_prod(steps, steps) * spread + middle
    many = Observation(obs.y.expand(len(grid), -1), None, obs.noise_var)
    with torch.no_grad():
        mass = trained.log_prob(many, grid).exp() * (0.1**2 * spread.prod())
    assert mass.sum().item() == pytest.approx(1, abs=0.02)  # squares of a tenth of a standard deviation
    mean = (mass[:, None] * grid).sum(0) / mass.sum()
    assert torch.allclose(mean, middle, atol=4 * (spread / 20_000**0.5).max().item() + 0.01)


def test_the_same_generator_draws_the_same_and_leaves_the_global_one_alone(trained):
    _, obs = draw(MIXTURE, 3, 0, 2, 0)
    before = torch.random.get_rng_state()
    first, again = (trained.sample(obs, 5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first.shape == (5, 3, 2)
    assert torch.equal(first, again)
    assert torch.equal(FlowPosterior.of(MIXTURE, seed=1)(obs).x, FlowPosterior.of(MIXTURE, seed=1)(obs).x)
    assert torch.equal(before, torch.random.get_rng_state())


def test_leading_axes_and_single_observations(trained):
    x, obs = draw(MIXTURE, 6, 0, 2, 0)
    folded = Observation(obs.y.reshape(2, 3, -1), None, obs.noise_var)
    with torch.no_grad():
        assert torch.allclose(trained(folded).x.reshape(6, -1), trained(obs).x, atol=1e-5)
        assert torch.allclose(trained(Observation(obs.y[0], None, obs.noise_var)).x, trained(obs).x[0], atol=1e-5)
        assert torch.allclose(
            trained.log_prob(folded, x.reshape(2, 3, -1)).flatten(), trained.log_prob(obs, x), atol=1e-4
        )


def test_complex_parameters_are_pairs_of_real_ones():
    problem = CompressedSensing(n=3, m=3, sparsity=0.9, snr_db=10, dtype="complex64")
    flow = prepared(problem)
    x, obs = draw(problem, 500, 0, 2, 0)
    with torch.no_grad():
        estimate = flow(obs)
    assert estimate.x.dtype == torch.complex64
    assert estimate.var.shape == x.shape
    ratio = ((estimate.x - x).abs().square().sum() / estimate.var.sum()).item()
    assert ratio == pytest.approx(1, abs=0.2)  # 500 heavy-tailed errors
    assert sbc(flow, problem, samples=200).ranks.shape == (200, 6)


@pytest.mark.parametrize("kind", ["sequence", "set"])
def test_other_kinds_of_observation_go_through_a_network(kind):
    class Means:
        A, noise_var = None, None

        def __init__(self):
            self.kind = kind

        def sample(self, n, generator):
            x = torch.randn(n, 1, generator=generator)
            y = x[:, :, None] + torch.randn(n, 1, 8, generator=generator)
            return x, Observation(y if kind == "sequence" else y.mT)

    flow = FlowPosterior.of(Means(), transforms=2)
    x, obs = Means().sample(300, torch.Generator().manual_seed(0))
    flow.prepare(x, obs)
    assert flow(obs).x.shape == x.shape
    flow.losses(obs, x).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.flow.parameters())


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="flow is"):
        FlowPosterior.of(MIXTURE, "glow")
    with pytest.raises(ValueError, match="even number"):
        FlowPosterior.of(MIXTURE, draws=7)
    x, obs = draw(MIXTURE, 50, 0, 2, 0)
    with pytest.raises(ValueError, match="same value"):
        FlowPosterior.of(MIXTURE).prepare(torch.ones_like(x), obs)
    with pytest.raises(ValueError, match="at least 100"):
        sbc(Exact(), GAUSSIAN, samples=50)
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r"fanfold\[posterior\]"):
        FlowPosterior.of(MIXTURE)
