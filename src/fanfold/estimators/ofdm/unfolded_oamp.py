"""OAMP for sparse beams and delays, unfolded. Ma & Ping (2017), eqs. 29-34; He, Wen, Jin & Li (2018).

How likely each coefficient is, and how strong, is learned for each layer.
"""

import dataclasses
import functools

import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork, BeamDelaySettings
from fanfold.priors import BernoulliGaussian
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

LEARN = {"prior": "per-layer vector", "damping": "per-layer", "variances": "per-layer", "noise_var": "per-layer"}


@dataclasses.dataclass(frozen=True)
class UnevenPrior(BernoulliGaussian):
    """Bernoulli-Gaussian whose entries differ in their power, by factors `(n,)`."""

    factors: Tensor = dataclasses.field(default_factory=lambda: torch.ones(1), compare=False)

    @functools.cached_property  # so that no trace takes it for a value that may change
    def power(self) -> float:
        return self.p * self.var * self.factors.mean().item()

    def posterior(self, r, v, given=None):
        given = given or self
        return super().posterior(r, v, Theta(p=given.p, var=given.var * self.factors.to(r.real)))


@dataclasses.dataclass(frozen=True)
class OAMPSettings(BeamDelaySettings):
    """An `UnfoldedOAMP`: steps of OAMP for sparse beams and delays, prior and dictionary learned.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.OAMPSettings(iterations=2, beams=16, modes=4)
        >>> settings.build(ff.problems.OFDMChannel("umi")).settings == settings
        True
    """

    share: float = 0.3  # share of coefficients that are not zero, as the prior says
    damping: float = 0.4  # share of the new message in what is sent on

    def __post_init__(self):
        super().__post_init__()
        if not (0 < self.share < 1 and 0 < self.damping <= 1):
            raise ValueError(
                f"share is {self.share}, damping {self.damping}; share is between 0 and 1, damping at most 1, and both "
                "are greater than zero."
            )

    def _built(self, problem: ChannelProblem) -> "UnfoldedOAMP":
        return UnfoldedOAMP.of(problem, self)


class UnfoldedOAMP(BeamDelayNetwork):
    """Channel estimate by a few steps of OAMP over beams and delays; untrained it is the classical algorithm.

    Args:
        layout: Layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Sizes and what is known.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.UnfoldedOAMP.of(problem, ff.estimators.ofdm.OAMPSettings(beams=16, modes=4))
        >>> net.A.shape  # from 16 · 4 coefficients to 32 · 6 pilots
        (192, 64)
    """

    levels: Tensor

    def __init__(self, layout: Layout, mask: Tensor, settings: OAMPSettings):
        self.share, self.damping = settings.share, settings.damping
        super().__init__(layout, mask, settings, LEARN)

    @classmethod
    def of(cls, problem: ChannelProblem, settings: OAMPSettings | None = None) -> "UnfoldedOAMP":
        """The untrained network for a problem's layout and pilots; of the default sizes if `settings` is None."""
        return cls(problem.layout, problem.mask, settings or OAMPSettings())

    def algorithm(self) -> OAMP:
        """The algorithm, with a prior that knows how strong each coefficient of this dictionary is."""
        return OAMP(UnevenPrior(self.share, 1 / self.share, self.levels), damping=self.damping)

    def atoms(self, space: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """Columns of one norm at the pilots, since OAMP takes errors to be alike; `levels` are the powers they had."""
        atoms = super().atoms(space, grid)
        B, D = (part.square().sum(0) for part in (atoms["B"], atoms["D"]))
        of_beams, of_delays = B.sum(-1), D[:, self.pick.cpu()].sum(-1)
        return {
            "B": atoms["B"] / of_beams.sqrt()[:, None],
            "D": atoms["D"] / of_delays.sqrt()[:, None],
            "levels": torch.kron(of_beams, of_delays),
        }
