"""What an estimator can do beyond estimating: each ability is a protocol, and generic code asks these alone.

An estimator has an ability by having its members; none needs a base class. What can be trained and kept has `Settings`,
a frozen dataclass that builds it, and a row in `fanfold.estimators.REGISTRY`. One file holds all, to be seen together.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Estimator, Observation

# Training: what `fit` asks for; a module without any of these is trained on its NMSE, all parameters alike


@runtime_checkable
class SelfJudged(Protocol):
    """An estimator that says itself what to minimise."""

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of each sample, `(batch,)`."""
        ...


@runtime_checkable
class HeldOutJudged(Protocol):
    """An estimator whose best weights are chosen by another loss than the one that is minimised."""

    def held_out_losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of each held-out sample, `(batch,)`."""
        ...


@runtime_checkable
class GoodFromStart(Protocol):
    """An estimator that may be good before it is trained, as one that is made of a trained one.

    Weights that training finds are taken in place of those that it began with only where held-out draws show beyond
    chance that they are better.
    """

    @property
    def good_from_start(self) -> bool:
        """Whether it is."""
        ...


@runtime_checkable
class Preparable(Protocol):
    """An estimator that learns something in closed form before the first step."""

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Learn from pairs that may be trained on; `fit` calls it once, without gradients."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """An estimator whose quantities learn at rates of their own."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser: `params`, `lr` and, if need be, `decay_scale`, of the weight decay.

        With `matrices` true, its parameters `(..., rows, columns)` of several rows and columns may move as matrices.
        """
        ...


@runtime_checkable
class WithTrainingDefaults(Protocol):
    """An estimator that knows how it is best trained."""

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """Fields of `Training`, for what the user does not give."""
        ...


@runtime_checkable
class FollowsBudget(Protocol):
    """An estimator that takes the size which suits the number of draws that there are to learn from."""

    def follow(self, simulations: int) -> Mapping[str, Any]:
        """Take that size, untrained, and say the fields of `Training` that suit it; 0 is fresh draws at every step."""
        ...


@runtime_checkable
class LearnsByChance(Protocol):
    """An estimator whose losses leave entries out by chance, from torch's global generator."""

    @property
    def by_chance(self) -> bool:
        """Whether they do."""
        ...


class LeftOut(NamedTuple):
    """What members say of the samples that each of them left out."""

    scores: Tensor  # (members,) mean loss of each on its fold
    x: Tensor  # (judged, n) the estimates
    judged: Tensor  # (samples,) whether a sample was left out by some member


@runtime_checkable
class CrossValidated(Protocol):
    """An estimator of members that leave out some draws each: all draws train, all judge.

    Each member has best weights of its own. Which draws it leaves out is told by their numbers, in `losses` too.
    """

    def left_out(self, obs: Observation, x: Tensor) -> LeftOut:
        """The scores of the members on what they left out, and what they say of it."""
        ...

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of some members, `which` of `(members,)`, into the best ones, in place."""
        ...


class Conclusion(NamedTuple):
    """What an estimator has come to after the last step: the error of its estimates in dB, and a sentence on it."""

    nmse_db: float
    sentence: str


@runtime_checkable
class Concluding(Protocol):
    """An estimator that learns something in closed form after the last step."""

    def conclude(self, x: Tensor, obs: Observation) -> Conclusion:
        """Learn from the pairs that it was trained on."""
        ...


class Region(NamedTuple):
    """A box of parameters, `(n,)` each; infinite where nothing bounds them."""

    low: Tensor
    high: Tensor


@runtime_checkable
class WithinLimits(Protocol):
    """An estimator that knows the limits of its unknowns, which none of its estimates leaves."""

    @property
    def support(self) -> Region:
        """The least and the largest value of each unknown."""
        ...


@runtime_checkable
class TrainedInRounds(Protocol):
    """An estimator for one observation, which is trained in rounds of simulations whose region shrinks around it.

    Attributes:
        rounds: How many there are.
    """

    rounds: int

    @property
    def observed(self) -> Tensor:
        """The measurements that it is for, `(1, ...)`."""
        ...

    @property
    def everywhere(self) -> Region:
        """Where the parameters lie by the prior."""
        ...

    def renewed(self) -> nn.Module:
        """What a round trains: a part of this estimator, untrained anew."""
        ...

    def narrowed(self, generator: torch.Generator, wider: float = 1.0) -> Region:
        """The part of the last round's region, so many times as wide as usual, that holds the posterior as learned."""
        ...

    def likeness(self, draws: Observation) -> float:
        """A p-value of the observation among draws from a region, small where it is unlike them."""
        ...

    def settle(self, region: Region, obs: Observation) -> None:
        """Take the region of a round, and what its draws give; the observations outside their range are warned of."""
        ...


