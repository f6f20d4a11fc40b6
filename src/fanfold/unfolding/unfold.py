"""Running an algorithm, and unfolding it into a network whose zero deviation is the algorithm.

Unfolding: Gregor & LeCun (2010); Monga, Li & Eldar (2021). The deviations are fanfold's own idea.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA
from fanfold.algorithms.base import Algorithm, State, Theta, without_groups
from fanfold.core.settings import Checked, checks_arguments
from fanfold.linops import LinearOperator
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation
from fanfold.unfolding.boundary import HasOperator, admitted, bound_to, operator_of
from fanfold.unfolding.learn import lookup, zero_deviation
from fanfold.unfolding.loops import checkpointed, iterates, last


@dataclass(frozen=True)
class Iterated(Checked):
    """A classical algorithm with a fixed number of iterations, as an estimator; made by `iterate`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> len(ff.iterate(ff.algorithms.ISTA(), 100).trajectory(obs))
        100
    """

    algorithm: Algorithm
    iterations: int  # how many steps are taken

    def __post_init__(self):
        _check_count("iterations", self.iterations)

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate after the last iteration."""
        return self.algorithm.read(last(self._states(obs))).in_precision(obs.y.dtype)

    def trajectory(self, obs: Observation) -> list[Estimate]:
        """The estimate after each iteration."""
        return [self.algorithm.read(s).in_precision(obs.y.dtype) for s in self._states(obs)]

    def _states(self, obs: Observation) -> Iterator[State]:
        obs = admitted(self.algorithm, obs)
        return iterates(self.algorithm, obs, [self.algorithm.nominal_theta(obs)] * self.iterations)


@checks_arguments
def iterate(algorithm: Algorithm, iterations: int) -> Iterated:
    """The classical algorithm as an estimator: `iterate(ISTA(), 100)(obs)` is the estimate after 100 steps.

    Raises:
        ValueError: If there is no iteration.
    """
    return Iterated(algorithm, iterations)


@checks_arguments
def unfold(
    algorithm: Algorithm,
    problem_or_obs: HasOperator,
    layers: int,
    learn: Mapping[str, str] | None = None,
    *,
    checkpoint: bool = False,
) -> "Unfolded":
    """T steps of an algorithm as T layers whose named quantities may deviate from their nominal values.

    Args:
        algorithm: The algorithm that the untrained network is, bit for bit.
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        layers: The number T of layers.
        learn: For each quantity that may move, how it is shared and how fine it is: "tied" (one deviation for
            all layers) or "per-layer", and optionally "scalar", "vector" (one for each unknown) or "matrix"
            (quantities that are matrices). `{"threshold": "per-layer vector"}` is one threshold a coefficient
            and layer. Without a word on granularity a deviation has the shape of its quantity. Nothing is
            learned by default. The name of a group stands for all its quantities: `{"prior": "per-layer"}`.
        checkpoint: Train in the memory of a few layers, taking every step two more times. The numbers and the weights
            are the same.

    Raises:
        ValueError: If a quantity or a word is unknown, a granularity does not fit, `layers` is not positive or
            there is no operator.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 16, learn={"threshold": "per-layer"})
        >>> obs = problem.sample(8, torch.Generator().manual_seed(0))[1]
        >>> torch.equal(net(obs).x, ff.iterate(ff.algorithms.ISTA(), 16)(obs).x)
        True
    """
    return Unfolded(algorithm, problem_or_obs, layers, learn or {}, checkpoint=checkpoint)


