"""What a problem can do, beyond drawing: each ability is a protocol, and generic code asks these alone.

A problem has an ability by having its members. A class whose settings decide says so itself: see `KnownPosterior`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.likelihoods import Likelihood
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.priors import Prior
from fanfold.problems.kinds import Kind

# What is known of signals and measurements


@runtime_checkable
class KnownPrior(Protocol):
    """A prior of each unknown by itself; None where the settings leave it open."""

    @property
    def prior(self) -> Prior | None:
        """Of each unknown."""
        ...


@runtime_checkable
class KnownNoise(Protocol):
    """White noise of one variance in all draws; None where the data do not say."""

    @property
    def noise_var(self) -> Any:
        """`E|w|²`, a number or a tensor of one."""
        ...


def prior_of(problem: object) -> Prior | None:
    """The prior of each unknown by itself, where a problem knows one."""
    known = ability(problem, KnownPrior)
    return known.prior if known else None


def noise_var_of(problem: object) -> Any:
    """The noise variance of all draws, where there is one."""
    known = ability(problem, KnownNoise)
    return known.noise_var if known else None


@runtime_checkable
class ThroughLikelihood(Protocol):
    """Measurements `y ~ p(y | A x)`, entry by entry, instead of `A x` and Gaussian noise."""

    @property
    def likelihood(self) -> Likelihood:
        """Of each measurement."""
        ...


def likelihood_of(problem: object) -> Likelihood | None:
    """The likelihood of each measurement, where it is not `A x` and Gaussian noise by construction."""
    known = ability(problem, ThroughLikelihood)
    return known.likelihood if known else None


@runtime_checkable
class RandomMatrix(KnownPrior, KnownNoise, Protocol):
    """One random matrix of a named ensemble, for which state evolution is known."""

    n: int
    m: int
    ensemble: str

    @property
    def A(self) -> LinearOperator: ...  # noqa: N802


@runtime_checkable
class GuessedPrior(Protocol):
    """A prior that was fitted to signals, where none is known."""

    @property
    def guessed_prior(self) -> Prior:
        """Of each unknown, where an algorithm may begin."""
        ...


@runtime_checkable
class WithKind(Protocol):
    """Observations that need not be vectors."""

    @property
    def kind(self) -> Kind:
        """What one observation is."""
        ...


def kind_of(problem: object) -> Kind:
    """What one observation of a problem is: a vector where it does not say."""
    special = ability(problem, WithKind)
    return special.kind if special else "vector"


# A known model of all parameters


@runtime_checkable
class KnownModel(Protocol):
    """A problem that knows `p(x)` and `p(y|x)`, each up to nothing: densities, not merely shapes of them.

    `x` holds all parameters, real, `(..., n)`; `wanted` says which of them are to be estimated, and the others are
    nuisance: `sample` gives the wanted ones, `sample_all` all of them.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry of all the parameters is called."""
        ...

    @property
    def wanted(self) -> tuple[int, ...]:
        """Which of all the parameters are estimated."""
        ...

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws of all parameters, `(n, parameters)`, and their observation."""
        ...

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of all parameters, `(..., n)` -> `(...)`; -inf outside the support."""
        ...

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)` of all parameters, `(..., n)` with `(..., m)` -> `(...)`; differentiable in x."""
        ...


@runtime_checkable
class GaussianModel(Protocol):
    """Measurements `y = mean(x) + w` with white Gaussian noise, or with noise of a `covariance` (`Correlated`)."""

    def mean(self, x: Tensor) -> Tensor:
        """Of y, `(..., parameters)` -> `(..., m)`; differentiable."""
        ...


@runtime_checkable
class Correlated(GaussianModel, Protocol):
    """A Gaussian model whose noise is not white."""

    def covariance(self, x: Tensor) -> Tensor:
        """Of y, `(..., parameters)` -> `(..., m, m)`."""
        ...


@runtime_checkable
class Periodic(Protocol):
    """A model some of whose parameters live on a circle."""

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether a parameter's largest value is next to its least."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A model whose parameters have limits."""

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Least and largest value of each parameter."""
        ...


@runtime_checkable
class KnownPriorInformation(Protocol):
    """A model that knows `E ∇log p ∇log pᵀ` where draws cannot tell it."""

    @property
    def prior_information(self) -> Tensor | None:
        """Of all parameters, `(n, n)`, double; None where it is not known with these settings."""
        ...


@runtime_checkable
class Searchable(Protocol):
    """A model that says where a search for the likelihood's peak begins."""

    def grid(self, count: int | None = None) -> Tensor:
        """Points `(count, parameters)`."""
        ...


@runtime_checkable
class Profiled(Protocol):
    """A model that knows the best value of some parameters given the others."""

    def profile(self, x: Tensor, obs: Observation) -> Tensor:
        """The parameters with those that suit the others and y best."""
        ...


@runtime_checkable
class KnownPosterior(Protocol):
    """A problem whose posterior mean and variance are known, in closed form or by quadrature.

    A class that has them with some settings only says so by `has_posterior`; generic code asks `posterior_of`.
    """

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of the wanted parameters, exact to rounding or to the quadrature's tolerance."""
        ...


def posterior_of(problem: Any) -> Callable[[Observation], Estimate] | None:
    """The exact posterior mean and variance, where a problem knows them with its settings."""
    if ability(problem, KnownPosterior) is None or getattr(problem, "sources", 1) != 1:
        return None
    return problem.posterior


# Draws that were made before


@runtime_checkable
class Stored(Protocol):
    """A problem whose pairs are stored: its draws pick some of them."""

    def every(self) -> tuple[Tensor, Observation]:
        """All pairs of this part, each once."""
        ...


@runtime_checkable
class Distinct(Protocol):
    """A problem that can draw so that none comes twice."""

    def distinct(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` different pairs."""
        ...


@runtime_checkable
class KeepsValidation(Protocol):
    """A problem of stored draws that keeps some for validation, apart from those for tests."""

    def validation(self) -> Any:
        """Where validation draws come from."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A problem that draws from stored data, and knows their hash."""

    @property
    def fingerprint(self) -> str | None:
        """Of the data; None where these settings draw from none."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A simulator's runs fail; they are counted by kind."""

    @property
    def failures(self) -> Mapping[str, int]:
        """How many runs failed so far, by kind."""
        ...


@runtime_checkable
class Tabulated(Protocol):
    """A store of simulated runs, that says what became of them."""

    def table(self) -> list[dict[str, Any]]:
        """Rows with what became of the runs, how many of them, and an example."""
        ...
