"""OAMP for sparse beams and delays, unfolded. Ma & Ping (2017), eqs. 29-34; He, Wen, Jin & Li (2018).

How likely each coefficient is, and how strong, is learned for each layer.
"""

import dataclasses

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, beam_delay_dictionary
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.priors import BernoulliGaussian
from fanfold.problems.ofdm_channel import OFDMChannel

LEARN = {"prior": "per-layer vector", "damping": "per-layer", "variances": "per-layer", "noise_var": "per-layer"}


@dataclasses.dataclass(frozen=True)
class UnevenPrior(BernoulliGaussian):
    """Bernoulli-Gaussian whose entries differ in their power, by factors `(n,)`."""

    factors: Tensor = dataclasses.field(default_factory=lambda: torch.ones(1), compare=False)

    @property
    def power(self) -> float:
        return self.p * self.var * self.factors.mean().item()

    def posterior(self, r, v, given=None):
        given = given or self
        return super().posterior(r, v, Theta(p=given.p, var=given.var * self.factors.to(r.real)))


class UnfoldedOAMP(BeamDelayNetwork):
    """Channel estimate by a few steps of OAMP over beams and delays; untrained it is the classical algorithm.

    Args:
        problem: Layout, pilots and, for the dictionary, draws.
        layers: Of the network.
        beams: Atoms over the array.
        modes: Delay modes at each beam.
        share: Of coefficients that are not zero, as the prior says.
        damping: Share of the new message in what is sent on.
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
        share: float = 0.3,
        damping: float = 0.4,
        samples: int = 4000,
        seed: int = 0,
        *,
        known_power: bool = False,
    ):
        B, D = beam_delay_dictionary(problem, ChannelCovariance.learn(problem, samples, seed), beams, modes)
        at_pilots = D[problem.mask.flatten()]
        of_beams, of_delays = (part.abs().square().sum(0) for part in (B, at_pilots))
        prior = UnevenPrior(share, 1 / share, torch.kron(of_beams, of_delays).float())
        algorithm = OAMP(prior, damping=damping)  # of columns of one norm: its errors are taken to be alike
        dictionary = B / of_beams.sqrt(), D / of_delays.sqrt()
        super().__init__(problem, algorithm, layers, LEARN, *dictionary, seed=seed, known_power=known_power)
