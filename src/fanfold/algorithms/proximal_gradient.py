"""Proximal gradient. Combettes & Wajs (2005), eq. 1.3: x ← prox(x + step Aᴴ(y - A x), step)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, settings_of
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """Of proximal gradient."""

    x: Tensor  # (..., n) estimate


@dataclass(frozen=True)
class ProximalGradient(Algorithm):
    """`min ½‖y - A x‖² + penalty(x)` for any penalty with a proximal map, convex or not; ISTA is the case of `L1`.

    Steps of `1 / ‖A‖²` never raise the objective. A convex penalty leads to a minimum, any other to a stationary point.
    Not scale-equivariant: `lam` is in the units of `Aᴴy`.
    """

    penalty: Penalty = field(default_factory=L1)

    @property
    def nominals(self):
        return {"step": Nominal(lambda _, obs: obs.A.norm() ** -2, POSITIVE)} | settings_of(self.penalty, "penalty")

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r = s.x + theta.step * (A.H @ (y - A @ s.x))
        return State(x=self.penalty.prox(r, theta.step, theta))

    def read(self, s):
        return Estimate(s.x)
