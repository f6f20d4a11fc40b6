"""Models of channels in closed form: Rayleigh, Kronecker-correlated, Rician, and time-varying as in Clarke (1968)."""

import math
from dataclasses import dataclass
from functools import cache, reduce
from typing import ClassVar

import torch
from scipy.special import j0
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.settings import Checked
from fanfold.propagation.base import Layout, Part

LIGHT = 299_792_458.0  # m/s


@dataclass(frozen=True)
class Rayleigh(Checked):
    """Independent `CN(0, 1)` entries for each antenna and subcarrier, the same in all symbols of a slot.

    Example:
        >>> import torch, fanfold as ff
        >>> model = ff.propagation.source_of("rayleigh:array=2x4,subcarriers=12")
        >>> tuple(model.draw(5, torch.Generator().manual_seed(0)).shape)
        (5, 8, 1, 12)
    """

    array: tuple[int, ...] = (2, 4, 8)  # antennas along each axis: polarisations, columns, rows
    symbols: int = 1
    subcarriers: int = 48
    spacing_hz: float = 30e3
    carrier_hz: float = 3.5e9

    def __post_init__(self):
        _ = self.layout  # refuses what is no layout

    @property
    def layout(self) -> Layout:
        """The shape and numerology of its channels."""
        return Layout(self.array, self.symbols, self.subcarriers, self.spacing_hz, self.carrier_hz)

    def correlations(self) -> list[Tensor]:
        """The correlations `(size, size)`, complex128, along each axis of the array, time and frequency."""
        still = torch.ones(self.symbols, self.symbols, dtype=torch.complex128)
        return [*(_independent(size) for size in self.array), still, _independent(self.subcarriers)]

    def covariance(self) -> Tensor:
        """`E h hᴴ`, `(n, n)`, complex128: the Kronecker product of the correlations. Large for large arrays."""
        return reduce(torch.kron, self.correlations())

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """Fresh channels `(n, antennas, symbols, subcarriers)`, complex64; all parts are alike."""
        h = circular((n, *self.array, self.symbols, self.subcarriers), generator, torch.complex64)
        for axis, root in enumerate(_roots(self), start=1):
            if root is not None:
                h = (h.movedim(axis, -1) @ root.mT).movedim(-1, axis)
        return h.reshape(n, *self.layout.shape)


@dataclass(frozen=True)
class Kronecker(Rayleigh):
    """Gaussian channels whose covariance is a Kronecker product over the axes of the array and the subcarriers.

    `ρ^|i - j|` along each axis, or, from a physical spread: over subcarriers `1 / (1 + j 2π τ Δf)`, the transform of an
    exponential power delay profile of RMS τ; over columns and rows half a wavelength apart `exp(-(π d σ)² / 2)`, paths
    that leave the broadside by a small Gaussian angle of deviation σ, polarisations then being independent.
    The same in all symbols.

    Raises:
        ValueError: If a correlation is not from 0 to below 1, a spread is not positive, or both are given.

    Example:
        >>> import fanfold as ff
        >>> model = ff.propagation.source_of("kronecker:array=1x2,subcarriers=3,space=0.5,frequency=0.9")
        >>> [[round(value, 2) for value in row] for row in model.correlations()[-1].real.tolist()]
        [[1.0, 0.9, 0.81], [0.9, 1.0, 0.9], [0.81, 0.9, 1.0]]
    """

    neighbours: ClassVar[tuple[float, float]] = 0.7, 0.95  # correlations over space and frequency where none are given

    space: tuple[float, ...] | None = None  # correlation of neighbours along each axis of the array, or one for all
    frequency: float | None = None  # correlation of neighbouring subcarriers
    delay_spread_ns: float | None = None  # instead of `frequency`
    angle_spread_deg: float | None = None  # instead of `space`

    def __post_init__(self):
        super().__post_init__()
        space, frequency = self._neighbours()
        if len(space) not in (1, len(self.array)):
            raise ValueError(f"space is {space} for an array of {self.array}; pass one number, or one an axis.")
        if not all(0 <= rho < 1 for rho in (*space, frequency)):
            raise ValueError(f"space {space} and frequency {frequency}; correlations are from 0 to below 1.")
        _check_spread("delay_spread_ns", self.delay_spread_ns, "frequency", self.frequency)
        _check_spread("angle_spread_deg", self.angle_spread_deg, "space", self.space)

    def _neighbours(self) -> tuple[tuple[float, ...], float]:
        """The correlations along the axes of the array and along frequency, where no spread implies them."""
        space, frequency = self.neighbours
        return (space,) if self.space is None else self.space, frequency if self.frequency is None else self.frequency

    def correlations(self) -> list[Tensor]:
        *_, time, _ = super().correlations()
        return [*self._over_space(), time, self._over_frequency()]

    def _over_space(self) -> list[Tensor]:
        if self.angle_spread_deg is None:
            space, _ = self._neighbours()
            space = space * len(self.array) if len(space) == 1 else space
            return [rho ** _lags(size).abs() + 0j for rho, size in zip(space, self.array)]
        sigma = math.radians(self.angle_spread_deg)
        around = [torch.exp(-((math.pi * _lags(size) * sigma) ** 2) / 2) + 0j for size in self.array[-2:]]
        return [*(_independent(size) for size in self.array[:-2]), *around]

    def _over_frequency(self) -> Tensor:
        lags = _lags(self.subcarriers)
        if self.delay_spread_ns is None:
            return self._neighbours()[1] ** lags.abs() + 0j
        return 1 / (1 + 2j * math.pi * self.delay_spread_ns * 1e-9 * self.spacing_hz * lags)


