"""The extended Ziv-Zakai bound on one parameter. Bell, Steinberg, Ephraim & Van Trees (1997).

Whoever estimates x can tell x from x + h, and no better than the best test between the two. Unlike Van Trees' bound it
covers priors that jump, such as a uniform one, and shows the threshold where far-off values are mistaken for the truth.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.bounds.assumptions import has_atoms
from fanfold.bounds.panels import panels
from fanfold.core.abilities import offers, require
from fanfold.core.units import power
from fanfold.problems.protocols import CorrelatedModel, KnownModel, KnownWaveform, WhiteModel

PAIRS_AT_ONCE = 16_384  # of values that are tested together, for their memory
TURNS = 128  # nodes of the integral over a phase
FINEST = 1e-7  # least difference h, as a share of the support: what is left out is 1e-14 of its square
TestError = Callable[[Tensor, Tensor, Tensor], Tensor]
Density = Callable[[Tensor], Tensor]


@runtime_checkable
class PlacedWaveform(WhiteModel, KnownWaveform, Protocol):
    """A source of known shape at an unknown place, the first parameter: `y = a e^{i phi} s(place) + w`, `‖s‖² = m`.

    `gain` says what of `a e^{i phi}` is unknown: nothing ("known"), a uniform "phase", or all of it, `CN(0, 1)`
    ("rayleigh"). The place does not depend on it.
    """

    def log_density(self, place: Tensor) -> Tensor:
        """The log prior of the place, `(...)` -> `(...)`."""


@dataclass(frozen=True)
class ZivZakai:
    """The bound on the mean squared error, and by how much its quadrature errs.

    Attributes:
        mse: Least mean squared error.
        numerical_error: What twice as many cells change.
        name: Name of the parameter.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.Denoising(ff.priors.Gaussian(1.0), snr_db=0.0)
        >>> round(ff.bounds.ziv_zakai(problem).mse, 3)
        0.5
    """

    mse: float
    numerical_error: float
    name: str


def ziv_zakai(problem: object, equally_likely: bool = False, cells: int = 32) -> ZivZakai:
    """The bound `½ ∫ V{∫ (p(x) + p(x + h)) P_min(x, x + h) dx} h dh`; V fills valleys: it is the largest from h on.

    `P_min` is the error of the best test between x and x + h, whose odds are those of the prior. It is exact for
    `y = mean(x) + w` in white Gaussian noise, and for a source of unknown gain (`problems.located`): Gaussian, or of
    unknown phase, where there is a formula only for equal odds.

    Args:
        problem: A `problems.protocols.KnownModel` with one parameter, or a source whose place alone is estimated.
        equally_likely: Take `2 min(p(x), p(x + h))` and equal odds instead, which is a lower bound too, never higher.
        cells: Number of cells over x, of eight nodes each; twice as many over h.

    Raises:
        ValueError: If the problem has other parameters, its model is not one of these, or its prior has atoms.
    """
    model = require(problem, KnownModel, "ziv_zakai", "Learn a bound from draws instead: learned_bound.")
    error, equal_only = _test_error(model)
    density, ends = _prior(model)
    coarse, fine = (_bound(density, error, ends, equally_likely or equal_only, n) for n in (cells, 2 * cells))
    return ZivZakai(fine, abs(fine - coarse), model.names[0])


def gaussian_test_error(distance: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """The error of the test between two known signals d standard deviations apart.

    It is `p0 Q(d/2 + t/d) + p1 Q(d/2 - t/d)`, `t = log(p0 / p1)`.

    `d² = ‖difference‖² / noise_var` if y is real, twice that if it is complex. Van Trees (1968), section 2.2.
    """
    d = distance.clamp_min(1e-30)
    t = torch.log(p0.clamp_min(1e-300)) - torch.log(p1.clamp_min(1e-300))
    return p0 * _tail(d / 2 + t / d) + p1 * _tail(d / 2 - t / d)


def phase_test_error(correlation: Tensor, snr: float) -> Tensor:
    """The error of the test between two equally likely signals of the same energy and of unknown, uniform phase.

    `Q₁(a, b) - ½ e^{-(a² + b²) / 2} I₀(ab)` with `a, b = √(snr / 2 (1 ∓ √(1 - |ρ|²)))`, `snr = energy / noise_var`
    (Proakis, 1995, section 5-4), as one integral over a phase, `∫_0^π exp(-snr/2 (1 - ρ²) / (1 - |ρ| cos u)) du / 2π`.
    """
    r = correlation.clamp(0, 1).unsqueeze(-1)
    u = math.pi * (torch.arange(TURNS, dtype=torch.float64, device=r.device) + 0.5) / TURNS
    return 0.5 * torch.exp(-snr / 2 * (1 - r.square()) / (1 - r * u.cos())).mean(-1)


def rayleigh_test_error(correlation: Tensor, snr: float, p0: Tensor, p1: Tensor) -> Tensor:
    """The error of the test between two signals of the same energy with an unknown gain `CN(0, 1)`.

    The log likelihood ratio is the difference of two exponential variables whose means a and b are the eigenvalues of a
    Hermitian form: `a - b = a b = snr² (1 - ρ²) / (1 + snr)`. With equal odds the error is `b / (a + b)`.
    """
    apart = (1 - correlation.clamp(0, 1).square()).clamp_min(1e-300)
    u = snr**2 * apart / (1 + snr)
    a = (u + (u.square() + 4 * u).sqrt()) / 2
    b = u / a
    t = torch.log(p1.clamp_min(1e-300)) - torch.log(p0.clamp_min(1e-300))

    def below(at: Tensor) -> Tensor:
        falls = b / (a + b) * torch.exp(at.clamp_max(0) / b)
        return torch.where(at <= 0, falls, 1 - a / (a + b) * torch.exp(-at.clamp_min(0) / a))

    return p0 * below(t) + p1 * below(-t)


def _tail(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(z / math.sqrt(2))


def _test_error(model: KnownModel) -> tuple[TestError, bool]:
    """The error of the test between x and x + h given their odds, and whether equal odds are all that it knows."""
    source = model if offers(model, PlacedWaveform) and model.gain != "known" else None
    if tuple(model.wanted) != (0,) or (source is None and len(model.names) > 1):
        raise ValueError(
            f"Ziv and Zakai's bound is on one parameter, and the problem has {', '.join(model.names)}; estimate one, "
            "or hold estimators against the exact MMSE (exact_mmse) or Van Trees' bound (van_trees)."
        )
    if source is None:
        return _known_gain_error(model), False

    def correlation(x: Tensor, h: Tensor) -> tuple[Tensor, float]:
        s, other = source.waveform(x), source.waveform(x + h)
        m = s.shape[-1]
        return (s.conj() * other).sum(-1).abs() / m, m / source.noise_var

    if source.gain == "rayleigh":
        return lambda x, h, p: rayleigh_test_error(*correlation(x, h), p, 1 - p), False
    return lambda x, h, p: phase_test_error(*correlation(x, h)), True


def _known_gain_error(model: KnownModel) -> TestError:
    """The error of the test between two signals that are known but for the parameter."""
    if offers(model, CorrelatedModel) or not offers(model, WhiteModel):
        raise ValueError(
            f"{type(model).__name__} is not mean(x) in white Gaussian noise, whose tests are known; use the exact MMSE "
            "(exact_mmse)."
        )

    def error(x: Tensor, h: Tensor, p: Tensor) -> Tensor:
        gap = model.mean((x + h).unsqueeze(-1)) - model.mean(x.unsqueeze(-1))
        square = power(gap).sum(-1) * (2 if gap.is_complex() else 1) / model.noise_var
        return gaussian_test_error(square.sqrt(), p, 1 - p)

    return error


def _bound(density: Density, error: TestError, ends: tuple[float, float], equal: bool, cells: int) -> float:
    """`½ ∫ V{f}(h) h dh`, f at the nodes of cells that are small where h is: the error falls with h on every scale."""
    widest = ends[1] - ends[0]
    steps = torch.linspace(0, 1, 2 * cells + 1, dtype=torch.float64)
    fine = 2.0 ** -torch.arange(0, -math.log2(FINEST), 32 / cells, dtype=torch.float64)
    h, weight = panels(widest * torch.cat([steps, fine]).unique())
    places, share = panels(torch.linspace(0, 1, cells + 1, dtype=torch.float64))
    rows = max(1, PAIRS_AT_ONCE // len(places))
    parts = [_overlap(density, error, ends, part, places, share, equal) for part in h.split(rows)]
    filled = torch.cat(parts).flip(0).cummax(0).values.flip(0)
    return (0.5 * filled * h * weight).sum().item()


def _overlap(
    density: Density, error: TestError, ends: tuple[float, float], h: Tensor, places: Tensor, share: Tensor, equal: bool
) -> Tensor:
    """`∫ (p(x) + p(x + h)) P_min(x, x + h) dx` where both lie in the support, for each h."""
    room = (ends[1] - ends[0] - h).unsqueeze(-1)
    x, step = ends[0] + room * places, h.unsqueeze(-1).expand(-1, len(places))
    p0, p1 = density(x), density(x + step)
    total = p0 + p1
    odds = torch.full_like(p0, 0.5) if equal else p0 / total.clamp_min(1e-300)
    mass = 2 * torch.minimum(p0, p1) if equal else total
    return (mass * error(x, step, odds) * room * share).sum(-1)


def _prior(model: KnownModel) -> tuple[Density, tuple[float, float]]:
    """The density of the parameter, and the ends of its support; a source's place is independent of its gain."""
    if offers(model, PlacedWaveform):
        return lambda x: model.log_density(x).exp(), model.window
    return lambda x: model.log_prior(x.unsqueeze(-1)).exp(), _support(model)


def _support(model: KnownModel) -> tuple[float, float]:
    """The ends between which the density is above 1e-16 of its highest value at draws; the rest would only add."""
    draws = model.sample_all(2000, torch.Generator().manual_seed(0))[0][:, :1].double()
    if has_atoms(draws.flatten()):
        raise ValueError(
            f"the prior of {model.names[0]} has atoms, and Ziv and Zakai's bound needs a density: use the exact "
            "MMSE (exact_mmse)."
        )
    logs = model.log_prior(draws)
    least = logs.max().item() + math.log(1e-16)

    def end(inside: float, step: float) -> float:
        """Doubles the step while it stays inside, then halves it."""
        outside = inside + step
        while model.log_prior(torch.tensor([outside], dtype=torch.float64)).item() > least:
            inside, outside = outside, outside + 2 * (outside - inside)
        for _ in range(60):
            middle = (inside + outside) / 2
            if model.log_prior(torch.tensor([middle], dtype=torch.float64)).item() > least:
                inside = middle
            else:
                outside = middle
        return inside

    spread = draws.std().item()
    return end(draws.min().item(), -spread), end(draws.max().item(), spread)
