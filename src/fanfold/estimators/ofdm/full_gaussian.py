"""LMMSE with the whole covariance of a channel, antennas and grid together. Kay (1993), ch. 12."""

import torch
from torch import Tensor, nn

from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import DRAWS_AT_A_TIME, check_pilots, signal_power
from fanfold.estimators.ofdm.front_end import SMALLEST_NOISE_VAR
from fanfold.estimators.ofdm.mixture import grid_basis, root_mean_square
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.draws import draw
from fanfold.problems.protocols import ChannelProblem


class FullGaussian(nn.Module):
    """What one Gaussian can do: the filter of `C = E h hᴴ` over all antennas and resource elements, no factors.

    A reference, not a product: it stores `2 (antennas · modes)²` numbers and more. The covariance is learned over the
    antennas and the strongest modes of the grid of one antenna: draws are to be many times `antennas · modes`, or it
    knows the draws better than the channel, and its error variance is too small. Scale-equivariant, as `KroneckerGMM`.

    Args:
        antennas: The number of antennas of the array.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        basis: Modes over the grid of one antenna, `(entries, modes)`, orthonormal columns.
        covariance: The covariance of their coefficients, antennas slowest, `(antennas · modes, antennas · modes)`.

    Raises:
        ValueError: If the covariance does not fit the antennas and the modes.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("rayleigh:array=2x2,subcarriers=12")
        >>> full = ff.estimators.ofdm.FullGaussian.of(problem, samples=200, modes=4)
        >>> tuple(full.spectrum.shape)  # of all antennas and modes together
        (16,)
    """

    measures_noise = True
    spectrum: Tensor
    prior_var: Tensor

    def __init__(self, antennas: int, mask: Tensor, basis: Tensor, covariance: Tensor):
        super().__init__()
        modes = basis.shape[1]
        if len(covariance) != antennas * modes:
            raise ValueError(f"the covariance is of {len(covariance)} numbers; {antennas} antennas have {modes} each.")
        at_pilots = basis[mask.flatten().nonzero().flatten()]
        Q = torch.linalg.qr(at_pilots)[0]
        seen = torch.kron(torch.eye(antennas), (Q.mH @ at_pilots).contiguous())
        of_z = seen @ covariance @ seen.mH
        spectrum, E = torch.linalg.eigh((of_z + of_z.mH) / 2)
        blocks = covariance.unflatten(0, (antennas, modes)).unflatten(2, (antennas, modes))
        of_antenna = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        prior_var = ((basis @ of_antenna) * basis.conj()).sum(-1).real
        self.antennas, self.pilots = antennas, len(at_pilots)
        self.register_buffer("Q", Q.conj().resolve_conj().to(torch.complex64))
        self.register_buffer("E", E.conj().resolve_conj().to(torch.complex64))
        back = basis @ (covariance @ seen.mH @ E).unflatten(0, (antennas, modes))
        self.register_buffer("back", back.flatten(0, 1).to(torch.complex64))
        self.register_buffer("spectrum", spectrum.clamp_min(0).float())
        self.register_buffer("prior_var", prior_var.flatten().float())
        space = blocks.diagonal(dim1=1, dim2=3).sum(-1)
        grid = at_pilots @ of_antenna.mean(0) @ at_pilots.mH
        self.noise_variance = NoiseVariance(space / space.diagonal().real.mean(), grid)

    @classmethod
    def of(cls, problem: ChannelProblem, samples: int = 20_000, modes: int = 14, seed: int = 0) -> "FullGaussian":
        """The filter of a problem's layout and pilots, with the covariance of its draws.

        Args:
            problem: Where channels come from, and which pilots the filter takes.
            samples: The number of draws that the covariance is learned from.
            modes: The largest number of directions over the grid of one antenna that are kept.
            seed: The seed of the draws.

        Raises:
            ValueError: If `samples` is not positive.
        """
        antennas, basis, scale = problem.layout.antennas, None, torch.ones(())
        total, mean_power = torch.zeros((), dtype=torch.complex128), 0.0
        for index, first in enumerate(range(0, samples, DRAWS_AT_A_TIME)):
            x, _ = draw(problem, min(DRAWS_AT_A_TIME, samples - first), seed, Stream.PREPARATION, index)
            h = x.unflatten(1, (antennas, -1))
            if basis is None:
                scale = root_mean_square(h)
                basis = grid_basis(h / scale, modes)
            h = h / scale
            c = (h @ basis.conj().to(h.dtype)).flatten(1)
            total = total + (c.mT @ c.conj()).to(torch.complex128)
            mean_power += power(h).sum(dtype=torch.float64).item() / h[0].numel()
        if basis is None:
            raise ValueError(f"samples is {samples}; pass at least one.")
        return cls(antennas, problem.mask, basis, (total + total.mH) / (2 * mean_power))

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the filter was made for.
        """
        check_pilots(obs.y, self.antennas, self.pilots)
        noise_var = self.noise_variance(obs.y) if obs.noise_var is None else obs.noise_var
        scale = signal_power(obs.y, noise_var)
        y, relative = (obs.y / scale.sqrt()).to(torch.complex64), (noise_var / scale).float()
        z = (y.unflatten(-1, (self.antennas, self.pilots)) @ self.Q).flatten(-2) @ self.E
        gains = 1 / (self.spectrum + relative.clamp_min(SMALLEST_NOISE_VAR))
        x = (z * gains) @ self.back.mT
        var = (self.prior_var - gains @ power(self.back).mT).clamp_min(torch.finfo(gains.dtype).eps)
        x, var = x * scale.sqrt(), (var * scale).to(obs.y.real.dtype)
        return Estimate(x.to(obs.y.dtype), var.expand(x.shape))
