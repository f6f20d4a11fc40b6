"""AMP. Donoho, Maleki & Montanari (2009), eqs. 1-2; complex: Maleki, Anitori, Yang & Baraniuk (2013)."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive
from fanfold.core.units import rms
from fanfold.observation import Estimate
from fanfold.shrinkage import soft, soft_divergence


class State(NamedTuple):
    """Of AMP."""

    x: Tensor  # (..., n) estimate
    v: Tensor  # (..., m) corrected residual


@dataclass(frozen=True)
class AMP(Algorithm):
    """Approximate message passing with a soft threshold, for `y = A x + w` with iid A and unit columns.

    Scale-equivariant: the threshold follows the residual. Diverges where A is far from iid (already at
    condition number 5).
    """

    alpha: float = 1.5  # threshold, in standard deviations of the effective noise

    nominals = {"alpha": Nominal(lambda amp, obs: amp.alpha, POSITIVE)}

    def __post_init__(self):
        positive(alpha=self.alpha)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), v=obs.y)

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r, t = s.x + A.H @ s.v, theta.alpha * rms(s.v)
        x = soft(r, t)
        return State(x, y - A @ x + s.v * soft_divergence(r, t) * A.n / A.m)  # Onsager

    def read(self, s):
        return Estimate(s.x)
