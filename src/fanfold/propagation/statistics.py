"""What channels are like: power, spread of delays, and how many directions of space, frequency and time hold them."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from fanfold.core.units import db
from fanfold.propagation.base import Layout, Part, Source

SHARE = 0.99  # of the power, for a rank


@dataclass(frozen=True)
class Statistics:
    """Of some draws of a source."""

    draws: int
    power: float  # mean |h|²
    weakest_db: float  # of the draws, over the mean power
    strongest_db: float
    delay_spread_ns: float  # RMS, of the mean power delay profile
    ranks: dict[str, int]  # eigenvalues that hold 99 % of the power, over space, frequency and time
    sizes: dict[str, int]
    shares: dict[str, list[float]]  # of the power in the 1, 2, 4, 8, … strongest eigenvectors


def statistics(source: Source, draws: int, generator: torch.Generator, part: Part = "train") -> Statistics:
    """Statistics of so many draws; those of few draws say too small a rank."""
    layout, h = source.layout, source.draw(draws, generator, part).to(torch.complex128)
    each = h.abs().square().mean((1, 2, 3))
    moved = {"space": h.movedim(1, -1), "frequency": h, "time": h.movedim(2, -1)}
    spectra = {name: _spectrum(value) for name, value in moved.items()}
    return Statistics(
        draws=len(h),
        power=each.mean().item(),
        weakest_db=db(each.min() / each.mean()).item(),
        strongest_db=db(each.max() / each.mean()).item(),
        delay_spread_ns=delay_spread_ns(h, layout),
        ranks={name: int((s.cumsum(0) < SHARE).sum()) + 1 for name, s in spectra.items()},
        sizes={name: len(s) for name, s in spectra.items()},
        shares={name: [s[: 2**k].sum().item() for k in range(len(s).bit_length())] for name, s in spectra.items()},
    )


def _spectrum(h: Tensor) -> Tensor:
    """Eigenvalues of the covariance over the last axis, descending, of sum one."""
    rows = h.flatten(0, -2)
    values = torch.linalg.eigvalsh(rows.mH @ rows).flip(0).clamp_min(0)
    return values / values.sum()


def delay_spread_ns(h: Tensor, layout: Layout) -> float:
    """RMS spread τ of the delays from `|R(Δf)| = R(0) (1 - (2π Δf τ)² / 2)`, R that of neighbouring subcarriers.

    0 for a single subcarrier. Where neighbours differ much the curve bends and τ is told too small.
    """
    if layout.subcarriers < 2:
        return 0.0
    near, far = h[..., :-1], h[..., 1:]
    together = (near.conj() * far).mean().abs()
    alone = (near.abs().square().mean() * far.abs().square().mean()).sqrt()
    return (2 * (1 - together / alone).clamp_min(0)).sqrt().item() / (2 * pi * layout.spacing_hz) * 1e9
