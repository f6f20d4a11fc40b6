"""Where a simulator's parameters come from: anything that maps `(n, generator)` to draws `(n, d)`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.core.settings import Checked
from fanfold.priors import Gaussian, Prior

Sampler = Callable[[int, torch.Generator], Tensor]
Bounds = Sequence[float]  # of each parameter, infinite where there is none

MOST_REJECTED = 2**24  # draws outside a box, all of them, after which nothing is expected inside
BLOCK, LARGEST_BLOCK = 2**10, 2**18  # draws that are made at once to begin with, and at most


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

    def between(self, low: Bounds, high: Bounds) -> "Parameters":
        """The same distribution, given that each parameter lies between its bounds."""
        return Truncated(self, tuple(low), tuple(high))

    def draws_between(self, low: Tensor, high: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws `(n, d)` that lie between the bounds `(d,)`.

        Raises:
            ValueError: If none of 2²⁴ draws does.
        """
        return accepted(self, lambda x: ((low <= x) & (x <= high)).all(-1), n, generator)


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

    def between(self, low: Bounds, high: Bounds) -> "Box":
        """The part of the box between bounds, which is a box again."""
        _check_bounds(low, high, len(self.low))
        return Box(tuple(map(max, self.low, low)), tuple(map(min, self.high, high)))


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

    def draws_between(self, low: Tensor, high: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws `(n, d)` between the bounds: each parameter by itself, as they are independent."""

        def alone(count: int, generator: torch.Generator) -> Tensor:
            return self.of.sample((count, 1), generator, torch.float64)

        _check_bounds(low.tolist(), high.tolist(), self.count)
        columns = zip(low, high)
        drawn = [accepted(alone, lambda x, a=a, b=b: ((a <= x) & (x <= b))[:, 0], n, generator) for a, b in columns]
        return torch.cat(drawn, -1)


@dataclass(frozen=True)
class Truncated(Parameters):
    """Parameters drawn from another distribution, given that they lie in a box: the others are drawn again.

    Within the box the density is that of the other distribution but for a factor, so that a posterior whose mass lies
    in the box is as it was (Deistler, Gonçalves & Macke, 2022, section 3).

    Raises:
        ValueError: If there are not as many lower as upper bounds, one is not below the other, or the box holds none of
            the draws.

    Example:
        >>> import torch, fanfold as ff
        >>> positive = ff.problems.Truncated(ff.problems.Independent(), low=(0.0,), high=(1.0,))
        >>> bool((positive(100, torch.Generator().manual_seed(0)) >= 0).all())
        True
    """

    of: Sampler = field(default_factory=Independent)  # distribution that is truncated
    low: tuple[float, ...] = (-math.inf,)  # lower bound of each parameter
    high: tuple[float, ...] = (math.inf,)  # upper bound of each parameter

    def __post_init__(self):
        _check_bounds(self.low, self.high, len(self.low))

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The bounds of each parameter."""
        return tuple(zip(self.low, self.high))

    def between(self, low: Bounds, high: Bounds) -> "Truncated":
        """The part of the box between bounds; the distribution that is truncated stays the same."""
        _check_bounds(low, high, len(self.low))
        return Truncated(self.of, tuple(map(max, self.low, low)), tuple(map(min, self.high, high)))

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (self.low, self.high))
        if isinstance(self.of, Parameters):
            return self.of.draws_between(low, high, n, generator)
        return accepted(self.of, lambda x: ((low <= x) & (x <= high)).all(-1), n, generator)


def between(prior: Sampler, low: Bounds, high: Bounds) -> Parameters:
    """A distribution of parameters, or a function that draws them, given that they lie between bounds."""
    return prior.between(low, high) if isinstance(prior, Parameters) else Truncated(prior, tuple(low), tuple(high))


def accepted(sampler: Sampler, accept: Callable[[Tensor], Tensor], n: int, generator: torch.Generator) -> Tensor:
    """The first `n` draws `(n, d)` that are accepted; they are made in blocks that grow.

    Args:
        sampler: What draws.
        accept: Says of draws `(m, d)` which are accepted, `(m,)`.
        n: How many are wanted.
        generator: Where chance comes from.

    Raises:
        ValueError: If none of 2²⁴ draws is accepted.
    """
    parts: list[Tensor] = []
    kept, tried, block = 0, 0, max(n, BLOCK)
    while kept < n:
        x = torch.as_tensor(sampler(block, generator)).double()
        parts.append(x[accept(x)])
        kept, tried, block = kept + len(parts[-1]), tried + block, min(2 * block, max(n, LARGEST_BLOCK))
        if not kept and tried >= MOST_REJECTED:
            raise ValueError(
                f"none of {tried} draws of the parameters lies in the box: it holds next to nothing of the prior. Pass "
                "wider bounds, or a prior that draws from the box itself, such as Box."
            )
    return torch.cat(parts)[:n]


def _check_bounds(low: Bounds, high: Bounds, count: int) -> None:
    if len(low) != count or len(high) != count or not count:
        raise ValueError(
            f"{len(low)} lower and {len(high)} upper bounds of {count} parameters; pass one of each a parameter."
        )
    for i, (least, most) in enumerate(zip(low, high)):
        if not least < most:
            raise ValueError(f"parameter {i} is to lie between {least} and {most}; pass low < high.")
