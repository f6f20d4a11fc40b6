"""Penalties on x and their proximal maps `argmin_x ½‖x - r‖² + step · penalty(x)`: what proximal algorithms minimise.

Real and complex alike: a penalty sees magnitudes. A new one is a class here and a row in the REGISTRY.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.domain import POSITIVE, Domain
from fanfold.core.settings import Checked
from fanfold.core.units import power
from fanfold.shrinkage import Level, firm, group_soft, scad, soft

__all__ = ["L1", "MCP", "REGISTRY", "SCAD", "GroupL1", "Penalty", "Ridge"]

Signal = Inexact[Tensor, "*batch n"]


class Penalty(Checked, ABC):
    """A function of x that a proximal algorithm adds to its misfit.

    Attributes:
        learnable: The settings that an algorithm may learn, and where each lives.

    Example:
        >>> import fanfold as ff, torch
        >>> penalty, r = ff.penalties.L1(lam=1.0), torch.tensor([3.0, -0.5])
        >>> penalty.value(r).item(), penalty.prox(r, 1.0).tolist()
        (3.5, [2.0, -0.0])
    """

    learnable: ClassVar[Mapping[str, Domain]] = {}

    @abstractmethod
    def value(self, x: Signal) -> Float[Tensor, "*batch"]:
        """The penalty on each signal `(..., n)`."""

    @abstractmethod
    def prox(self, r: Signal, step: Level, given: Any = None) -> Signal:
        """The x that minimises `½‖x - r‖² + step · penalty(x)`.

        Args:
            r: The signal to stay near.
            step: The factor on the penalty, positive, broadcasting against `r`.
            given: Whatever has the `learnable` settings as attributes, numbers or tensors that learn; this penalty
                itself if None.
        """


@dataclass(frozen=True)
class L1(Penalty):
    """The l1 norm `lam ‖x‖₁`, whose proximal map is the soft threshold.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.penalties.L1(lam=0.5).prox(torch.tensor([2.0, 0.1]), 1.0).tolist()
        [1.5, 0.0]
    """

    lam: float = 0.1  # weight of the l1 norm

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam * x.abs().sum(-1)

    def prox(self, r, step, given=None):
        return soft(r, _threshold(r, step, given or self))


@dataclass(frozen=True)
class MCP(Penalty):
    """The minimax concave penalty: `lam |x| - |x|² / (2 gamma)` up to `|x| = gamma lam`, flat beyond. Zhang (2010).

    Where the step is below gamma the proximal map is continuous, a firm threshold.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.penalties.MCP(lam=1.0, gamma=2.0).prox(torch.tensor([5.0, 0.5]), 1.0).tolist()
        [5.0, 0.0]
    """

    lam: float = 0.1  # slope at zero
    gamma: float = 3.0  # where the penalty becomes flat, in units of lam

    learnable = {"lam": POSITIVE, "gamma": POSITIVE}

    def value(self, x):
        magnitude = x.abs().clamp_max(self.gamma * self.lam)
        return (self.lam * magnitude - magnitude.square() / (2 * self.gamma)).sum(-1)

    def prox(self, r, step, given=None):
        given = given or self
        return firm(r, _threshold(r, step, given), step / given.gamma)


@dataclass(frozen=True)
class SCAD(Penalty):
    """The smoothly clipped absolute deviation: slope lam up to lam, 0 from `a lam`. Fan & Li (2001), eq. 2.7.

    Where the step is below `a - 1` the proximal map is continuous.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.penalties.SCAD(lam=1.0).prox(torch.tensor([5.0, 0.5]), 1.0).tolist()
        [5.0, 0.0]
    """

    lam: float = 0.1  # slope at zero
    a: float = 3.7  # where the penalty becomes flat, in units of lam; above 2

    learnable = {"lam": POSITIVE}

    def value(self, x):
        magnitude, lam, a = x.abs(), self.lam, self.a
        falling = (2 * a * lam * magnitude - magnitude.square() - lam**2) / (2 * (a - 1))
        flat = torch.full_like(magnitude, lam**2 * (a + 1) / 2)
        return torch.where(magnitude <= lam, lam * magnitude, torch.where(magnitude <= a * lam, falling, flat)).sum(-1)

    def prox(self, r, step, given=None):
        return scad(r, _threshold(r, step, given or self), self.a, step)


@dataclass(frozen=True)
class GroupL1(Penalty):
    """The sum of norms `lam Σ ‖x_g‖` over groups of `size` neighbours, which live or die together. Yuan & Lin (2006).

    Example:
        >>> import fanfold as ff, torch
        >>> ff.penalties.GroupL1(lam=2.5, size=2).prox(torch.tensor([3.0, 4.0, 0.1, 0.1]), 1.0).tolist()
        [1.5, 2.0, 0.0, 0.0]
    """

    lam: float = 0.1  # weight of the sum of norms
    size: int = 2  # entries of a group

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam * power(x).unflatten(-1, (-1, self.size)).sum(-1).sqrt().sum(-1)

    def prox(self, r, step, given=None):
        return group_soft(r, _threshold(r, step, given or self), self.size)


@dataclass(frozen=True)
class Ridge(Penalty):
    """The squared norm `lam ‖x‖² / 2`, whose proximal map shrinks all entries alike.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.penalties.Ridge(lam=1.0).prox(torch.tensor([2.0, -4.0]), 1.0).tolist()
        [1.0, -2.0]
    """

    lam: float = 0.1  # weight of half the squared norm

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam / 2 * power(x).sum(-1)

    def prox(self, r, step, given=None):
        return r / (1 + _threshold(r, step, given or self))


def _threshold(r: Tensor, step: Level, given: Any) -> Tensor:
    """The threshold `step · lam` in the precision of r."""
    return torch.as_tensor(step * given.lam, dtype=r.real.dtype, device=r.device)


REGISTRY: dict[str, type[Penalty]] = {
    "group-l1": GroupL1,
    "l1": L1,
    "mcp": MCP,
    "ridge": Ridge,
    "scad": SCAD,
}


def __dir__() -> list[str]:
    return __all__
