"""A grid of beams and delays that paths are looked for on, and the noise that no path on it can cause.

Virtual channel representation: Sayeed (2002). The noise subspace: Schmidt (1986), MUSIC.
"""

import torch
from torch import Tensor, nn

from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import CYCLIC_PREFIX
from fanfold.estimators.ofdm.delay_threshold import BeamDelayTransform, median_noise
from fanfold.observation import Observation
from fanfold.propagation import Layout

SMALLEST_NOISE_SUBSPACE = 0.25  # of the directions of the pilots: the median of all says more of the noise than fewer


def beam_delay_grid(
    layout: Layout, beams: int = 1, delays: int = 2, longest_delay_s: float | None = None
) -> tuple[Tensor, Tensor]:
    """Steering vectors `(antennas, atoms)` and delays `(symbols · subcarriers, atoms)`, complex128, of modulus one.

    Directions are uniform in sine along the last two axes of the array; polarisations and panels have their own. Delays
    run from zero on in steps of a share of one over the bandwidth. Paths stand still over a slot.

    Args:
        layout: Layout of the channels.
        beams: Atoms for each antenna along an axis.
        delays: Atoms within one over the bandwidth.
        longest_delay_s: Longest delay in seconds; the cyclic prefix if None.

    Raises:
        ValueError: If a number is not positive.
    """
    longest = CYCLIC_PREFIX / layout.spacing_hz if longest_delay_s is None else longest_delay_s
    if min(beams, delays) < 1 or not longest > 0:
        raise ValueError(f"beams {beams}, delays {delays} and longest_delay_s {longest}; all are greater than zero.")
    B = torch.eye(torch.Size(layout.array[:-2]).numel(), dtype=torch.complex128)
    for size in layout.array[-2:]:
        B = torch.kron(B, _waves(size, torch.arange(beams * size if size > 1 else 1) / (beams * size)))
    steps = int(longest * layout.spacing_hz * layout.subcarriers * delays) + 1
    D = _waves(layout.subcarriers, torch.arange(steps) / (delays * layout.subcarriers))
    return B, D.repeat(layout.symbols, 1)


class NoiseBeyondDelays(nn.Module):
    """The noise variance of pilots from what no path on the grid can cause; where that is little, the median.

    What is left is the mean power along the directions that are orthogonal to all delays, as in MUSIC's noise subspace.

    Args:
        array: Antennas along each axis.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        seen: Delays at the pilots `(pilots, atoms)`.
    """

    def __init__(self, array: tuple[int, ...], mask: Tensor, seen: Tensor):
        super().__init__()
        U, d, _ = torch.linalg.svd(seen, full_matrices=True)
        self.register_buffer("beyond", U[:, int((d > 1e-4 * d[0]).sum()) :].conj().to(torch.complex64))
        few = self.beyond.shape[1] < SMALLEST_NOISE_SUBSPACE * len(seen)
        self.transform = BeamDelayTransform(array, mask) if few else None

    def forward(self, y: Tensor) -> Tensor:
        """The noise variance `(batch, 1)` of pilots `(batch, antennas, pilots)`."""
        if self.transform is not None:
            return median_noise(power(self.transform(y.flatten(1))[1]).flatten(1))
        return power(y @ self.beyond).mean((1, 2))[:, None]


def known_or_measured(obs: Observation, y: Tensor, measure: NoiseBeyondDelays) -> Tensor:
    """The noise variance `(batch, 1)`, known or measured."""
    if obs.noise_var is None:
        return measure(y)
    return obs.noise_var.expand(*obs.y.shape[:-1], 1).reshape(-1, 1).float()


def _waves(size: int, turns: Tensor) -> Tensor:
    """The waves `exp(-j 2π i u)`, `(size, atoms)`, for i below `size` and turns u `(atoms,)`."""
    angle = -2 * torch.pi * torch.arange(size, dtype=torch.float64)[:, None] * turns.double()
    return torch.polar(torch.ones_like(angle), angle)
