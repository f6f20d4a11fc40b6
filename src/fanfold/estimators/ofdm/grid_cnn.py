"""A residual CNN on the grid of beams and resource elements. He, Wen, Jin & Li (2018); Soltani et al. (2019).

Its picture has the vertical beams and the subcarriers as axes; horizontal beams, polarisations, panels and symbols, of
which there are few, are channels. The residual form is that of Zhang, Zuo, Chen, Meng & Zhang (2017), section III.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_right, pair_of, swapped
from fanfold.estimators.ofdm.grid_network import LOG_POWER_SCALE, CorrectedLMMSE
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings, at_least
from fanfold.networks.layers import conv, zero_conv
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

SMALLEST_POWER_OVER_ERROR = 0.1  # below, there is nothing to see


@dataclass(frozen=True)
class CNNSettings(ChannelNetworkSettings):
    """A `GridCNN`: LMMSE over antennas and grid, corrected by a residual CNN on beams and subcarriers.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.CNNSettings(width=8, depth=2)
        >>> settings.build(ff.problems.OFDMChannel("umi")).settings == settings
        True
    """

    width: int = 48  # channels between convolutions
    depth: int = 4  # number of convolutions, two or more
    fold: int = 4  # subcarriers folded into one place of the picture; a divisor of their number
    modes: int = 48  # strongest directions of the covariance between pilots that are looked at

    def __post_init__(self):
        at_least(1, width=self.width, fold=self.fold, modes=self.modes)
        at_least(2, depth=self.depth)

    def _built(self, problem: ChannelProblem) -> "GridCNN":
        return GridCNN.of(problem, self)


class GridCNN(CorrectedLMMSE):
    """Channel estimate `x = f + Bᴴ (s a + k ∘ B (e - f))` of LMMSE over all, f, and of each antenna by itself, e.

    B is the DFT over the array and s the error that LMMSE expects; the CNN sees B f, B (e - f) and their levels, and
    says what to add, a, and how much to keep of what the filter over space took, k. Neighbouring subcarriers are folded
    into channels, so that a convolution sees more of them. A common phase, that of the sum of all entries of f, is
    taken out before and put back after: a turn of the channel turns the estimate.

    Args:
        layout: Layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Sizes and what is known.

    Raises:
        ValueError: If `fold` does not divide the subcarriers.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.GridCNN.of(problem, ff.estimators.ofdm.CNNSettings(width=8, depth=2))
        >>> net.measures_noise
        True
    """

    def __init__(self, layout: Layout, mask: Tensor, settings: CNNSettings):
        width, depth, fold, subcarriers = settings.width, settings.depth, settings.fold, layout.subcarriers
        if subcarriers % fold:
            raise ValueError(f"fold is {fold}, which does not divide the {subcarriers} subcarriers.")
        super().__init__(layout, mask, settings, summary=width, modes=settings.modes)
        self.rows, self.fold, self.symbols = self.array[-1], fold, layout.symbols
        generator = torch.Generator().manual_seed(settings.network_seed)
        channels = 2 * self.antennas // self.rows * self.symbols * fold
        parts: list[nn.Module] = []
        for layer in range(depth - 1):
            parts += [conv(width if layer else 3 * channels + 1, width, 3, generator), nn.ReLU()]
        self.trunk, self.head = nn.Sequential(*parts), zero_conv(width, 2 * channels, 3)
        self.register_buffer("dft", pair_of(_dft(self.array)), persistent=False)

    @classmethod
    def of(cls, problem: ChannelProblem, settings: CNNSettings | None = None) -> "GridCNN":
        """The untrained network for a problem's layout and pilots; of the default sizes if `settings` is None."""
        return cls(problem.layout, problem.mask, settings or CNNSettings())

    def correction(self, z: Tensor, start: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """See `CorrectedLMMSE`; the summary is the mean of the last picture but one."""
        gains = (self.mode_var + noise_var).reciprocal().repeat(1, 2).unsqueeze(1)
        noisier = (z * gains) @ from_right(self.from_modes)  # each antenna by itself
        error, turn = self.expected(noise_var).sqrt()[..., None, None], _phase(start)
        to_beams = from_right(self.dft)
        filtered, lost = (
            self._picture(_turned(swapped(swapped(part) @ to_beams), turn, -1)) for part in (start, noisier - start)
        )
        level = (noise_var.log() / math.log(1e6))[..., None, None].expand(-1, 1, *lost.shape[2:])
        hidden = self.trunk(torch.cat([filtered, lost / error, self._levels(filtered, lost, error), level], 1))
        added, kept = self.head(hidden).chunk(2, 1)
        change = _turned(self._unfolded(error * added + lost * kept), turn, 1)
        return swapped(swapped(change) @ to_beams.mT), hidden.mean((2, 3))

    def _levels(self, *pictures: Tensor) -> Tensor:
        """Logarithms of powers over the error that LMMSE expects."""
        *parts, error = pictures
        powers = (part.unflatten(1, (-1, 2, self.symbols * self.fold)).square().sum(2).flatten(1, 2) for part in parts)
        return LOG_POWER_SCALE * (torch.cat([*powers], 1) / error.square() + SMALLEST_POWER_OVER_ERROR).log()

    def _picture(self, x: Tensor) -> Tensor:
        """Packed `(batch, antennas, 2 entries)` to `(batch, channels, rows, subcarriers / fold)`."""
        x = x.unflatten(1, (-1, self.rows)).unflatten(-1, (2 * self.symbols, -1, self.fold))
        return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)

    def _unfolded(self, picture: Tensor) -> Tensor:
        x = picture.unflatten(1, (-1, 2 * self.symbols, self.fold)).permute(0, 1, 4, 2, 5, 3)
        return x.flatten(3).flatten(1, 2)


def _dft(array: tuple[int, ...]) -> Tensor:
    """Antennas to beams, orthonormal, over the columns and rows of each polarisation or panel."""
    matrix = torch.eye(torch.Size(array[:-2]).numel(), dtype=torch.complex128)
    for size in array[-2:]:
        matrix = torch.kron(matrix, torch.fft.fft(torch.eye(size, dtype=torch.complex128), norm="ortho"))
    return matrix


def _phase(x: Tensor) -> Tensor:
    """Cosine and sine of the phase of the sum of packed entries, `(batch, 1, 1)` each."""
    re, im = (part.sum((1, 2)) for part in x.unflatten(-1, (2, -1)).unbind(-2))
    size = (re.square() + im.square()).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return torch.stack([re / size, im / size])[..., None, None]


def _turned(x: Tensor, turn: Tensor, sign: int) -> Tensor:
    """Packed entries by this phase, or back."""
    re, im = x.chunk(2, -1)
    cos, sin = turn[0], sign * turn[1]
    return torch.cat([re * cos - im * sin, re * sin + im * cos], -1)
