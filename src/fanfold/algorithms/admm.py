"""ADMM. Boyd, Parikh, Chu, Peleato & Eckstein (2011), sections 6.4 and 3.4.3."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive, settings_of
from fanfold.algorithms.misfit import prox_misfit
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """Of ADMM."""

    z: Tensor  # (..., n) estimate, which the penalty shaped
    u: Tensor  # (..., n) scaled dual variable


@dataclass(frozen=True)
class ADMM(Algorithm):
    """Alternating directions for `min ½‖y - A x‖² + penalty(z)` with `x = z`, real or complex.

    Converges to a minimum for every convex penalty and rho. Not scale-equivariant: `lam` is in the units of `Aᴴy`.
    """

    penalty: Penalty = field(default_factory=L1)
    rho: float = 1.0  # weight of ‖x - z‖², in the units of AᴴA
    relaxation: float = 1.0  # between 0 and 2; Boyd et al. recommend 1.5 to 1.8

    @property
    def nominals(self):
        own = {k: Nominal(lambda a, _, k=k: getattr(a, k), POSITIVE, vector=False) for k in ("rho", "relaxation")}
        return own | settings_of(self.penalty, "penalty")

    def __post_init__(self):
        positive(rho=self.rho, relaxation=self.relaxation)

    def start(self, obs):
        zero = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(z=zero, u=zero)

    def step(self, s, obs, theta):
        x = prox_misfit(s.z - s.u, obs, theta.rho)
        x = s.z + theta.relaxation * (x - s.z)
        z = self.penalty.prox(x + s.u, 1 / theta.rho, theta)
        return State(z, s.u + x - z)

    def read(self, s):
        return Estimate(s.z)