Draws = Callable[[int, int], tuple[Tensor, Observation]]  # how many, and the number of the draw -> x and obs


class Term(NamedTuple):
    """Steps `first … last - 1` of a course of lessons, and the factor on the learning rate in them."""

    first: int
    last: int
    lr_factor: float


class Lessons(Protocol):
    """A course of lessons in terms, each made of the estimator as it is when the term begins.

    What it remembers is tensors, so that a training that stopped goes on to the same bits.
    """

    @property
    def terms(self) -> Sequence[Term]:
        """The terms, one after the other."""
        ...

    def begin(self, term: int) -> None:
        """Make what a term is taught with; without gradients."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of the lesson at a step of the training, a number with gradients."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that the next lesson needs beside the estimator's weights, real or whole numbers."""
        ...

    def restore(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go on after so many steps of the training, from what `state` gave then."""
        ...


@runtime_checkable
class SelfTaught(Protocol):
    """An estimator that is taught by lessons which it makes of draws itself, not by the error of its estimates."""

    def lessons(self, draw: Draws, steps: int, batch: int, seed: int) -> Lessons:
        """The whole course: so many steps of so many samples; the seed is that of all that is random but the draws."""
        ...


# Structure


@runtime_checkable
class WithTrajectory(Protocol):
    """An estimator with an estimate after each of its iterations or layers."""

    def trajectory(self, obs: Observation) -> list[Estimate]:
        """The estimates, the last of which is that of a call."""
        ...


@runtime_checkable
class WithFeatures(Protocol):
    """An estimator that sums measurements up first: real numbers of zero mean and unit variance over its training."""

    @property
    def features(self) -> Callable[[Observation], Tensor]:
        """From an observation to `(batch, ...)`; leading axes of y, if several, become one."""
        ...


@runtime_checkable
class WithMembers(Protocol):
    """An estimator of several that learned the same thing apart."""

    def said_by_members(self, obs: Observation) -> Tensor:
        """What each of them says, `(members, batch, n)`."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A network of layers that can be cut short.

    Attributes:
        layers: How many have deviations of their own.
        depth: How many iterations of a classical algorithm stand beside it in comparisons.
    """

    layers: int

    @property
    def depth(self) -> int: ...

    def __call__(self, obs: Observation, /) -> Estimate: ...

    def trajectory(self, obs: Observation, depth: int | None = None, latest: int | None = None) -> list[Estimate]:
        """The estimate of every layer, or of the first `depth` layers; of these only the `latest` ones if so wished."""
        ...


@runtime_checkable
class OfAlgorithm(Protocol):
    """An estimator that runs an iterative algorithm.

    Attributes:
        algorithm: The algorithm.
    """

    algorithm: Any


@runtime_checkable
class Restrainable(Protocol):
    """A network whose deviations one number scales: 0 is what it started from, 1 the trained network."""

    strength: float


@runtime_checkable
class ScaleAware(Protocol):
    """An estimator that says whether measurements in other units give the estimate in other units, and no other."""

    @property
    def scale_equivariant(self) -> bool:
        """Whether a factor on `y`, squared on `noise_var`, is a factor on the estimate."""
        ...


@runtime_checkable
class WithOrigin(Protocol):
    """A network that was something else before it learned."""

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The estimator at zero deviation, and what comparisons call it."""
        ...


@runtime_checkable
class Bound(Protocol):
    """A network that belongs to one operator, and refuses another."""

    @property
    def operator(self) -> LinearOperator:
        """The operator."""
        ...

    @property
    def fingerprint(self) -> str:
        """The hash of the operator."""
        ...


@runtime_checkable
class Quantiled(Protocol):
    """An estimator that knows quantiles of the posterior."""

    def quantiles(self, obs: Observation) -> Tensor:
        """`(..., levels, n)`, in rising order."""
        ...


@runtime_checkable
class WithEnds(Protocol):
    """An estimator that says the ends of calibrated intervals around its estimates of real unknowns."""

    def ends(self, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """The lower and the upper ends, `(..., n)` both."""
        ...


@runtime_checkable
class Classifying(Protocol):
    """An estimator of a discrete parameter: what it says are probabilities of its classes."""

    @property
    def classes(self) -> int:
        """How many there are."""
        ...


@runtime_checkable
class MeasuresNoise(Protocol):
    """An estimator that measures the noise variance where it is not told one."""

    @property
    def measures_noise(self) -> bool:
        """Whether the estimator measures it."""
        ...


@runtime_checkable
class InWholeNumbers(Protocol):
    """A network that computes in whole numbers, and of which an integer program is made.

    Attributes:
        network: The network with the same weights, in floating point.
        form: Its layers, an `IntegerForm`.
        widths: The bits of weights and activations.
        pairs_fit: Whether weights leave room for two products in 16 bits.
        fractions: The fraction of each port and each narrowed value.
        calibrated: Whether these are chosen, a boolean.
    """

    network: nn.Module
    form: Any
    widths: Any
    pairs_fit: bool
    fractions: Tensor
    calibrated: Tensor

    @property
    def known_noise_var(self) -> float | None:
        """The noise variance that its tables are made for."""
        ...


@runtime_checkable
class Costly(Protocol):
    """A slow estimator, that comparisons ask for some draws only."""

    at_most: int


@runtime_checkable
class Remembering(Protocol):
    """An estimator whose calls depend on those before: a program of it has what it remembers as ports, in and out."""

    @property
    def remembered(self) -> Mapping[str, Tensor]:
        """What the next call depends on, by name, `(k,)` each, real."""
        ...

    def chance(self, obs: Observation, calls: Sequence[int]) -> Mapping[str, Tensor]:
        """What is drawn by lot in the calls of these numbers, by name, `(batch, ...)`; none where nothing is."""
        ...

    def step(self) -> nn.Module:
        """One call of streams side by side, `(streams, ...)`: `(obs, chance, remembered) -> (estimate, remembered)`."""
        ...


# Keeping


@runtime_checkable
class Settings(Protocol):
    """A frozen dataclass of plain fields that says all of a network but its weights."""

    def build(self, problem: Any, /) -> nn.Module:
        """The untrained network for a problem."""
        ...


@runtime_checkable
class OperatorBuilt(Settings, Protocol):
    """Settings of a network that needs nothing of its problem but the operator; an `Observation` with A will do."""

    @property
    def needs_operator_only(self) -> bool:
        """True."""
        ...


@runtime_checkable
class Kept(Protocol):
    """A network that can be written down and built again."""

    @property
    def settings(self) -> Settings | None:
        """What builds it again; None where functions or classes of the user's own went into it."""
        ...


@singledispatch
def known_peers(problem: object) -> dict[str, Estimator]:
    """Classical estimators of one kind of problem, by name; a kind is registered beside its estimators."""
    return {}


def fingerprint_of(estimator: object) -> str | None:
    """Hash of the operator that an estimator belongs to, or None."""
    bound = ability(estimator, Bound)
    return None if bound is None else bound.fingerprint


def device_of(estimator: object) -> torch.device:
    """Where an estimator's parameters are; the CPU if it has none."""
    first = next(estimator.parameters(), None) if isinstance(estimator, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
