"""ADMM for sparse beams and delays, unfolded. Boyd et al. (2011), section 6.4; He, Wen, Jin & Li (2018).

Thresholds for each coefficient and layer are what a network has learned of where power comes from.
"""

import dataclasses
import math

from fanfold.algorithms import ADMM
from fanfold.algorithms.admm import State
from fanfold.algorithms.misfit import prox_misfit
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, BeamDelaySettings
from fanfold.penalties import L1
from fanfold.problems.radio.ofdm_channel import OFDMChannel

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
    """An `UnfoldedADMM`: steps of ADMM for sparse beams and delays, thresholds and dictionary learned."""

    lam: float = 1.0  # weight of `Σ |s|`, the coefficients s having unit power
    rho: float = 4.0  # weight of ADMM's two halves on each other

    def __post_init__(self):
        super().__post_init__()
        if not (0 < self.lam < math.inf and 0 < self.rho < math.inf):
            raise ValueError(f"lam is {self.lam}, rho {self.rho}; both are finite and greater than zero.")

    def _built(self, problem: OFDMChannel) -> "UnfoldedADMM":
        return UnfoldedADMM(problem, self)


class UnfoldedADMM(BeamDelayNetwork):
    """Channel estimate by a few steps of ADMM over beams and delays; untrained it is the classical algorithm.

    Args:
        problem: Layout and pilots.
        settings: Sizes and what is known; the defaults if None.
    """

    def __init__(self, problem: OFDMChannel, settings: ADMMSettings | None = None):
        settings = settings or ADMMSettings()
        self.lam, self.rho = settings.lam, settings.rho
        super().__init__(problem, settings, LEARN)

    def algorithm(self) -> WhitenedADMM:
        """The same for every dictionary."""
        return WhitenedADMM(L1(self.lam), self.rho, relaxation=1.6)