@dataclass(frozen=True)
class Rician(Kronecker):
    """`sqrt(K / (K + 1)) a + sqrt(1 / (K + 1)) g`: a line of sight a over scattering g, independent unless correlated.

    a has unit modulus and is the same at all symbols and subcarriers: the receiver is synchronised to it. Along columns
    and rows, half a wavelength apart, its phase is linear, `π u i`, with u uniform up to the sine of the largest angle;
    polarisations and panels have random phases of their own.

    Raises:
        ValueError: If an angle is not above 0 and up to 90 degrees, or as of `Kronecker`.

    Example:
        >>> import fanfold as ff
        >>> model = ff.propagation.source_of("rician:array=8,subcarriers=12,k_db=10")
        >>> round(model.sight, 3)
        0.909
    """

    neighbours = 0.0, 0.0

    k_db: float = 10.0  # power of the line of sight over that of the scattering
    azimuth_deg: float = 60.0  # the largest angle from broadside, over the columns
    elevation_deg: float = 30.0  # the same, over the rows

    def __post_init__(self):
        super().__post_init__()
        if not all(0 < angle <= 90 for angle in (self.azimuth_deg, self.elevation_deg)):
            raise ValueError(f"angles {self.azimuth_deg} and {self.elevation_deg}; pass angles above 0 and up to 90.")

    @property
    def sight(self) -> float:
        """The power of the line of sight, `K / (K + 1)`."""
        return 1 / (1 + 10 ** (-self.k_db / 10))

    @property
    def _steered(self) -> list[tuple[int, float]]:
        """The sizes of the axes that are steered, and the largest phase step over π of each."""
        angles = (self.azimuth_deg, self.elevation_deg)[: len(self.array)]  # a single axis lies flat
        return [(size, math.sin(math.radians(angle))) for size, angle in zip(self.array[-2:], angles)]

    def covariance(self) -> Tensor:
        over = [_independent(size) for size in self.array[:-2]]
        over += [torch.sinc(_lags(size) * widest) + 0j for size, widest in self._steered]
        flat = torch.ones(self.symbols * self.subcarriers, self.symbols * self.subcarriers, dtype=torch.complex128)
        return self.sight * reduce(torch.kron, [*over, flat]) + (1 - self.sight) * super().covariance()

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        scattered = super().draw(n, generator, part)
        turns = 2 * math.pi * torch.rand(n, *self.array[:-2], generator=generator)
        for size, widest in self._steered:
            u = widest * (2 * torch.rand(n, generator=generator) - 1)
            steps = (math.pi * u[:, None] * torch.arange(size)).reshape(n, *[1] * (turns.ndim - 1), size)
            turns = turns[..., None] + steps
        seen = torch.polar(torch.ones_like(turns), turns).reshape(n, -1, 1, 1)
        return self.sight**0.5 * seen + (1 - self.sight) ** 0.5 * scattered


@dataclass(frozen=True)
class Jakes(Kronecker):
    """A moving user among scatterers all round: over symbols, `J0(2π v f_c Δt / c)` (Clarke 1968); Jakes' spectrum.

    Raises:
        ValueError: If the speed is negative, or as of `Kronecker`.

    Example:
        >>> import fanfold as ff
        >>> model = ff.propagation.source_of("jakes:array=2,subcarriers=12,speed_mps=30")
        >>> model.layout.shape
        (2, 14, 12)
    """

    neighbours = 0.0, 0.95

    symbols: int = 14
    speed_mps: float = 30.0

    def __post_init__(self):
        super().__post_init__()
        if not self.speed_mps >= 0:
            raise ValueError(f"speed_mps is {self.speed_mps}; pass a speed from zero on.")

    def correlations(self) -> list[Tensor]:
        *space, _, frequency = super().correlations()
        doppler = self.speed_mps * self.carrier_hz / LIGHT
        angle = 2 * math.pi * doppler * self.layout.symbol_seconds * _lags(self.symbols)
        return [*space, torch.from_numpy(j0(angle.numpy())) + 0j, frequency]


def _check_spread(name: str, spread: float | None, other: str, correlation: object) -> None:
    """Refuse a spread that is not positive and finite, or that stands beside the correlation that it implies."""
    if spread is None:
        return
    if not 0 < spread < math.inf:
        raise ValueError(f"{name} is {spread}; pass a positive, finite one.")
    if correlation is not None:
        raise ValueError(f"{other} and {name} both give the correlation; pass one of them.")


MODELS: dict[str, type[Rayleigh]] = {"rayleigh": Rayleigh, "kronecker": Kronecker, "rician": Rician, "jakes": Jakes}


def _independent(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.complex128)


def _lags(size: int) -> Tensor:
    """`i - j`, float64."""
    steps = torch.arange(size, dtype=torch.float64)
    return steps[:, None] - steps


@cache
def _roots(model: Rayleigh) -> list[Tensor | None]:
    """Hermitian square roots of the correlations, complex64; None where entries are independent."""
    roots: list[Tensor | None] = []
    for R in model.correlations():
        if torch.equal(R, _independent(len(R))):
            roots.append(None)
            continue
        values, vectors = torch.linalg.eigh(R)
        # rounding leaves the least eigenvalues slightly negative
        roots.append(((vectors * values.clamp_min(0).sqrt()) @ vectors.mH).to(torch.complex64))
    return roots
