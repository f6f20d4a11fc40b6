"""Penalties on x and their proximal maps `argmin_x ½‖x - r‖² + step · penalty(x)`: what proximal algorithms minimise.

Real and complex alike: a penalty sees magnitudes. A new one is a class here and a row in the registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.domain import POSITIVE, Domain
from fanfold.core.units import power
from fanfold.shrinkage import Level, firm, group_soft, scad, soft

Signal = Inexact[Tensor, "*batch n"]


class Penalty(ABC):
    """A function of x that a proximal algorithm adds to its misfit.

    Attributes:
        learnable: The settings that an algorithm may learn, and where each lives.
    """

    learnable: ClassVar[Mapping[str, Domain]] = {}

    @abstractmethod
    def value(self, x: Signal) -> Float[Tensor, "*batch"]:
        """The penalty on each signal `(..., n)`."""

    @abstractmethod
    def prox(self, r: Signal, step: Level, given: Any = None) -> Signal:
        """The x that minimises `½‖x - r‖² + step · penalty(x)`.

        Args:
            r: Where to stay near.
            step: Factor on the penalty, positive, broadcasting against `r`.
            given: Whatever has the `learnable` settings as attributes, numbers or tensors that learn; this penalty
                itself if None.
        """


@dataclass(frozen=True)
class L1(Penalty):
    """`lam ‖x‖₁`."""

    lam: float = 0.1

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam * x.abs().sum(-1)

    def prox(self, r, step, given=None):
        return soft(r, _threshold(r, step, given or self))


@dataclass(frozen=True)
class MCP(Penalty):
    """Minimax concave: `lam |x| - |x|² / (2 gamma)` up to `|x| = gamma lam`, flat beyond. Zhang (2010).

    Where the step is below gamma the proximal map is continuous, a firm threshold.
    """

    lam: float = 0.1
    gamma: float = 3.0

    learnable = {"lam": POSITIVE, "gamma": POSITIVE}

    def value(self, x):
        magnitude = x.abs().clamp_max(self.gamma * self.lam)
        return (self.lam * magnitude - magnitude.square() / (2 * self.gamma)).sum(-1)

    def prox(self, r, step, given=None):
        given = given or self
        return firm(r, _threshold(r, step, given), step / given.gamma)


@dataclass(frozen=True)
class SCAD(Penalty):
    """Smoothly clipped absolute deviation: slope lam up to lam, falling to 0 at `a lam`. Fan & Li (2001), eq. 2.7.

    Where the step is below `a - 1` the proximal map is continuous.
    """

    lam: float = 0.1
    a: float = 3.7

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
    """`lam Σ ‖x_g‖` over groups of `size` neighbouring entries: they live or die together. Yuan & Lin (2006)."""

    lam: float = 0.1
    size: int = 2

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam * power(x).unflatten(-1, (-1, self.size)).sum(-1).sqrt().sum(-1)

    def prox(self, r, step, given=None):
        return group_soft(r, _threshold(r, step, given or self), self.size)


@dataclass(frozen=True)
class Ridge(Penalty):
    """`lam ‖x‖² / 2`."""

    lam: float = 0.1

    learnable = {"lam": POSITIVE}

    def value(self, x):
        return self.lam / 2 * power(x).sum(-1)

    def prox(self, r, step, given=None):
        return r / (1 + _threshold(r, step, given or self))


def _threshold(r: Tensor, step: Level, given: Any) -> Tensor:
    """`step · lam` in the precision of r."""
    return torch.as_tensor(step * given.lam, dtype=r.real.dtype, device=r.device)


REGISTRY: dict[str, type[Penalty]] = {
    "group-l1": GroupL1,
    "l1": L1,
    "mcp": MCP,
    "ridge": Ridge,
    "scad": SCAD,
}
