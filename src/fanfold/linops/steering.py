"""Factors of array and radar measurements: steering matrices, partial Fourier matrices, range-angle-Doppler products.

Far field, narrow band: an element at position p (in wavelengths) sees a plane wave from direction u (the sine of the
angle) with phase `2 pi p u`. Van Trees (2002), Optimum Array Processing, section 2.2. Columns have unit norm.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.kronecker import Kronecker


def uniform_linear(elements: int, spacing: float = 0.5) -> Float[Tensor, "elements"]:
    """The positions of a uniform linear array along its axis, in wavelengths.

    Raises:
        ValueError: If there is no element or they coincide.
    """
    if elements < 1 or spacing <= 0:
        raise ValueError(
            f"{elements} elements, {spacing} wavelengths apart; pass at least one, and a positive spacing."
        )
    return spacing * torch.arange(elements, dtype=torch.float64)


def steering(positions: Float[Tensor, "m"], sines: Float[Tensor, "n"], dtype: torch.dtype = torch.complex64) -> Tensor:
    """The steering matrix `(m, n)` with entries `exp(2 pi i p u) / sqrt(m)`.

    Args:
        positions: The positions of the elements along one axis, in wavelengths, `(m,)`.
        sines: The sines of the angles that are looked at, `(n,)`, within -1 … 1.
        dtype: A complex dtype.

    Raises:
        ValueError: If two elements coincide, a direction is no sine, or the dtype is not complex.
    """
    positions, sines = (torch.as_tensor(a, dtype=torch.float64) for a in (positions, sines))
    _refuse_coincident(positions)
    if not (sines.abs() <= 1).all():
        raise ValueError(f"direction {sines.abs().max().item():g} is no sine; pass values within -1 … 1.")
    if not dtype.is_complex:
        raise ValueError(f"a steering matrix is complex, not {dtype}; pass complex64 or complex128.")
    phase = 2 * math.pi * positions[:, None] * sines
    return (torch.polar(torch.ones_like(phase), phase) / len(positions) ** 0.5).to(dtype)


def _refuse_coincident(positions: Tensor) -> None:
    refuse_non_finite(positions, "the list of positions")
    positions = positions.sort().values
    gaps = positions.diff()
    if (gaps <= 0).any():
        where = positions[:-1][gaps <= 0][0].item()
        raise ValueError(f"two antennas coincide at {where:g} wavelengths; give each a place of its own.")


def coupling(positions: Float[Tensor, "m"], strength_db: float, dtype: torch.dtype = torch.complex64) -> Tensor:
    """The mutual coupling of an array, `(m, m)`: `coupling(p, -20) @ steering(p, u)` is what its elements receive.

    Each element re-radiates what it receives: `C[i, j] = c exp(-2 pi i d) / (2 d)` at a distance of d wavelengths,
    the wave of a small source, and 1 on the diagonal; `|c|` is the strength at half a wavelength. C multiplies from
    the left and is symmetric; magnitudes that fall as `1 / d` are usual for such studies (Liu & Vaidyanathan, 2016,
    Super nested arrays, part I). An array on a plane that is a Kronecker product is coupled along its rows and along
    its columns, one matrix a factor.

    Args:
        positions: The positions of the elements along one axis, in wavelengths, `(m,)`.
        strength_db: The power that an element half a wavelength away passes on, in dB, below 0.
        dtype: A complex dtype.

    Raises:
        ValueError: If two elements coincide, the strength is not below 0 dB, or the dtype is not complex.
    """
    positions = torch.as_tensor(positions, dtype=torch.float64)
    _refuse_coincident(positions)
    if not strength_db < 0:
        raise ValueError(f"the coupling is {strength_db} dB; an element passes on less than it receives: below 0 dB.")
    if not dtype.is_complex:
        raise ValueError(f"coupling is complex, not {dtype}; pass complex64 or complex128.")
    distance = (positions[:, None] - positions).abs().fill_diagonal_(1.0)
    coupled = torch.polar(10 ** (strength_db / 20) / (2 * distance), -2 * math.pi * distance)
    return coupled.fill_diagonal_(1.0).to(dtype)


def field_of_view(points: int, share: float = 1.0) -> Float[Tensor, "points"]:
    """The sines of `points` directions, evenly from `-share` to `share`.

    Raises:
        ValueError: If there is no direction or the share is not in (0, 1].
    """
    if points < 1 or not 0 < share <= 1:
        raise ValueError(
            f"{points} directions over {share} of the field of view; pass at least one and a share in (0, 1]."
        )
    return torch.linspace(-share, share, points, dtype=torch.float64)


def planar_array(
    rows: int,
    columns: int,
    scene: tuple[int, int],
    field: float = 1.0,
    dtype: torch.dtype = torch.complex64,
) -> Kronecker:
    """A uniform planar array, half a wavelength apart, that looks at a grid of directions: one factor an axis.

    A wave with direction cosines (u, v) meets the element in row i and column j with phase `pi (i u + j v)`, a product
    of two linear arrays. Van Trees (2002), section 4.1.1.

    Args:
        rows: The number of elements along the first axis.
        columns: The number of elements along the second.
        scene: The number of directions along each axis.
        field: The share of -1 … 1 that the scene covers along each axis; no wave comes from beyond `u² + v² = 1`, which
            matters above 0.7.
        dtype: A complex dtype.

    Raises:
        ValueError: If a count is not positive or the share is not in (0, 1].
    """
    if len(scene) != 2:
        raise ValueError(f"the scene is {scene}; a planar array sees two axes of directions.")
    sizes = zip((rows, columns), scene, strict=True)
    return Kronecker(*(steering(uniform_linear(m), field_of_view(n, field), dtype) for m, n in sizes))


def partial_fourier(n: int, rows: Tensor, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Chosen rows of the Fourier matrix, `(m, n)`, with columns of unit norm.

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
        antennas: The number of elements of a uniform linear array, half a wavelength apart.
        subcarriers: The number of measured frequencies.
        symbols: The number of measured times.
        scene: The number of angles, ranges and Dopplers of the scene.
        field: The share of each axis that the scene covers.
        dtype: A complex dtype.
    """
    angles, ranges, dopplers = scene
    delay = torch.arange(ranges, dtype=torch.float64) * field / ranges
    doppler = (torch.arange(dopplers, dtype=torch.float64) / dopplers - 0.5) * field
    return Kronecker(
        steering(uniform_linear(antennas), field_of_view(angles, field), dtype),
        steering(uniform_linear(subcarriers, 1.0), -delay, dtype),
        steering(uniform_linear(symbols, 1.0), doppler, dtype),
    )
