"""Second moments of channels over antennas and over the resource grid, learned from draws or designed to be robust.

Robust designs: Li, Cimini & Sollenberger (1998), a uniform delay profile; a uniform angle gives Clarke's correlation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.streams import Stream
from fanfold.core.units import ordinary_binade, power
from fanfold.problems.draws import draw
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

DRAWS_AT_A_TIME = 2000
SMALLEST_SIGNAL_SHARE = 0.05  # of the measured power, however much noise there is said to be
SMALLEST_OVER_NOISE = 1e-3  # of the noise variance: silence may be a signal that noise hides
CYCLIC_PREFIX = 144 / 2048  # of a symbol's useful length, normal prefix: 3GPP TS 38.211, 5.3.1


@dataclass(frozen=True)
class ChannelCovariance:
    """`E h hᴴ ≈ space ⊗ grid` of channels of unit mean power; both are complex128, Hermitian, of mean diagonal one.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("rayleigh:array=2x4,subcarriers=12")
        >>> covariance = ff.estimators.ofdm.ChannelCovariance.of(problem, samples=100)
        >>> tuple(covariance.space.shape), tuple(covariance.grid.shape)
        ((8, 8), (12, 12))
    """

    space: Tensor  # (antennas, antennas)
    grid: Tensor  # (entries, entries), entries = symbols · subcarriers

    @classmethod
    def of(cls, problem: ChannelProblem, samples: int = 20_000, seed: int = 0) -> "ChannelCovariance":
        """The covariance of draws of a problem; each factor is the mean over the axes of the other.

        Raises:
            ValueError: If `samples` is not positive, or the channels are zero or not finite.
        """
        if samples < 1:
            raise ValueError(f"samples is {samples}; pass at least one.")
        unit: Tensor | None = None  # a power of two, so that no bit depends on it
        antennas, entries = problem.layout.antennas, problem.layout.n // problem.layout.antennas
        space = torch.zeros(antennas, antennas, dtype=torch.complex128)
        grid = torch.zeros(entries, entries, dtype=torch.complex128)
        for index, first in enumerate(range(0, samples, DRAWS_AT_A_TIME)):
            x, _ = draw(problem, min(DRAWS_AT_A_TIME, samples - first), seed, Stream.PREPARATION, index)
            unit = ordinary_binade(check_channels(x).abs().max()) if unit is None else unit
            h = (x / unit).unflatten(1, (antennas, entries))
            flat = h.reshape(-1, entries)  # (draws · antennas, entries)
            grid += (flat.mT @ flat.conj()).to(grid.dtype)
            flat = h.transpose(1, 2).reshape(-1, antennas)
            space += (flat.mT @ flat.conj()).to(space.dtype)
        return cls(_normalised(space), _normalised(grid))

    @classmethod
    def robust(
        cls, layout: Layout, longest_delay_s: float | None = None, doppler_hz: float = 0.0
    ) -> "ChannelCovariance":
        """The covariance of delays uniform up to the longest, uncorrelated antennas and Doppler of Clarke's spectrum.

        Args:
            layout: Shape and numerology.
            longest_delay_s: Longest delay in seconds; the cyclic prefix, which no path of a sound link exceeds, if
                None.
            doppler_hz: Largest Doppler shift.

        Raises:
            ValueError: If the longest delay is not positive, the Doppler shift is negative, or one is not finite.
        """
        longest = CYCLIC_PREFIX / layout.spacing_hz if longest_delay_s is None else longest_delay_s
        if not (0 < longest < math.inf and 0 <= doppler_hz < math.inf):
            raise ValueError(
                f"longest_delay_s is {longest}, doppler_hz {doppler_hz}; both are finite, a delay is greater than zero "
                "and a Doppler shift not negative."
            )
        apart = torch.arange(layout.subcarriers, dtype=torch.float64) * layout.spacing_hz
        lag = longest * (apart[:, None] - apart)
        frequency = torch.polar(torch.sinc(lag), -torch.pi * lag)
        when = torch.arange(layout.symbols, dtype=torch.float64) * layout.symbol_seconds
        time = torch.special.bessel_j0(2 * torch.pi * doppler_hz * (when[:, None] - when).abs())
        eye = torch.eye(layout.antennas, dtype=torch.complex128)
        return cls(eye, torch.kron(time.to(frequency.dtype), frequency))


def check_pilots(y: Tensor, antennas: int, pilots: int) -> None:
    """Refuse observations `(..., m)` of other than `antennas · pilots` complex entries.

    Raises:
        ValueError: If they have more or fewer, or are real.
    """
    if not y.is_complex():
        raise ValueError(f"y is {y.dtype}; pilots of a channel are complex: pass y.to(torch.complex64).")
    if y.shape[-1] != antennas * pilots:
        raise ValueError(
            f"y has {y.shape[-1]} entries; this estimator takes the {pilots} pilots of each of {antennas} antennas, "
            f"(..., {antennas * pilots})."
        )


def check_channels(x: Tensor) -> Tensor:
    """The channels `(draws, n)` to learn second moments from.

    Raises:
        ValueError: If all of them are zero, or an entry is not finite.
    """
    largest = x.abs().max().item()
    if not 0 < largest < math.inf:
        raise ValueError(
            f"the largest entry of the {len(x)} channels to learn from is {largest}; it is to be finite and not zero."
        )
    return x


def by_antenna(y: Tensor, antennas: int, pilots: int) -> Tensor:
    """Observations `(..., antennas · pilots)` as `(batch, antennas, pilots)`.

    Raises:
        ValueError: If they are not as many.
    """
    check_pilots(y, antennas, pilots)
    return y.reshape(-1, antennas, pilots)


def signal_power(y: Tensor, noise_var: Tensor) -> Tensor:
    """Power of the channel at the pilots `(..., 1)`: that of y `(..., m)` less the noise, at least a share of it."""
    measured = power(y).mean(-1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
    least = torch.maximum(SMALLEST_SIGNAL_SHARE * measured, SMALLEST_OVER_NOISE * noise_var)
    return torch.maximum(measured - noise_var, least)


def _normalised(C: Tensor) -> Tensor:
    C = (C + C.mH) / 2
    return C / C.diagonal().real.mean()
