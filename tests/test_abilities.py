"""A guest has an ability by having the members: toys from outside are served, and who lacks one is told which."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.bounds import (
    bayes_limit,
    bayes_limit_of,
    certify,
    error_decomposition,
    exact_mmse,
    has_evolution,
    support_oracle_error,
    van_trees,
    ziv_zakai,
)
from fanfold.core.abilities import ability, missing, offers, require
from fanfold.estimators import MaximumAPosteriori, MaximumLikelihood
from fanfold.linops import Dense
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, Denoising, DirectionOfArrival, LinearGaussian, Modulation, Tone
from fanfold.problems.draws import Pool
from fanfold.problems.protocols import KnownJoint, KnownModel, LinearModel, Stored, posterior_of


class Named(Protocol):
    @property
    def title(self) -> str: ...


class Talking(Named, Protocol):
    volume: float

    def say(self, words: str) -> str: ...


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Asking


def test_members_are_looked_up_and_not_evaluated():
    class Costly:
        volume = 1.0

        @property
        def title(self) -> str:
            raise RuntimeError("it was evaluated")

        def say(self, words: str) -> str:
            return words

    assert offers(Costly(), Talking)
    assert offers(Tone(snr_db=(0.0, 10.0)), LinearModel) is False
    assert missing(Tone(snr_db=(0.0, 10.0)), LinearModel) == ["prior"]  # its noise_var raises, as each draw has its own


def test_attributes_of_an_instance_and_of_a_module_count_and_a_method_that_is_none_does_not():
    class Instance:
        def __init__(self, say: Any):
            self.title, self.volume, self.say = "", 1.0, say

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("title", torch.zeros(1))
            self.register_parameter("volume", nn.Parameter(torch.zeros(1)))

        def say(self, words: str) -> str:
            return words

    class Silent(Module):
        say = None

    class Wrapper:
        def __init__(self, inside: Any):
            self.inside = inside

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inside, name)

    assert offers(Instance(str), Talking)
    assert not offers(Instance(None), Talking)
    assert offers(Module(), Talking)
    assert not offers(Silent(), Talking)
    assert offers(Wrapper(Module()), Talking)
    assert not offers(Wrapper(3), Talking)
    assert ability(Module(), Talking) is not None
    assert ability(3, Talking) is None


def test_what_is_missing_is_named_methods_first():
    class Mute:
        title = ""

    class Nameless:
        def say(self, words: str) -> str:
            return words

    with pytest.raises(ValueError, match=r"^a choir needs `say`; Mute has none\.$"):
        require(Mute(), Talking, "a choir")
    with pytest.raises(ValueError, match=r"^a choir needs `title` and `volume`; Nameless has none of them\. Hum\.$"):
        require(Nameless(), Talking, "a choir", "Hum.")
    guest = Nameless()
    guest.title, guest.volume = "", 1.0
    assert require(guest, Talking, "a choir") is guest


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda p: MaximumLikelihood.of(p), "MaximumLikelihood needs `log_likelihood`; CompressedSensing has none."),
        (lambda p: van_trees(p), "van_trees needs .*`log_prior`; CompressedSensing has none of them.*learned_bound"),
        (lambda p: exact_mmse(p), "exact_mmse needs .*`log_prior`; CompressedSensing has none of them.*learned_bound"),
        (lambda p: ziv_zakai(p), "ziv_zakai needs .*`log_prior`; CompressedSensing has none of them.*learned_bound"),
        (lambda p: error_decomposition(Estimate, p), "error_decomposition needs `sample_all`; CompressedSensing has"),
    ],
)
def test_who_needs_an_ability_says_so(ask, said):
    with pytest.raises(ValueError, match=said):
        ask(CompressedSensing(n=20, m=10))


# Guests that derive from nothing


class Exponential:
    """`y = e^x + w`, `x ~ N(0, 1)`: nothing but the members of a known model, and white noise."""

    names, wanted, noise_var = ("x",), (0,), 0.01

    def sample_all(self, n, generator):
        x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
        noise = 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return x, Observation(x.exp() + noise, None, torch.tensor(self.noise_var, dtype=torch.float64))

    def mean(self, x):
        return x.exp()

    def log_prior(self, x):
        return -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)

    def log_likelihood(self, x, obs):
        square = (obs.y - x.exp()).square().sum(-1)
        return -0.5 * (square / self.noise_var + math.log(2 * math.pi * self.noise_var))


class Bounded(Exponential):
    limits = ((-4.0, 4.0),)


class OfNoKind(Exponential):
    """No Gaussian model: the data's information is the score's."""

    mean = None


def test_a_known_model_from_outside_has_its_bounds_and_estimators():
    model = Bounded()
    assert offers(model, KnownModel)
    bound, least = van_trees(model).mse.item(), exact_mmse(model, samples=500)
    assert bound < least.mse.item() + 4 * least.standard_error.item()
    assert ziv_zakai(model).mse < least.mse.item() + 4 * least.standard_error.item()
    # the score's square is the same information, seen through 4000 draws
    assert van_trees(OfNoKind()).mse.item() == pytest.approx(bound, rel=0.2)
    x, obs = model.sample_all(200, rng(0))
    for kind in (MaximumLikelihood, MaximumAPosteriori):
        estimate = kind.of(model)
        clear = x > -1  # e^x is several standard deviations of the noise
        assert ((estimate(obs).x - x)[clear].square() / estimate(obs).var[clear]).mean() < 2
    split = error_decomposition(MaximumAPosteriori.of(model), model, repeats=50)
    assert [row["parameter"] for row in split.table] == ["x"] * 10
    assert all(row["crb"] > 0 for row in split.table)


def test_a_guest_with_less_is_told_what_it_lacks():
    class Flat(Bounded):
        log_prior = None

    assert MaximumLikelihood.of(Flat())(Flat().sample_all(3, rng(0))[1]).x.shape == (3, 1)
    with pytest.raises(ValueError, match="MaximumAPosteriori needs `log_prior`; Flat has none"):
        MaximumAPosteriori.of(Flat())
    assert not offers(Flat(), KnownJoint)
    with pytest.raises(ValueError, match="Exponential has no limits for x"):
        MaximumLikelihood.of(Exponential())
    with pytest.raises(ValueError, match="error_decomposition needs `mean`; OfNoKind has none"):
        error_decomposition(MaximumLikelihood.of(Bounded()), OfNoKind(), repeats=20)


SPARSE = BernoulliGaussian(0.1)


class Sensing:
    """Compressed sensing from outside the package."""

    n, m, ensemble = 200, 100, "iid"

    def __init__(self, prior=SPARSE):
        self.prior, self.noise_var = prior, 1e-3
        self.A = Dense(torch.randn(self.m, self.n, generator=rng(0)) / self.m**0.5)

    def sample(self, n, generator):
        x = SPARSE.sample((n, self.n), generator)
        y = self.A @ x + self.noise_var**0.5 * torch.randn(n, self.m, generator=generator)
        return x, Observation(y, self.A, torch.tensor(self.noise_var))


def test_a_random_matrix_from_outside_has_its_limits():
    problem = Sensing()
    x, obs = problem.sample(20, rng(1))
    inside = CompressedSensing(n=200, m=100, ensemble="iid", snr_db=10 * math.log10(0.1 * 2 / 1e-3))
    # its entries have variance 1 / m exactly, those of the package's on average over one matrix
    assert bayes_limit(problem) == pytest.approx(bayes_limit(inside), rel=0.05)
    assert bayes_limit_of(problem, x, obs) == bayes_limit(problem)
    assert support_oracle_error(problem, x, obs) < bayes_limit(problem)
    assert has_evolution(problem)
    estimates = ff.iterate(ff.algorithms.OAMP(problem.prior), 12).trajectory(obs)
    assert certify(estimates, x, problem).limit_db < 0
    unknown = Sensing(prior=None)
    assert bayes_limit(unknown) is support_oracle_error(unknown, x, obs) is None
    assert not has_evolution(unknown)


def test_stored_pairs_from_outside_are_taken_once_each():
    class Shelf:
        A = None

        def every(self):
            x = torch.arange(30.0)[:, None]
            return x, Observation(2 * x)

    pool = Pool(Shelf(), 30, seed=0)
    assert offers(Shelf(), Stored)
    assert sorted(pool.x.flatten().tolist()) == list(range(30))
    with pytest.raises(ValueError, match="only 30 pairs are stored"):
        Pool(Shelf(), 31, seed=0)


# Abilities that settings decide


@pytest.mark.parametrize(
    ("problem", "known"),
    [
        (DirectionOfArrival(), True),
        (DirectionOfArrival(sources=2), False),
        (Tone(), True),
        (Tone(estimate=("phase",)), False),
        (Tone(snr_db=(0.0, 10.0)), True),
        (Tone(snr_db=(0.0, 10.0), show_noise=False), False),
        (Tone(snr_db=0.0, show_noise=False), True),
        (Modulation(), True),
        (LinearGaussian(), True),
        (CompressedSensing(n=20, m=10), False),
    ],
    ids=str,
)
def test_a_posterior_is_known_where_it_answers(problem, known):
    posterior = posterior_of(problem)
    assert (posterior is not None) == known
    x, obs = problem.sample(3, rng(0))
    if posterior is not None:
        assert posterior(obs).x.shape == x.shape
        assert bayes_limit_of(problem, x, obs) == pytest.approx((posterior(obs).var.sum() / x.square().sum()).item())
    elif not isinstance(problem, CompressedSensing):
        assert bayes_limit_of(problem, x, obs) is None


def test_supports_are_told_of_linear_measurements_by_one_operator_alone():
    for problem in (Denoising(n=3), ff.problems.GeneralizedLinear(n=20, m=40), LinearGaussian(show_operator=True)):
        assert support_oracle_error(problem, *problem.sample(5, rng(0))) is None
    noiseless = CompressedSensing(n=20, m=10, snr_db=math.inf)
    assert support_oracle_error(noiseless, *noiseless.sample(5, rng(0))) is None


@dataclass(frozen=True)
class Searching:
    """A likelihood and a grid: no prior, no limits, and no word on what is wanted."""

    names: tuple[str, ...] = ("x",)

    def grid(self, count: int | None = None):
        return torch.linspace(-2, 2, count or 9, dtype=torch.float64)[:, None]

    def log_likelihood(self, x, obs):
        return -(obs.y - x).square().sum(-1)


def test_a_likelihood_with_a_grid_is_enough_to_be_searched():
    y = torch.tensor([[0.3], [-1.2]])
    assert torch.allclose(MaximumLikelihood.of(Searching())(Observation(y)).x, y, atol=1e-6)
