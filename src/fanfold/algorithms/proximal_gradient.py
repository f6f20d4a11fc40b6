"""Proximal gradient. Combettes & Wajs (2005), eq. 1.3: x ← prox(x + step Aᴴ(y - A x), step)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, settings_of
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """The state of the proximal gradient method."""

    x: Tensor  # (..., n) estimate


@dataclass(frozen=True)
class ProximalGradient(Algorithm):
    """The proximal gradient method for `min ½‖y - A x‖² + penalty(x)`, convex or not; ISTA is the case of `L1`.

    Steps of `1 / ‖A‖²` never raise the objective. A convex penalty leads to a minimum, any other to a stationary point.
    It is not scale-equivariant: `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.ProximalGradient(ff.penalties.MCP(0.1)), 300)(obs).x, x) < -20
        True
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
