"""Where a simulator's parameters come from: anything that maps `(n, generator)` to draws `(n, d)`."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.core.settings import Checked
from fanfold.priors import Gaussian, Prior


class Parameters(Checked, ABC):
    """A distribution of several real parameters that a run directory can name.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.problems.simulators import Parameters
        >>> isinstance(ff.problems.Box((0.0,), (1.0,)), Parameters)
        True
    """

    @abstractmethod
    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws in double precision, `(n, d)`."""


@dataclass(frozen=True)
class Box(Parameters):
    """Parameters that are uniform between bounds, independent of each other.

    Raises:
        ValueError: If there are not as many lower as upper bounds, or one is not below the other.

    Example:
        >>> import torch, fanfold as ff
        >>> box = ff.problems.Box(low=(1.0, 0.0), high=(3.0, 0.5))
        >>> tuple(box(5, torch.Generator().manual_seed(0)).shape)
        (5, 2)
    """

    low: tuple[float, ...] = (0.0,)  # lower bound of each parameter
    high: tuple[float, ...] = (1.0,)  # upper bound of each parameter

    def __post_init__(self):
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"{len(self.low)} lower and {len(self.high)} upper bounds; pass one of each a parameter.")
        for i, (low, high) in enumerate(zip(self.low, self.high)):
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"parameter {i} is to lie between {low} and {high}; pass low < high, both finite.")

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The bounds of each parameter."""
        return tuple(zip(self.low, self.high))

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (self.low, self.high))
        return low + (high - low) * torch.rand(n, len(low), generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Independent(Parameters):
    """Parameters that are independent draws of one prior, real.

    Raises:
        ValueError: If there are none.

    Example:
        >>> import torch, fanfold as ff
        >>> gaussian = ff.problems.Independent(ff.priors.Gaussian(4.0), count=3)
        >>> tuple(gaussian(5, torch.Generator().manual_seed(0)).shape)
        (5, 3)
    """

    of: Prior = field(default_factory=Gaussian)  # prior of each parameter
    count: int = 1  # number of parameters

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"count is {self.count}; pass a positive number of parameters.")

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        return self.of.sample((n, self.count), generator, torch.float64)
