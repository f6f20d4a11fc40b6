"""What a problem can do, beyond drawing: each ability is a protocol, and all stand in one file, to be seen at once.

A problem has an ability by having its members, as `fanfold.core.abilities` asks; it derives from nothing and is
registered nowhere, and generic code asks these protocols alone. A class whose settings decide says so itself: see
`SometimesPosterior`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.likelihoods import Likelihood
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.priors import Prior
from fanfold.problems.base import Problem
from fanfold.problems.kinds import Kind
from fanfold.problems.unknowns import Unknowns
from fanfold.propagation import Layout

# What is known of signals and measurements


@runtime_checkable
class KnownPrior(Protocol):
    """A prior of each unknown by itself; None where the settings leave it open."""

    @property
    def prior(self) -> Prior | None: ...


@runtime_checkable
class KnownNoise(Protocol):
    """White noise of one variance `E|w|²` in all draws, a number or a tensor of one; None where the data do not say."""

    @property
    def noise_var(self) -> Any: ...


def prior_of(problem: object) -> Prior | None:
    """The prior of each unknown by itself, where a problem knows one."""
    return problem.prior if offers(problem, KnownPrior) else None


def noise_var_of(problem: object) -> Any:
    """The noise variance of all draws, where there is one."""
    return problem.noise_var if offers(problem, KnownNoise) else None


@runtime_checkable
class LinearModel(KnownPrior, KnownNoise, Protocol):
    """Measurements `y = A x + w` of signals with a prior; A is None where observations do not carry it."""

    @property
    def A(self) -> LinearOperator | None: ...  # noqa: N802


@runtime_checkable
class RandomMatrix(LinearModel, Protocol):
    """One random `(m, n)` matrix of a named ensemble, for which state evolution is known."""

    @property
    def n(self) -> int: ...

    @property
    def m(self) -> int: ...

    @property
    def ensemble(self) -> str: ...

    @property
    def A(self) -> LinearOperator: ...  # noqa: N802


@runtime_checkable
class ErringModel(Protocol):
    """A problem whose measurements may come from another operator than A; None where nobody knows it."""

    @property
    def true_A(self) -> LinearOperator | None: ...  # noqa: N802


@runtime_checkable
class ThroughLikelihood(Protocol):
    """Measurements `y ~ p(y | A x)`, entry by entry, instead of `A x` and Gaussian noise."""

    @property
    def likelihood(self) -> Likelihood: ...


def likelihood_of(problem: object) -> Likelihood | None:
    """The likelihood of each measurement, where it is not `A x` and Gaussian noise by construction."""
    return problem.likelihood if offers(problem, ThroughLikelihood) else None


@runtime_checkable
class GuessedPrior(Protocol):
    """A prior of each unknown from which an algorithm may begin, fitted to signals where none is known."""

    @property
    def guessed_prior(self) -> Prior: ...


@runtime_checkable
class WithKind(Protocol):
    """A problem that says what one observation is, as it need not be a vector."""

    @property
    def kind(self) -> Kind: ...


def kind_of(problem: object) -> Kind:
    """What one observation of a problem is: a vector where the problem does not say."""
    return problem.kind if offers(problem, WithKind) else "vector"


@runtime_checkable
class ChannelProblem(Problem, Protocol):
    """A problem whose unknown is a radio channel over antennas and a resource grid, seen at its pilots."""

    @property
    def layout(self) -> Layout:
        """Shape and numerology of a channel."""
        ...

    @property
    def mask(self) -> Tensor:
        """Where the pilots are: `(symbols, subcarriers)`, boolean."""
        ...


@runtime_checkable
class WithScene(Protocol):
    """A problem whose unknowns are the voxels of a scene, in row-major order: how many along each axis, if they are."""

    @property
    def scene(self) -> tuple[int, ...] | None: ...


@runtime_checkable
class KnownWaveform(Protocol):
    """One source of known shape at an unknown place within a window, such as a frequency or a delay.

    Places nearer to each other than the resolution are not separated. The gain says what of the amplitude is unknown;
    nothing, where it is "known".
    """

    @property
    def window(self) -> tuple[float, float]: ...

    @property
    def resolution(self) -> float: ...

    @property
    def gain(self) -> str: ...

    def waveform(self, place: Tensor) -> Tensor:
        """The shape at places `(...)`, `(..., m)`."""
        ...


# A known model of all parameters: they are real, `(..., n)`, and those that are not wanted are nuisance parameters


@runtime_checkable
class Named(Protocol):
    """A model that says what each of all its parameters is called."""

    @property
    def names(self) -> tuple[str, ...]: ...


@runtime_checkable
class PartlyWanted(Protocol):
    """A model that says which of all its parameters, by place, are estimated; `sample` gives these alone."""

    @property
    def wanted(self) -> tuple[int, ...]: ...


def wanted_of(problem: object, count: int) -> list[int]:
    """Which of so many parameters are to be estimated: all where the problem does not say."""
    return list(problem.wanted if offers(problem, PartlyWanted) else range(count))


@runtime_checkable
class DrawsAll(Protocol):
    """A model that draws nuisance parameters too."""

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws of all parameters, `(n, parameters)`, and their observation."""


