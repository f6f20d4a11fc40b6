"""What channels are like: power, spread of delays, and how many directions of space, frequency and time hold them."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.core.units import db
from fanfold.propagation.base import Layout, Part, Source

RANK_SHARE = 0.99  # of the power: a rank is the number of eigenvalues that hold so much


@dataclass(frozen=True)
class Statistics:
    """What was measured of the draws of a source.

    Attributes:
        draws: How many draws were measured.
        power: The mean of |h|².
        weakest_db: The power of the weakest draw over the mean power.
        strongest_db: The power of the strongest draw over the mean power.
        delay_spread_ns: The RMS spread of the delays, of the mean power delay profile.
        ranks: How many eigenvalues hold 99 % of the power, over space, frequency and time.
        sizes: How many eigenvalues there are, over space, frequency and time.
        shares: The share of the power in the 1, 2, 4, 8, … strongest eigenvectors, over space, frequency and time.

    Example:
        >>> import torch, fanfold as ff
        >>> source = ff.propagation.source_of("umi")
        >>> ff.propagation.Statistics.of(source, 100, torch.Generator().manual_seed(0)).sizes
        {'space': 32, 'frequency': 24, 'time': 1}
    """

    draws: int
    power: float
    weakest_db: float
    strongest_db: float
    delay_spread_ns: float
    ranks: dict[str, int]
    sizes: dict[str, int]
    shares: dict[str, list[float]]

    @classmethod
    @checks_arguments
    def of(cls, source: Source, draws: int, generator: torch.Generator, part: Part = "train") -> "Statistics":
        """The statistics of so many draws of a part; few draws give too small a rank.

        Args:
            source: Where the channels come from.
            draws: How many of them to measure; of stored ones at most those that there are.
            generator: The random numbers that pick or draw them.
            part: The part that they come from.
        """
        layout, h = source.layout, source.draw(draws, generator, part).to(torch.complex128)
        powers = h.abs().square().mean((1, 2, 3))
        axis_last = {"space": h.movedim(1, -1), "frequency": h, "time": h.movedim(2, -1)}
        spectra = {name: _spectrum(value) for name, value in axis_last.items()}
        return cls(
            draws=len(h),
            power=powers.mean().item(),
            weakest_db=db(powers.min() / powers.mean()).item(),
            strongest_db=db(powers.max() / powers.mean()).item(),
            delay_spread_ns=delay_spread_ns(h, layout),
            ranks={name: int((s.cumsum(0) < RANK_SHARE).sum()) + 1 for name, s in spectra.items()},
            sizes={name: len(s) for name, s in spectra.items()},
            shares={name: [s[: 2**k].sum().item() for k in range(len(s).bit_length())] for name, s in spectra.items()},
        )


def _spectrum(h: Tensor) -> Tensor:
    """The eigenvalues of the covariance over the last axis, descending, of sum one."""
    rows = h.flatten(0, -2)
    values = torch.linalg.eigvalsh(rows.mH @ rows).flip(0).clamp_min(0)
    return values / values.sum()


def delay_spread_ns(h: Tensor, layout: Layout) -> float:
    """The RMS spread τ of the delays: neighbouring subcarriers correlate as `|R(Δf)| = R(0) (1 - (2π Δf τ)² / 2)`.

    It is 0 for a single subcarrier. Where neighbours differ much the curve bends, and τ comes out too small.
    """
    if layout.subcarriers < 2:
        return 0.0
    near, far = h[..., :-1], h[..., 1:]
    together = (near.conj() * far).mean().abs()
    alone = (near.abs().square().mean() * far.abs().square().mean()).sqrt()
    return (2 * (1 - together / alone).clamp_min(0)).sqrt().item() / (2 * pi * layout.spacing_hz) * 1e9
