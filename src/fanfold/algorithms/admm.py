"""ADMM. Boyd, Parikh, Chu, Peleato & Eckstein (2011), sections 6.4 and 3.4.3."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive, settings_of
from fanfold.algorithms.misfit import prox_misfit
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """The state of ADMM."""

    z: Tensor  # (..., n) estimate, which the penalty shaped
    u: Tensor  # (..., n) scaled dual variable


@dataclass(frozen=True)
class ADMM(Algorithm):
    """The alternating direction method of multipliers for `min ½‖y - A x‖² + penalty(z)` with `x = z`.

    It converges to a minimum for every convex penalty and rho. It is not scale-equivariant: `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.ADMM(ff.penalties.L1(0.1)), 100)(obs).x, x) < -15
        True
    """

    penalty: Penalty = field(default_factory=L1)
    rho: float = 1.0  # weight of ‖x - z‖², in the units of AᴴA
    relaxation: float = 1.0  # between 0 and 2; Boyd et al. recommend 1.5 to 1.8

    by_svd = True

    @property
    def nominals(self):
        rho = Nominal(lambda a, _: a.rho, POSITIVE, vector=False)
        relaxation = Nominal(lambda a, _: a.relaxation, POSITIVE, vector=False)
        return {"rho": rho, "relaxation": relaxation} | settings_of(self.penalty, "penalty")

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
