"""Images of draws about a centre: found where draws look like them, learned of there, and nowhere else."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import fanfold as ff
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.mirror import Mirror
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian
from fanfold.problems.base import Described
from fanfold.problems.protocols import limits_of


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mirror_of(x: Tensor, y: Tensor, low: float = -math.inf, high: float = math.inf) -> Mirror:
    obs = Observation(y)
    mirror = Mirror(Features(obs, "vector"), x.shape[1])
    mirror.prepare(x, y, torch.full(x.shape[1:], low), torch.full(x.shape[1:], high))
    return mirror


def benchmark_mirror(name: str, n: int, seed: int) -> Mirror:
    problem = BENCHMARKS[name]
    x, obs = problem.sample(n, rng(seed))
    mirror = Mirror(Features(obs, "vector"), x.shape[1])
    mirror.prepare(x, obs.y, *torch.tensor(limits_of(problem, x)).unbind(1))
    return mirror


@pytest.mark.parametrize("n", [1000, 5000])
def test_a_centre_is_found_where_there_is_one(n):
    assert benchmark_mirror("Bernoulli GLM", n, 1).odd.all()
    assert benchmark_mirror("linear Gaussian", n, 1).odd.all()
    # the mean of the points changes its sign with them, their scales and correlation do not
    assert benchmark_mirror("several modes", n, 1).odd.tolist() == [True, True, False, False, False]
    for name in ("Poisson regression", "Gaussian mixture", "epidemic", "predator and prey", "source localisation"):
        assert not benchmark_mirror(name, n, 1).symmetric, name


def test_it_is_found_at_the_chance_that_is_set():
    x = torch.randn(100, 500, 3, generator=rng(0))
    y = x @ torch.randn(3, 4, generator=rng(1)) + torch.distributions.StudentT(3.0).sample((100, 500, 4))
    missed = sum(not mirror_of(*pair).symmetric for pair in zip(x, y))
    assert missed <= 6  # of 100 at a chance of .01; seven or more have a chance of 7e-5


def test_what_is_askew_in_x_in_y_or_between_them_has_no_centre():
    x = torch.randn(4000, 2, generator=rng(0))
    noise = 0.3 * torch.randn(4000, 2, generator=rng(1))
    assert mirror_of(x, x + noise).symmetric
    assert not mirror_of(x.exp(), x.exp() + noise).symmetric
    assert not mirror_of(x, x + noise.exp()).symmetric
    assert not mirror_of(x, torch.stack([x[:, 0], x[:, 1] + 0.5 * x[:, 0].square()], 1) + noise).symmetric
    assert not mirror_of(x, x + noise * (1 + 0.5 * x.clamp(-1, 1))).symmetric  # only the noise is larger on one side


def test_bounds_must_lie_about_the_same_centre():
    x = 2 * torch.rand(4000, 2, generator=rng(0)) - 1
    y = x + 0.3 * torch.randn(4000, 2, generator=rng(1))
    assert mirror_of(x, y, -1, 1).symmetric
    assert not mirror_of(x, y, -1, 1.2).symmetric  # images would leave the support
    assert not mirror_of(x, y, low=-1.0).symmetric


def test_complex_measurements_have_a_centre_too():
    x = torch.randn(2000, 2, generator=rng(0))
    y = torch.complex(x, torch.randn(2000, 2, generator=rng(1))) + (3 - 2j)
    mirror = mirror_of(x, y)
    turned_x, turned = mirror(x, y)
    changed = (turned_x != x).any(1)
    assert 800 < changed.sum() < 1200
    assert torch.allclose((turned + y)[changed] / 2, torch.tensor(3 - 2j), atol=0.2)
    assert torch.equal(turned[~changed], y[~changed])


@dataclass(frozen=True)
class MixedSigns(Described):
    """Signs that two measurements each see in Gaussian noise, measured from another zero than their centre."""

    n: int = 4
    noise: float = 0.5
    zero: float = 100.0

    A = None

    @property
    def mixing(self) -> Tensor:
        return torch.eye(self.n) + 0.5 * torch.eye(self.n).roll(1, 0)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        x = 2.0 * torch.randint(2, (n, self.n), generator=generator) - 1
        noise = self.noise * torch.randn(n, self.n, generator=generator)
        return x, Observation(self.zero + x @ self.mixing.mT + noise)

    def posterior_mean(self, obs: Observation) -> Tensor:
        every = torch.tensor([*itertools.product((-1.0, 1.0), repeat=self.n)])
        misfit = torch.cdist(obs.y - self.zero, every @ self.mixing.mT).square()
        return torch.softmax(-misfit / (2 * self.noise**2), -1) @ every


def test_images_are_worth_draws():
    problem = MixedSigns()
    _, obs = problem.sample(2000, rng(9))
    exact, errors = problem.posterior_mean(obs), {}
    for mirrored in (False, True):
        settings = ff.estimators.NeuralSettings(folds=2, students=0, width=32, depth=2, mirrored=mirrored)
        net = ff.fit(settings.build(problem), problem, steps=400, simulations=300, threads=1)
        assert mirrored == (net.mirror is not None)
        if mirrored:
            centre = net.mirror.y_middle + net.mirror.y_unit * net.mirror.y_shift
            assert (centre - problem.zero).abs().max() < 0.3  # a mean of 300 has a standard error of .07
        with torch.no_grad():
            z = net.features(obs)
            base = net._base(z)
            means, _ = net.networks.moments(net._raw(obs, z, base, net.networks.counts), base)
        errors[mirrored] = (means - exact).square().mean((1, 2))  # of squared-error and of heteroscedastic networks
    decibels = 10 * (errors[True] / errors[False]).log10()
    assert decibels[0] < 0.1
    assert decibels[1] < -1  # 1.9 dB


def test_networks_from_before_have_none():
    assert ff.estimators.NeuralSettings(width=8, folds=5, students=1).build(LinearGaussian()).mirror is None
