"""OAMP for sparse beams and delays, unfolded. Ma & Ping (2017), eqs. 29-34; He, Wen, Jin & Li (2018).

How likely each coefficient is, and how strong, is learned for each layer.
"""

import dataclasses

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, BeamDelaySettings, beam_delay_dictionary
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


@dataclasses.dataclass(frozen=True)
class OAMPSettings(BeamDelaySettings):
    """An `UnfoldedOAMP`: steps of OAMP for sparse beams and delays, prior and dictionary learned."""

    share: float = 0.3  # of coefficients that are not zero, as the prior says
    damping: float = 0.4  # share of the new message in what is sent on

    def _built(self, problem: OFDMChannel) -> "UnfoldedOAMP":
        return UnfoldedOAMP(problem, self)


class UnfoldedOAMP(BeamDelayNetwork):
    """Channel estimate by a few steps of OAMP over beams and delays; untrained it is the classical algorithm.

    Args:
        problem: Layout, pilots and, for the dictionary, draws.
        settings: Sizes and what is known; the defaults if None.
    """

    def __init__(self, problem: OFDMChannel, settings: OAMPSettings | None = None):
        settings = settings or OAMPSettings()
        covariance = ChannelCovariance.learn(problem, settings.samples, settings.network_seed)
        B, D = beam_delay_dictionary(problem, covariance, settings.beams, settings.modes)
        at_pilots = D[problem.mask.flatten()]
        of_beams, of_delays = (part.abs().square().sum(0) for part in (B, at_pilots))
        prior = UnevenPrior(settings.share, 1 / settings.share, torch.kron(of_beams, of_delays).float())
        algorithm = OAMP(prior, damping=settings.damping)  # of columns of one norm: its errors are taken to be alike
        dictionary = B / of_beams.sqrt(), D / of_delays.sqrt()
        super().__init__(problem, settings, algorithm, LEARN, *dictionary)
