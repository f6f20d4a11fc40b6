"""Guests from outside the package have every ability by their members alone: no base class, no registration."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold.algorithms import POSITIVE, Algorithm, Nominal
from fanfold.cli.apply import apply_to_file
from fanfold.core.abilities import ability, offers
from fanfold.estimators import base as estimating
from fanfold.evaluation.peers import peers_of
from fanfold.linops import Dense
from fanfold.observation import Estimate, Observation
from fanfold.priors import Gaussian
from fanfold.problems import protocols as posing
from fanfold.report.neural_page import sections_of
from fanfold.report.run_page import write_run_page
from fanfold.runs.directory import Run

QUICK = {"steps": 3, "batch": 8, "validate_every": 2, "validation_samples": 20, "threads": 1}
VAR = 0.1  # of the noise


@dataclass(frozen=True)
class Offset:
    """`y = x 1 + w` with x ~ N(0, 1): a model with every ability that a known model of the library has."""

    n: int = 4  # measurements
    part: str = "train"

    A = None
    files_of = commands_of = staticmethod(lambda settings: ())
    kind = "vector"
    stock = "endless"
    names = ("offset",)
    wanted = (0,)
    periodic = (False,)
    limits = ((-math.inf, math.inf),)
    noise_var = VAR
    fingerprint = "of nothing"
    measured = handed_over = False
    reading, doubt = "an offset", None
    failures = Counter({"crash": 2})

    @property
    def prior_information(self) -> Tensor:
        return torch.ones(1, 1, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        return self.sample_at(torch.randn(n, 1, generator=generator), generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        noise = VAR**0.5 * torch.randn(len(x), self.n, generator=generator)
        return x, Observation(self.mean(x) + noise, None, torch.tensor(VAR))

    sample_all = distinct = sample

    def every(self) -> tuple[Tensor, Observation]:
        return self.sample(60, torch.Generator().manual_seed(7))

    def shifted(self, **changes) -> "Offset":
        return replace(self, **changes)

    def held_out(self) -> "Offset":
        return self.shifted(part="test")

    def validation(self) -> "Offset":
        return self.shifted(part="validation")

    def mean(self, x: Tensor) -> Tensor:
        return x.expand(*x.shape[:-1], self.n)

    def log_prior(self, x: Tensor) -> Tensor:
        return (-x.square() / 2 - math.log(2 * math.pi) / 2).sum(-1)

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        return (-(obs.y - self.mean(x)).square() / (2 * VAR) - math.log(2 * math.pi * VAR) / 2).sum(-1)

    def grid(self, count: int | None = None) -> Tensor:
        return torch.linspace(-4, 4, count or 33, dtype=torch.float64)[:, None]

    def profile(self, x: Tensor, obs: Observation) -> Tensor:
        return x

    def posterior(self, obs: Observation) -> Estimate:
        var = 1 / (1 + self.n / VAR)
        x = var / VAR * obs.y.sum(-1, keepdim=True)
        return Estimate(x, torch.full_like(x, var))

    def table(self) -> list[dict]:
        return [{"runs": "good", "count": 60, "example": ""}]


@dataclass(frozen=True)
class Blurred:
    """`y = A x + w` with a Gaussian prior: what algorithms and state evolution ask of a problem."""

    n: int = 12
    m: int = 8
    ensemble = "iid"
    prior = Gaussian(1.0)
    guessed_prior = Gaussian(0.5)
    noise_var = VAR
    failures = Counter({"crash": 2})

    @property
    def A(self):
        return BLUR

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        x = torch.randn(n, self.n, generator=generator)
        y = self.A @ x + VAR**0.5 * torch.randn(n, self.m, generator=generator)
        return x, Observation(y, self.A, torch.tensor(VAR))

    def shifted(self, **changes) -> "Blurred":
        return replace(self, **changes)

    def held_out(self) -> "Blurred":
        return self


BLUR = Dense(torch.randn(8, 12, generator=torch.Generator().manual_seed(0)) / 8**0.5)


class Shrinker(nn.Module):
    """`x̂ = g mean(y)`: a network with every ability of an end-to-end estimator."""

    training_defaults = {"steps": 3, "lr": 0.1}
    at_most = 30
    measures_noise = True
    strength = 1.0

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("centre", torch.zeros(()))
        self.calls = Counter()

    @property
    def settings(self):
        return ShrinkerSettings()

    @property
    def origin(self):
        return "half the mean", lambda obs: Estimate(0.5 * obs.y.mean(-1, keepdim=True))

    def prepare(self, x: Tensor, obs: Observation) -> None:
        self.calls["prepare"] += 1
        self.centre.copy_(x.mean())

    def parameter_groups(self, lr: float) -> list[dict]:
        self.calls["groups"] += 1
        return [{"params": [self.gain], "lr": 2 * lr}]

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        self.calls["losses"] += 1
        return (self(obs).x - x).square().mean(-1)

    def held_out_losses(self, obs: Observation, x: Tensor) -> Tensor:
        self.calls["held out"] += 1
        return self.losses(obs, x)

    def forward(self, obs: Observation) -> Estimate:
        x = self.centre + self.strength * (self.gain * obs.y.mean(-1, keepdim=True) - self.centre)
        return Estimate(x, torch.full_like(x, VAR))

    def quantiles(self, obs: Observation) -> Tensor:
        x, spread = self(obs).x, VAR**0.5 * torch.tensor([-1.64, 0.0, 1.64])
        return x[..., None, :] + spread[:, None]


@dataclass(frozen=True)
class ShrinkerSettings:
    def build(self, problem) -> Shrinker:
        return Shrinker()


class Step(NamedTuple):
    x: Tensor


@dataclass(frozen=True)
class Descent(Algorithm):
    """Gradient descent on the misfit."""

    rate: float = 0.5

    nominals = {"rate": Nominal(lambda a, obs: a.rate * obs.A.norm() ** -2, POSITIVE)}

    def start(self, obs):
        return Step(obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        return Step(s.x + theta.rate * (obs.A.H @ (obs.y - obs.A @ s.x)))

    def read(self, s):
        return Estimate(s.x)


PROBLEM_ABILITIES = [p for p in vars(posing).values() if isinstance(p, type) and p.__module__ == posing.__name__]
LINEAR = (posing.KnownPrior, posing.LinearModel, posing.RandomMatrix, posing.GuessedPrior)
RARE = (
    posing.ThroughLikelihood,
    posing.CorrelatedModel,
    posing.SometimesPosterior,
    posing.ChannelProblem,
    posing.WithScene,
    posing.KnownWaveform,
    posing.Labelled,
    posing.Restrictable,
    posing.ErringModel,
    posing.DrawnInGroups,
    posing.OfConditions,
)


class Strange(Offset):
    """Has what an offset has not, by name."""

    likelihood = layout = mask = scene = groups = weights = unknowns = None
    true_A = None  # noqa: N815 - its name in the mathematics
    restricted = condition_of = Offset.shifted
    window, resolution, gain, has_posterior = (0.0, 1.0), 0.1, "known", False

    def covariance(self, x: Tensor) -> Tensor:
        return VAR * torch.eye(self.n).to(x)

    def waveform(self, place: Tensor) -> Tensor:
        return place.unsqueeze(-1).expand(*place.shape, self.n)


@pytest.mark.parametrize("protocol", PROBLEM_ABILITIES, ids=lambda p: p.__name__)
def test_a_problem_has_an_ability_by_its_members(protocol):
    assert offers(Blurred() if protocol in LINEAR else Offset(), protocol) == (protocol not in RARE)
    assert offers(Strange(), protocol) == (protocol not in LINEAR)


def test_an_end_to_end_guest_trains_by_its_abilities_and_is_kept(tmp_path):
    problem, net = Offset(), Shrinker()
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK | {"lr": None, "steps": None})
    assert {"prepare", "groups", "losses", "held out"} <= set(net.calls)
    run = Run.open(tmp_path / "run")
    assert (run.config["training"]["steps"], run.config["training"]["lr"]) == (3, 0.1)
    loaded = ff.load(tmp_path / "run", network=Shrinker())
    _, obs = problem.sample(5, torch.Generator().manual_seed(1))
    assert torch.equal(loaded(obs).x, net(obs).x)


def test_an_end_to_end_guest_is_compared_applied_guarded_and_reported(tmp_path):
    problem = Offset()
    net = ff.fit(Shrinker(), problem, run_dir=tmp_path / "run", **QUICK)
    peers = peers_of(net, problem)
    assert list(peers) == ["network", "half the mean", "maximum likelihood", "most probable", "exact posterior"]
    rows = {row["estimator"]: row for row in ff.evaluate(peers, problem, samples=100)}
    assert rows["network"]["samples"] == 30
    assert rows["exact posterior"]["nmse_db"] == pytest.approx(rows["exact posterior"]["limit_db"], abs=2)
    run = Run.open(tmp_path / "run", problem=problem, network=Shrinker())
    _, obs = problem.sample(5, torch.Generator().manual_seed(1))
    np.save(tmp_path / "y.npy", obs.y.numpy())
    files = apply_to_file(run, tmp_path / "y.npy", tmp_path / "x.npy", strength=0.5, coverage=0.9)
    assert {path.name for path in files} == {"x.npy", "x_p_value.npy", "x_var.npy", "x_low.npy", "x_high.npy"}
    _, sections = sections_of(problem, net, run.metrics(), 50)
    titles = [section.title for section in sections]
    assert "Bias and variance at fixed parameters" in titles
    assert "Runs of the simulator" in titles
    assert write_run_page(run, tmp_path / "page.html", 50).is_file()


def test_a_layered_guest_trains_layer_by_layer_and_has_its_page(tmp_path):
    problem = Blurred()
    net = ff.unfold(Descent(), problem, 3, {"rate": "per-layer"})
    ff.fit(net, problem, run_dir=tmp_path / "run", schedule="layer-by-layer", **QUICK | {"steps": 12})
    assert Run.open(tmp_path / "run").metrics()[-1]["failed"] == {"crash": 2}
    loaded = ff.load(tmp_path / "run", algorithm=Descent())
    _, obs = problem.sample(5, torch.Generator().manual_seed(1))
    assert torch.equal(loaded(obs).x, net(obs).x)
    peers = peers_of(net, problem)
    assert {"unfolded", "untrained Descent", "LMMSE", "OAMP, true prior"} <= set(peers)
    run = Run.open(tmp_path / "run", problem=problem, algorithm=Descent())
    assert write_run_page(run, tmp_path / "page.html", 50).is_file()


def test_settings_of_a_guest_build_it_and_abilities_are_seen():
    net = ShrinkerSettings().build(Offset())
    assert offers(ShrinkerSettings(), estimating.Settings)
    for protocol in (
        estimating.SelfJudged,
        estimating.HeldOutJudged,
        estimating.Preparable,
        estimating.Grouped,
        estimating.WithTrainingDefaults,
        estimating.Restrainable,
        estimating.WithOrigin,
        estimating.Quantiled,
        estimating.MeasuresNoise,
        estimating.Costly,
        estimating.Kept,
    ):
        assert ability(net, protocol) is net
    assert ability(net, estimating.Layered) is None
    assert ability(net, estimating.Bound) is None


def test_bounds_ask_the_same_abilities():
    problem = Offset()
    exact = 1 / (1 + problem.n / VAR)
    assert ff.bounds.van_trees(problem).mse.item() == pytest.approx(exact, rel=1e-6)
    assert ff.bounds.exact_mmse(problem).mse.item() == pytest.approx(exact, rel=0.05)
    likely = ff.estimators.MaximumLikelihood.of(problem)
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(likely(obs).x, obs.y.mean(-1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_missing_ability_is_an_error_that_names_the_method():
    with pytest.raises(ValueError, match="MaximumLikelihood needs `log_likelihood`; Blurred has none"):
        ff.estimators.MaximumLikelihood.of(Blurred())
