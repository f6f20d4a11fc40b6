"""Douglas-Rachford splitting. Lions & Mercier (1979); Combettes & Pesquet (2011), section 10.4."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive, settings_of
from fanfold.algorithms.misfit import prox_misfit
from fanfold.observation import Estimate
from fanfold.penalties import L1, Penalty


class State(NamedTuple):
    """The state of Douglas-Rachford splitting."""

    x: Tensor  # (..., n) what is iterated
    p: Tensor  # (..., n) estimate: its proximal point, the paper's y


@dataclass(frozen=True)
class DouglasRachford(Algorithm):
    """Douglas-Rachford splitting for `min ½‖y - A x‖² + penalty(x)`: the proximal maps of both terms in turn.

    It converges to a minimum for every convex penalty and step. It is not scale-equivariant: `lam` is in units of
    `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.DouglasRachford(ff.penalties.L1(0.1)), 100)(obs).x, x) < -15
        True
    """

    penalty: Penalty = field(default_factory=L1)
    gamma: float = 1.0  # step, in units of 1 / AᴴA
    relaxation: float = 1.0  # the paper's lambda, between 0 and 2

    by_svd = True

    @property
    def nominals(self):
        step = Nominal(lambda a, _: a.gamma, POSITIVE, vector=False)
        relaxation = Nominal(lambda a, _: a.relaxation, POSITIVE, vector=False)
        return {"step": step, "relaxation": relaxation} | settings_of(self.penalty, "penalty")

    def __post_init__(self):
        positive(gamma=self.gamma, relaxation=self.relaxation)

    def start(self, obs):
        zero = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=zero, p=zero)

    def step(self, s, obs, theta):
        x = s.x + theta.relaxation * (prox_misfit(2 * s.p - s.x, obs, 1 / theta.step) - s.p)
        return State(x, self.penalty.prox(x, theta.step, theta))

    def read(self, s):
        return Estimate(s.p)
