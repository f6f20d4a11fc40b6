"""ADMM for sparse beams and delays, unfolded. Boyd et al. (2011), section 6.4; He, Wen, Jin & Li (2018).

Thresholds for each coefficient and layer are what a network has learned of where power comes from.
"""

import dataclasses
import math

from torch import Tensor

from fanfold.algorithms import ADMM
from fanfold.algorithms.admm import State
from fanfold.algorithms.misfit import prox_misfit
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, BeamDelaySettings
from fanfold.penalties import L1
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

LEARN = {"lam": "per-layer vector", "rho": "per-layer", "relaxation": "per-layer"}


@dataclasses.dataclass(frozen=True)
class WhitenedADMM(ADMM):
    """ADMM for `½‖y - A x‖² / noise_var + penalty(x)`, so that one penalty serves every noise variance."""

    def step(self, s, obs, theta):
        x = prox_misfit(s.z - s.u, obs, theta.rho * obs.noise_var)
        x = s.z + theta.relaxation * (x - s.z)
        z = self.penalty.prox(x + s.u, 1 / theta.rho, theta)
        return State(z, s.u + x - z)


@dataclasses.dataclass(frozen=True)
class ADMMSettings(BeamDelaySettings):
    """An `UnfoldedADMM`: steps of ADMM for sparse beams and delays, thresholds and dictionary learned.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.ADMMSettings(iterations=2, beams=16, modes=4)
        >>> settings.build(ff.problems.OFDMChannel("umi")).settings == settings
        True
    """

    lam: float = 1.0  # weight of `Σ |s|`, the coefficients s having unit power
    rho: float = 4.0  # weight of ADMM's two halves on each other

    def __post_init__(self):
        super().__post_init__()
        if not (0 < self.lam < math.inf and 0 < self.rho < math.inf):
            raise ValueError(f"lam is {self.lam}, rho {self.rho}; both are finite and greater than zero.")

    def _built(self, problem: ChannelProblem) -> "UnfoldedADMM":
        return UnfoldedADMM.of(problem, self)


class UnfoldedADMM(BeamDelayNetwork):
    """Channel estimate by a few steps of ADMM over beams and delays; untrained it is the classical algorithm.

    Args:
        layout: Layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Sizes and what is known.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.UnfoldedADMM.of(problem, ff.estimators.ofdm.ADMMSettings(beams=16, modes=4))
        >>> net.A.shape  # from 16 · 4 coefficients to 32 · 6 pilots
        (192, 64)
    """

    def __init__(self, layout: Layout, mask: Tensor, settings: ADMMSettings):
        self.lam, self.rho = settings.lam, settings.rho
        super().__init__(layout, mask, settings, LEARN)

    @classmethod
    def of(cls, problem: ChannelProblem, settings: ADMMSettings | None = None) -> "UnfoldedADMM":
        """The untrained network for a problem's layout and pilots; of the default sizes if `settings` is None."""
        return cls(problem.layout, problem.mask, settings or ADMMSettings())

    def algorithm(self) -> WhitenedADMM:
        """The algorithm, the same for every dictionary."""
        return WhitenedADMM(L1(self.lam), self.rho, relaxation=1.6)
