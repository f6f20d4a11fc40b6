"""Primal-dual. Chambolle & Pock (2011), algorithm 1 with theta = 1."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive, settings_of
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """The state of the primal-dual method; p is the paper's dual variable y."""

    x: Tensor  # (..., n) estimate
    x_bar: Tensor  # (..., n) extrapolated estimate
    p: Tensor  # (..., m) dual variable: at the end the negative residual


@dataclass(frozen=True)
class PrimalDual(Algorithm):
    """The primal-dual method for `min ½‖y - A x‖² + penalty(x)`: one product with A and one with Aᴴ a step.

    It solves no system, and converges to a minimum for every convex penalty while `tau sigma ‖A‖² < 1`. It is not
    scale-equivariant: `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.PrimalDual(ff.penalties.L1(0.1)), 100)(obs).x, x) < -15
        True
    """

    penalty: Penalty = field(default_factory=L1)
    ratio: float = 1.0  # tau is ratio / ‖A‖ and sigma is 0.99 / (ratio ‖A‖)

    @property
    def nominals(self):
        return {
            "tau": Nominal(lambda a, obs: a.ratio / obs.A.norm(), POSITIVE),
            "sigma": Nominal(lambda a, obs: 0.99 / (a.ratio * obs.A.norm()), POSITIVE, vector=False),
            "theta": Nominal(lambda *_: 1.0, POSITIVE, vector=False),
        } | settings_of(self.penalty, "penalty")

    def __post_init__(self):
        positive(ratio=self.ratio)

    def start(self, obs):
        zero = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=zero, x_bar=zero, p=obs.y.new_zeros(obs.y.shape))

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        p = (s.p + theta.sigma * (A @ s.x_bar - y)) / (1 + theta.sigma)
        x = self.penalty.prox(s.x - theta.tau * (A.H @ p), theta.tau, theta)
        return State(x, x + theta.theta * (x - s.x), p)

    def read(self, s):
        return Estimate(s.x)
