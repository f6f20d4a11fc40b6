"""FISTA. Beck & Teboulle (2009), eqs. 4.1-4.3."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive
from fanfold.algorithms.ista import ISTA
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


class State(NamedTuple):
    """The state of FISTA."""

    x: Tensor  # (..., n) estimate
    z: Tensor  # (..., n) extrapolated estimate
    t: float  # the paper's t_k


@dataclass(frozen=True)
class FISTA(Algorithm):
    """Fast iterative soft thresholding for `min ½‖y - A x‖² + lam ‖x‖₁`, real or complex.

    The `momentum` that may be learned is a factor on the paper's `(t_k - 1) / t_{k+1}`. It is not scale-equivariant:
    `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.FISTA(), 100)(obs).x, x) < -15
        True
    """

    lam: float = 0.1  # weight of the l1 norm

    nominals = {**ISTA.nominals, "momentum": Nominal(lambda fista, obs: 1.0, POSITIVE)}

    def __post_init__(self):
        positive(lam=self.lam)

    def start(self, obs):
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, z=x, t=1.0)

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        x = self.shrink(s.z + theta.step * (A.H @ (y - A @ s.z)), theta)
        t = (1 + math.sqrt(1 + 4 * s.t**2)) / 2
        z = x + theta.momentum * theta.momentum.new_tensor((s.t - 1) / t) * (x - s.x)
        return State(x, z, t)

    def shrink(self, r, theta):
        """The proximal map of the penalty; others take its place."""
        return soft(r, theta.threshold)

    def read(self, s):
        return Estimate(s.x)
