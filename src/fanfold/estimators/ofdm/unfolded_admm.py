"""ADMM for sparse beams and delays, unfolded. Boyd et al. (2011), section 6.4; He, Wen, Jin & Li (2018).

Thresholds for each coefficient and layer are what a network has learned of where power comes from.
"""

import dataclasses

from fanfold.algorithms import ADMM
from fanfold.algorithms.admm import State
from fanfold.algorithms.misfit import prox_misfit
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, beam_delay_dictionary
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.penalties import L1
from fanfold.problems.ofdm_channel import OFDMChannel

LEARN = {"lam": "per-layer vector", "rho": "per-layer", "relaxation": "per-layer"}


@dataclasses.dataclass(frozen=True)
class WhitenedADMM(ADMM):
    """ADMM for `½‖y - A x‖² / noise_var + penalty(x)`, so that one penalty serves every noise variance."""

    def step(self, s, obs, theta):
        x = prox_misfit(s.z - s.u, obs, theta.rho * obs.noise_var)
        x = s.z + theta.relaxation * (x - s.z)
        z = self.penalty.prox(x + s.u, 1 / theta.rho, theta)
        return State(z, s.u + x - z)


class UnfoldedADMM(BeamDelayNetwork):
    """Channel estimate by a few steps of ADMM over beams and delays; untrained it is the classical algorithm.

    Args:
        problem: Layout, pilots and, for the dictionary, draws.
        layers: Of the network.
        beams: Atoms over the array.
        modes: Delay modes at each beam.
        lam: Weight of `Σ |s|`, the coefficients s having unit power.
        rho: Weight of ADMM's two halves on each other.
        samples: Draws that the covariances are learned from.
        seed: Of these draws.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.
    """

    def __init__(
        self,
        problem: OFDMChannel,
        layers: int = 6,
        beams: int = 128,
        modes: int = 12,
        lam: float = 1.0,
        rho: float = 4.0,
        samples: int = 4000,
        seed: int = 0,
        *,
        known_power: bool = False,
    ):
        dictionary = beam_delay_dictionary(problem, ChannelCovariance.learn(problem, samples, seed), beams, modes)
        algorithm = WhitenedADMM(L1(lam), rho, relaxation=1.6)
        super().__init__(problem, algorithm, layers, LEARN, *dictionary, seed=seed, known_power=known_power)