class Unfolded(nn.Module):
    """T layers of an algorithm with learned deviations; made by `unfold`.

    Attributes:
        strength: In [0, 1], scales every deviation: 0 is the classical algorithm, 1 the trained network.
        checkpoint: Whether the backward pass takes the steps again instead of remembering them.
        scale_equivariant: False, as algorithms may have settings in the units of the measurements.

    Example:
        >>> import fanfold as ff
        >>> net = ff.unfold(ff.algorithms.AMP(), ff.problems.CompressedSensing(n=40, m=20), 8, {"alpha": "per-layer"})
        >>> net.strength, net.deviations["alpha"].abs().max().item()
        (1.0, 0.0)
    """

    scale_equivariant: ClassVar[bool] = False

    def __init__(
        self,
        algorithm: Algorithm,
        problem_or_obs: HasOperator,
        layers: int,
        learn: Mapping[str, str],
        *,
        checkpoint: bool = False,
    ):
        super().__init__()
        _check_count("layers", layers)
        A, learn = operator_of(problem_or_obs), without_groups(algorithm, learn)
        self.algorithm, self.layers, self.learn, self.checkpoint = algorithm, layers, learn, checkpoint
        self._bound, self._strength = A, 1.0
        self._kept: tuple[tuple, list[Theta], list] | None = None
        template = Observation.unchecked(torch.zeros(A.m, dtype=A.wide.dtype, device=A.device), A.wide)
        zeros = {
            name: zero_deviation(name, words, lookup(algorithm, name), algorithm, template, layers)
            for name, words in learn.items()
        }
        self.deviations = nn.ParameterDict(zeros)

    @property
    def fingerprint(self) -> str:
        """The hash of the operator that the network belongs to; another one is refused."""
        return self._bound.fingerprint()

    @property
    def operator(self) -> LinearOperator:
        """The operator that the network belongs to."""
        return self._bound

    @property
    def settings(self) -> Any:
        """The settings that build the network again; a subclass has settings of its own."""
        return UnfoldedSettings(self.algorithm, self.layers, self.learn, self.checkpoint)

    @property
    def origin(self) -> tuple[str, Iterated]:
        """The classical algorithm that the network is at zero deviation."""
        algorithm: Algorithm = self.settings.algorithm  # without what a subclass puts into it
        return f"untrained {type(algorithm).__name__}", Iterated(algorithm, self.depth)

    @property
    def strength(self) -> float:
        """How far the network leaves the algorithm: 0 not at all, 1 as trained."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"strength is {value}; pass a number from 0 (the algorithm) to 1 (the trained network).")
        self._strength = float(value)

    @property
    def depth(self) -> int:
        """How many iterations of a classical algorithm stand beside it in comparisons."""
        return self.layers

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """The estimate of the last layer."""
        return self.trajectory(obs, latest=1)[0]

    def trajectory(self, obs: Observation, depth: int | None = None, latest: int | None = None) -> list[Estimate]:
        """The estimate of every layer, or of the first `depth` layers; of these only the `latest` ones if so wished."""
        dtype, obs = obs.y.dtype, self.admitted(obs)
        thetas = self.thetas(obs)[:depth]
        skip = 0 if latest is None else max(0, len(thetas) - latest)
        if self.checkpoint and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            estimates = checkpointed(self.algorithm, obs, thetas, skip)
        else:
            states = iterates(self.algorithm, obs, thetas)
            estimates = [self.algorithm.read(s) for s in itertools.islice(states, skip, None)]
        return [estimate.in_precision(dtype) for estimate in estimates]

    def admitted(self, obs: Observation) -> Observation:
        """The observation in the precision in which layers compute, once its operator is known to be the network's.

        Of an operator in another precision the network's own is taken, in whose precision layers then compute.

        Raises:
            ValueError: If the operator is another, or zero.
        """
        A = operator_of(obs)
        if A is not self._bound:
            self._bound = bound_to(A, self._bound)
        if A.dtype != self._bound.dtype:
            obs = Observation.unchecked(obs.y, self._bound.wide, obs.noise_var).in_precision(self._bound.wide.dtype)
        numbers_alone = len([*self.parameters()]) == len(self.deviations)  # networks inside have their own precision
        return admitted(self.algorithm, obs, in_double=numbers_alone)

    def moved_to(self, problem_or_obs: HasOperator) -> "Unfolded":
        """These deviations on another operator, such as a larger array of the same kind: train small, use large.

        Raises:
            ValueError: If one has an entry for each unknown or is a matrix, or there is a CNN: they belong to their A.
        """
        if len(self.state_dict()) > len(self.deviations):
            raise ValueError(f"{type(self).__name__} holds more than numbers; only numbers can be moved.")
        for name, d in self.deviations.items():
            if d[0].numel() > 1:
                raise ValueError(f"{name} was learned as {tuple(d.shape[1:])} for this A; only numbers can be moved.")
        moved = Unfolded(self.algorithm, problem_or_obs, self.layers, self.learn, checkpoint=self.checkpoint)
        moved.load_state_dict(self.state_dict())
        moved.strength = self.strength
        return moved

    def bind(self, A: LinearOperator) -> None:
        """Take another operator of the same shape for its own; deviations stay. For a dictionary that is learned."""
        if (A.shape, A.dtype) != (self._bound.shape, self._bound.dtype):
            raise ValueError(f"the network was unfolded for {self._bound}, {self._bound.dtype}; {A} is {A.dtype}.")
        self._bound = A

    def parameter_groups(self, lr: float) -> list[dict]:
        """Parameter groups for an optimiser, each with its quantity's share of the learning rate."""
        nominals = self.algorithm.nominals
        return [{"params": [d], "lr": lr * nominals[name].lr_scale} for name, d in self.deviations.items()]

    def thetas(self, obs: Observation) -> list[Theta]:
        """The quantities of every layer for an observation that `admitted` gave, at the network's strength."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._layer_thetas(obs)
        # Adding deviations to matrices is dear: without gradients what was added last is kept while nothing changes.
        values = [nominal.value(self.algorithm, obs) for nominal in self.algorithm.nominals.values()]
        same = tuple(id(v) if isinstance(v, Tensor) else v for v in values)
        versions = [(id(d), d.data_ptr(), d._version) for d in self.deviations.values()]
        key = (same, self._strength, obs.y.dtype, obs.y.device, *versions)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._layer_thetas(obs), values)  # the values too, so that no other gets their id
        return self._kept[1]

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        fixed = vars(self.algorithm.nominal_theta(obs))
        moved = {name: self._effective(name, fixed[name]) for name in self.deviations}
        return [Theta(**fixed | {name: values[t] for name, values in moved.items()}) for t in range(self.layers)]

    def _effective(self, name: str, v: Tensor) -> list[Tensor]:
        """The quantity in every layer."""
        d = self.deviations[name] if self._strength == 1 else self.deviations[name] * self._strength
        d = d.to(v.dtype if d.is_complex() else v.dtype.to_real())
        values = self.algorithm.nominals[name].domain.deviate(v, d).unbind(0)
        return list(values) * (self.layers if len(values) == 1 else 1)

    def _apply(self, fn, recurse=True):
        self._kept = None  # parameters move to another device or precision
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """The algorithm and the settings, for `repr`."""
        return f"{self.algorithm}, layers={self.layers}, learn={self.learn}, strength={self.strength}"


@dataclass(frozen=True)
class UnfoldedSettings(Checked):
    """The settings of an unfolded network: all of it but its weights.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.unfolding.UnfoldedSettings(ff.algorithms.ISTA(), layers=8)
        >>> settings.build(ff.problems.CompressedSensing(n=40, m=20)).layers
        8
    """

    algorithm: Algorithm = field(default_factory=FISTA)  # what is unfolded
    layers: int = 16  # iterations that become layers
    learn: Mapping[str, str] = field(default_factory=dict)  # sharing and granularity of each quantity that may move
    checkpoint: bool = False  # train in the memory of a few layers

    needs_operator_only: ClassVar[bool] = True

    def build(self, problem_or_obs: HasOperator) -> Unfolded:
        """The untrained network for a problem or an observation."""
        return unfold(self.algorithm, problem_or_obs, self.layers, self.learn, checkpoint=self.checkpoint)


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}; pass at least 1.")
