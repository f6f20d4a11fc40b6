"""An algorithm as data: what it starts from, one step, what it reads off, and what its authors fixed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fanfold.core.domain import FREE as FREE
from fanfold.core.domain import POSITIVE as POSITIVE
from fanfold.core.domain import UNIT as UNIT
from fanfold.core.domain import Domain as Domain
from fanfold.core.settings import Checked
from fanfold.observation import Estimate, Observation
from fanfold.penalties import Penalty
from fanfold.priors import Prior

State = Any  # a NamedTuple of tensors, each algorithm's own
Theta = SimpleNamespace  # one tensor for each nominal, by name


@dataclass(frozen=True)
class Nominal(Checked):
    """A quantity that the algorithm's authors fixed, and that `unfold` may let move.

    Attributes:
        value: `(algorithm, obs) -> number or tensor`, the authors' choice. What depends on A alone is kept
            by `obs.A.once`, so that evaluating it costs nothing.
        domain: Where the quantity lives.
        lr_scale: The factor on the learning rate of its deviation; 10 suits the exponential domains, whose
            deviations are relative, and 1 the entries of a matrix.
        vector: Whether a number may be learned as a vector, one for each unknown.
        group: A name that stands for this quantity and others: `learn={"prior": "per-layer"}` learns every setting of
            the prior.

    Example:
        >>> import fanfold as ff
        >>> step = ff.algorithms.ISTA.nominals["step"]
        >>> step.domain.name, step.vector
        ('POSITIVE', True)
    """

    value: Callable[[Any, Any], float | Tensor]
    domain: Domain
    lr_scale: float = 10.0
    vector: bool = True
    group: str | None = None

    def tensor(self, algorithm: "Algorithm", obs: Observation) -> Tensor:
        """The value as a tensor of the observation's precision and device.

        Raises:
            ValueError: If each sample has its own A and the algorithm takes one.
        """
        if algorithm.one_matrix and obs.A is not None and obs.A.varies:
            raise ValueError(
                f"{type(algorithm).__name__} designs or learns matrices for one A, and here each sample has its own; "
                "take ISTA, FISTA, TISTA, AMP or OAMP."
            )
        value = self.value(algorithm, obs)
        if isinstance(value, Tensor):
            return value
        return torch.tensor(value, dtype=obs.y.dtype.to_real(), device=obs.y.device)


class Algorithm(Checked, ABC):
    """An iterative estimator: `start`, then `step` again and again, then `read`.

    A subclass is a frozen dataclass whose fields are its settings, numbers or text. A step reads the
    observation, its state and `theta`, never a Python value that depends on data, so that it traces and exports.

    Attributes:
        one_matrix: Whether it designs or learns matrices that belong to one A, so that samples cannot have their own.
        by_svd: Whether a step takes A apart into singular vectors, so that learning A calls for double precision.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> ista = ff.algorithms.ISTA(lam=0.1)
        >>> ista.read(ista.step(ista.start(obs), obs, ista.nominal_theta(obs))).x.shape
        torch.Size([8, 40])
    """

    one_matrix: ClassVar[bool] = False
    by_svd: ClassVar[bool] = False

    @property
    @abstractmethod
    def nominals(self) -> Mapping[str, Nominal]:
        """The quantities that the authors fixed, by name; a class attribute where no setting changes them."""

    @abstractmethod
    def start(self, obs: Observation) -> State:
        """The state before the first step."""

    @abstractmethod
    def step(self, s: State, obs: Observation, theta: Theta) -> State:
        """One iteration, written as in the paper."""

    @abstractmethod
    def read(self, s: State) -> Estimate:
        """The estimate that a state stands for."""

    def nominal_theta(self, obs: Observation) -> Theta:
        """The quantities, each at the value that the authors gave it."""
        return Theta(**{name: nominal.tensor(self, obs) for name, nominal in self.nominals.items()})


def settings_of(part: Prior | Penalty, field: str = "prior") -> dict[str, Nominal]:
    """The learnable settings of an algorithm's prior or penalty, as quantities of the algorithm."""

    def setting(name: str, domain: Domain) -> Nominal:
        value = attrgetter(name)(part)
        return Nominal(lambda *_: value, domain, group=field)

    return {name: setting(name, domain) for name, domain in part.learnable.items()}


def without_groups(algorithm: Algorithm, learn: Mapping[str, str]) -> dict[str, str]:
    """`learn` with each group's name replaced by its quantities; what is named by itself counts for more."""
    groups: dict[str, list[str]] = {}
    for name, nominal in algorithm.nominals.items():
        if nominal.group is not None and nominal.group not in algorithm.nominals:
            groups.setdefault(nominal.group, []).append(name)
    spread = {member: words for name, words in learn.items() for member in groups.get(name, ())}
    return spread | {name: words for name, words in learn.items() if name not in groups}


def positive(**settings: float) -> None:
    """Refuse settings that are not positive finite numbers.

    Raises:
        ValueError: Names the first setting that is wrong.
    """
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; pass a positive number.")
