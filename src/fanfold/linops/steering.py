"""Factors of array and radar measurements: steering matrices, partial Fourier matrices, range-angle-Doppler products.

Far field, narrow band: an element at position p (in wavelengths) sees a plane wave from direction u (the sine of the
angle) with phase `2 pi p u`. Van Trees (2002), Optimum Array Processing, section 2.2. Columns have unit norm.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fanfold.linops.base import refuse_non_finite
from fanfold.linops.kronecker import Kronecker


def uniform_linear(elements: int, spacing: float = 0.5) -> Float[Tensor, "elements"]:
    """Positions of a uniform linear array along its axis, in wavelengths.

    Raises:
        ValueError: If there is no element or they coincide.
    """
    if elements < 1 or spacing <= 0:
        raise ValueError(
            f"{elements} elements, {spacing} wavelengths apart; pass at least one, and a positive spacing."
        )
    return spacing * torch.arange(elements, dtype=torch.float64)


def steering(positions: Float[Tensor, "m"], sines: Float[Tensor, "n"], dtype: torch.dtype = torch.complex64) -> Tensor:
    """Steering matrix `(m, n)` with entries `exp(2 pi i p u) / sqrt(m)`.

    Args:
        positions: Of the elements along one axis, in wavelengths, `(m,)`.
        sines: Of the angles that are looked at, `(n,)`, within -1 … 1.
        dtype: Complex.

    Raises:
        ValueError: If two elements coincide, a direction is no sine, or the dtype is not complex.
    """
    positions, sines = (torch.as_tensor(a, dtype=torch.float64) for a in (positions, sines))
    refuse_non_finite(positions)
    gaps = positions.sort().values.diff()
    if (gaps <= 0).any():
        where = positions.sort().values[:-1][gaps <= 0][0].item()
        raise ValueError(f"two antennas coincide at {where:g} wavelengths; give each a place of its own.")
    if not (sines.abs() <= 1).all():
        raise ValueError(f"direction {sines.abs().max().item():g} is no sine; pass values within -1 … 1.")
    if not dtype.is_complex:
        raise ValueError(f"a steering matrix is complex, not {dtype}; pass complex64 or complex128.")
    phase = 2 * math.pi * positions[:, None] * sines
    return (torch.polar(torch.ones_like(phase), phase) / len(positions) ** 0.5).to(dtype)


def field_of_view(points: int, share: float = 1.0) -> Float[Tensor, "points"]:
    """Sines of `points` directions, evenly from `-share` to `share`."""
    if points < 1 or not 0 < share <= 1:
        raise ValueError(
            f"{points} directions over {share} of the field of view; pass at least one and a share in (0, 1]."
        )
    return torch.linspace(-share, share, points, dtype=torch.float64)


def partial_fourier(n: int, rows: Tensor, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Some rows of the Fourier matrix, `(m, n)`, with columns of unit norm.

    Raises:
        ValueError: If a row is not one of 0 … n - 1 or is repeated.
    """
    rows = torch.as_tensor(rows)
    if rows.min() < 0 or rows.max() >= n or len(rows.unique()) < len(rows):
        raise ValueError(f"rows of a Fourier matrix of {n} are different numbers from 0 to {n - 1}.")
    phase = -2 * math.pi * (rows[:, None] * torch.arange(n) % n).double() / n
    return (torch.polar(torch.ones_like(phase), phase) / len(rows) ** 0.5).to(dtype)


def ofdm_radar(
    antennas: int,
    subcarriers: int,
    symbols: int,
    scene: tuple[int, int, int],
    field: float = 1.0,
    dtype: torch.dtype = torch.complex64,
) -> Kronecker:
    """Angle ⊗ range ⊗ Doppler for an OFDM radar whose symbols are known: each axis is a harmonic of its own.

    A target at delay tau turns subcarrier k by `exp(-2 pi i k df tau)` and symbol l by `exp(2 pi i l T fd)`; the axes
    of the scene are in units of the unambiguous delay and Doppler. Braun (2014), OFDM Radar Algorithms, section 3.1.

    Args:
        antennas: Elements of a uniform linear array, half a wavelength apart.
        subcarriers: Measured frequencies.
        symbols: Measured times.
        scene: Angles, ranges and Dopplers of the scene.
        field: Share of each axis that the scene covers.
        dtype: Complex.
    """
    angles, ranges, dopplers = scene
    delay = torch.arange(ranges, dtype=torch.float64) * field / ranges
    doppler = (torch.arange(dopplers, dtype=torch.float64) / dopplers - 0.5) * field
    return Kronecker(
        steering(uniform_linear(antennas), field_of_view(angles, field), dtype),
        steering(uniform_linear(subcarriers, 1.0), -delay, dtype),
        steering(uniform_linear(symbols, 1.0), doppler, dtype),
    )