@runtime_checkable
class DrawsAt(Protocol):
    """A problem that draws observations at given parameters, those that `sample` gives; nuisance is drawn afresh."""

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """An observation of each of x `(samples, n)`, with the x whose runs succeeded; `Counted` ones count the others.

        Raises:
            ValueError: If none succeeds.
        """


@runtime_checkable
class KnownLikelihood(Named, Protocol):
    """A problem that knows `p(y|x)` up to nothing: a density, not merely the shape of one."""

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)` of all parameters, `(..., n)` with `(..., m)` -> `(...)`; differentiable in x."""


@runtime_checkable
class KnownJoint(KnownLikelihood, Protocol):
    """A problem that knows `p(x)` and `p(y|x)`, both up to nothing."""

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of all parameters, `(..., n)` -> `(...)`; -inf outside the support."""


@runtime_checkable
class KnownModel(KnownJoint, PartlyWanted, DrawsAll, Protocol):
    """A problem that knows `p(x)` and `p(y|x)`, draws from both, and says which parameters are wanted."""


@runtime_checkable
class GaussianModel(Protocol):
    """Measurements `y = mean(x) + w` with Gaussian noise: a `WhiteModel` or a `CorrelatedModel`."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean of y, `(..., parameters)` -> `(..., m)`; differentiable."""


@runtime_checkable
class WhiteModel(GaussianModel, KnownNoise, Protocol):
    """A Gaussian model with white noise."""


@runtime_checkable
class CorrelatedModel(GaussianModel, Protocol):
    """A Gaussian model whose noise has a covariance of its own."""

    def covariance(self, x: Tensor) -> Tensor:
        """The covariance of y, `(..., parameters)` -> `(..., m, m)`; differentiable."""


@runtime_checkable
class Periodic(Protocol):
    """A model that says of each parameter whether it lives on a circle, the largest value next to the least."""

    @property
    def periodic(self) -> tuple[bool, ...]: ...


def periodic_of(problem: object, count: int) -> tuple[bool, ...]:
    """Which of so many parameters live on a circle: none where the problem does not say."""
    return problem.periodic if offers(problem, Periodic) else (False,) * count


@runtime_checkable
class Limited(Protocol):
    """A model that says the least and the largest value of each parameter, or of each wanted one."""

    @property
    def limits(self) -> tuple[tuple[float, float], ...]: ...


@runtime_checkable
class Labelled(Protocol):
    """A problem that says what its unknowns are called, their units and limits, as far as it knows."""

    @property
    def unknowns(self) -> Unknowns: ...


def unknowns_of(problem: object) -> Unknowns:
    """What a problem says of its unknowns; nothing where it says none."""
    return problem.unknowns if offers(problem, Labelled) else Unknowns()


@runtime_checkable
class Restrictable(Protocol):
    """A problem whose parameters can be drawn from its prior given that they lie in a box."""

    def restricted(self, low: Sequence[float], high: Sequence[float], /) -> Problem:
        """The same problem, with each parameter between its bounds; infinite ones restrict nothing."""
        ...


def limits_of(problem: object, x: Tensor) -> tuple[tuple[float, float], ...]:
    """The least and the largest value of each parameter of x `(..., d)`: of all numbers where none is known."""
    count = x.shape[-1] * (2 if x.is_complex() else 1)
    source = problem.prior if offers(problem, KnownPrior) else None
    for thing in (problem, source):
        if offers(thing, Limited) and len(thing.limits) == count and not x.is_complex():
            return tuple((float(low), float(high)) for low, high in thing.limits)
    return ((-math.inf, math.inf),) * count


@runtime_checkable
class KnownPriorInformation(Protocol):
    """A model that knows `E ∇log p ∇log pᵀ`, `(n, n)`, where draws cannot tell it; None where it does not either."""

    @property
    def prior_information(self) -> Tensor | None: ...


@runtime_checkable
class Searchable(Protocol):
    """A model that says where a search for the likelihood's peak begins."""

    def grid(self, count: int | None = None) -> Tensor:
        """Points `(points, parameters)`; as many as the problem thinks right if the count is None."""


@runtime_checkable
class Profiled(Protocol):
    """A model that knows the best value of some parameters given the others."""

    def profile(self, x: Tensor, obs: Observation) -> Tensor:
        """The parameters with those that suit the others and y best."""


@runtime_checkable
class KnownPosterior(Protocol):
    """A problem whose posterior mean and variance are known; generic code asks `posterior_of`."""

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of the wanted parameters, exact to rounding or to the quadrature's tolerance."""


@runtime_checkable
class SometimesPosterior(KnownPosterior, Protocol):
    """A problem whose posterior is known with some settings only, and which says whether with these."""

    @property
    def has_posterior(self) -> bool: ...


def posterior_of(problem: object) -> Callable[[Observation], Estimate] | None:
    """The exact posterior mean and variance as an estimator; None where the problem does not know them."""
    if not offers(problem, KnownPosterior) or (offers(problem, SometimesPosterior) and not problem.has_posterior):
        return None
    return problem.posterior


# What a problem needs beyond its settings. A class is asked before anything is built, for its settings may have come
# from elsewhere: nothing is opened or started for the answer


@runtime_checkable
class ReadsFiles(Protocol):
    """A class of problems that read files or folders."""

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The files and folders that a problem of these settings reads."""
        ...


@runtime_checkable
class StartsPrograms(Protocol):
    """A class of problems that start programs."""

    @staticmethod
    def commands_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The commands that a problem of these settings starts."""
        ...


# Draws that were made before


@runtime_checkable
class Stored(Protocol):
    """A problem whose pairs are stored: its draws pick some of them."""

    def every(self) -> tuple[Tensor, Observation]:
        """All pairs of this part, each once."""


@runtime_checkable
class FromStock(Protocol):
    """A problem that draws from a small stock, which whoever reads a result should know."""

    @property
    def stock(self) -> str:
        """What the stock is, and how large."""
        ...


@runtime_checkable
class Distinct(Protocol):
    """A problem that can draw so that none comes twice."""

    def distinct(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` different pairs."""


@runtime_checkable
class DrawnInGroups(Protocol):
    """A problem whose draws of one call share conditions: so many conditions, whatever the number of draws."""

    @property
    def groups(self) -> int | None:
        """How many conditions a call has; of as many draws each has its own. None where each draw has its own."""
        ...


@runtime_checkable
class OfConditions(Protocol):
    """A problem of several conditions, which says which of them each draw of a call has.

    Attributes:
        weights: The importance of each condition, `(conditions,)`, of sum one.
    """

    @property
    def weights(self) -> Tensor: ...

    def condition_of(self, n: int) -> Tensor:
        """The number of the condition of each of n draws of a call, `(n,)`."""
        ...


@runtime_checkable
class KeepsValidation(Protocol):
    """A problem of stored draws that keeps some for validation, apart from those for tests."""

    def validation(self) -> Any:
        """The problem that validation draws come from."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A problem that draws from stored data, and knows their hash; None where its settings draw from none."""

    @property
    def fingerprint(self) -> str | None: ...


@runtime_checkable
class SaysReading(Protocol):
    """A problem that says what it read from the user's files, and whether it looks wrong; training repeats it."""

    @property
    def reading(self) -> str | None: ...

    @property
    def doubt(self) -> str | None: ...


@runtime_checkable
class MaybeMeasured(Protocol):
    """A problem that says whether its pairs were measured, or simulated before: no setting changes their SNR."""

    @property
    def measured(self) -> bool: ...


@runtime_checkable
class MaybeHandedOver(Protocol):
    """A problem that says whether its data were handed over in Python, which no settings tell."""

    @property
    def handed_over(self) -> bool: ...


@runtime_checkable
class Counted(Protocol):
    """A simulator whose runs may fail, and which has counted its failures by kind."""

    @property
    def failures(self) -> Mapping[str, int]: ...


@runtime_checkable
class Tabulated(Protocol):
    """A store of simulated runs, that says what became of them."""

    def table(self) -> list[dict[str, Any]]:
        """Rows with what became of the runs, how many of them, and an example."""
