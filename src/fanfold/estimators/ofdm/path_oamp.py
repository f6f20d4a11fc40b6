"""OAMP for paths on a grid, with nothing learned. Ma & Ping (2017), eqs. 29-34."""

import torch
from torch import Tensor, nn

from fanfold.algorithms import OAMP
from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import SMALLEST_OVER_NOISE, by_antenna
from fanfold.estimators.ofdm.path_grid import NoiseBeyondDelays, beam_delay_grid, known_or_measured
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.linops import Kronecker
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.priors import BernoulliGaussian
from fanfold.problems.protocols import ChannelProblem
from fanfold.unfolding.unfold import iterate

LARGEST_NOISE_VAR = 1e4  # over the power of y


class BeamDelayOAMP(nn.Module):
    """OAMP of Bernoulli-Gaussian coefficients on a grid of beams and delays; each observation sets its own prior.

    Channels are taken to stand still over a slot. Grids much finer than the default's make it diverge: neighbouring
    atoms are then nearly one.
    The error variance takes the coefficients' errors to be independent, and the channel to be on the grid.

    Args:
        array: Antennas along each axis.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        B: Steering vectors `(antennas, atoms)`.
        D: Delays `(symbols · subcarriers, atoms)`.
        iterations: Iterations of OAMP.
        share: Share of coefficients that are not zero, to start with.
        damping: Share of the new message in what is sent on; less from where an observation's errors grow.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-2")
        >>> x, obs = problem.sample(2, torch.Generator().manual_seed(0))
        >>> ff.estimators.ofdm.BeamDelayOAMP.of(problem, iterations=4)(obs).x.shape == x.shape
        True
    """

    measures_noise = True

    def __init__(
        self,
        array: tuple[int, ...],
        mask: Tensor,
        B: Tensor,
        D: Tensor,
        iterations: int = 40,
        share: float = 0.1,
        damping: float = 0.3,
    ):
        super().__init__()
        seen = D[mask.flatten()]
        B, D, seen = B / B.abs().square().sum(0).sqrt(), D / len(seen) ** 0.5, seen / len(seen) ** 0.5
        self.A = Kronecker(B.to(torch.complex64), seen.to(torch.complex64))
        self.back = Kronecker(B.to(torch.complex64), D.to(torch.complex64))
        self.squares = Kronecker(B.abs().square().float(), D.abs().square().float())
        self.antennas, self.pilots, self.noise_variance = len(B), len(seen), NoiseBeyondDelays(array, mask, seen)
        prior = BernoulliGaussian(share, 1 / share)
        self.algorithm = iterate(OAMP(prior, settings="estimated", damping=damping, adapt=True), iterations)

    @classmethod
    def of(
        cls,
        problem: ChannelProblem,
        iterations: int = 40,
        share: float = 0.1,
        damping: float = 0.3,
        beams: int = 2,
        delays: int = 2,
        longest_delay_s: float | None = None,
    ) -> "BeamDelayOAMP":
        """The estimator for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            iterations: Iterations of OAMP.
            share: Share of coefficients that are not zero, to start with.
            damping: Share of the new message in what is sent on.
            beams: See `beam_delay_grid`.
            delays: See `beam_delay_grid`.
            longest_delay_s: See `beam_delay_grid`.

        Raises:
            ValueError: If a number is not positive.
        """
        B, D = beam_delay_grid(problem.layout, beams, delays, longest_delay_s)
        return cls(problem.layout.array, problem.mask, B, D, iterations, share, damping)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y = by_antenna(obs.y, self.antennas, self.pilots).to(torch.complex64)
        noise_var, y = known_or_measured(obs, y, self.noise_variance), y.flatten(1)
        scale = power(y).mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        A, back, squares = (operator.to(y.device) for operator in (self.A, self.back, self.squares))
        silent = scale <= torch.finfo(torch.float32).tiny  # OAMP finds no prior for it, but without noise
        relative = (noise_var / scale).clamp_max(LARGEST_NOISE_VAR).masked_fill(silent, 0.0)
        s = self.algorithm(Observation.unchecked(y / scale.sqrt(), A, relative))
        assert s.var is not None  # OAMP gives one
        x, var, leading = scale.sqrt() * (back @ s.x), scale * (squares @ s.var), obs.y.shape[:-1]
        var = torch.where(silent, SMALLEST_OVER_NOISE * noise_var, var)
        return Estimate(x.reshape(*leading, -1).to(obs.y.dtype), var.reshape(*leading, -1).to(obs.y.real.dtype))
