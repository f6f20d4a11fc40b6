"""MUSIC: Schmidt (1986). Root-MUSIC: Barabell (1983). ESPRIT: Roy & Kailath (1989). Smoothing: Pillai & Kwon (1989).

All see `Y = A S + W` through the sample covariance of a uniform linear array and part its signal subspace, spanned by
as many steering vectors `exp(i x m)` as there are sources, from the noise subspace. They need the number of sources,
and neither powers, nor the noise variance, nor a prior.
"""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from fanfold.core.settings import Checked
from fanfold.core.units import binade, power
from fanfold.estimators.base import known_peers
from fanfold.observation import Estimate, Estimator, Observation, takes_measurements
from fanfold.problems.located.direction_of_arrival import DirectionOfArrival

LIFT = 1e-12  # of the null spectrum: parts double roots on the circle along the radius, where angles do not change
NEWTON_STEPS = 20


@dataclass(frozen=True)
class Subspace(Checked, ABC):
    """Electrical angles of sources on a uniform linear array, in radians within ±pi, in rising order.

    Takes y `(..., sensors * snapshots)`, the snapshots of a sensor together, and any number of these. The estimate does
    not change with the scale of y, and turns with the array's phases. Computes in double precision.

    With few snapshots or coherent sources the covariance has too low a rank: `subarray` averages it over all stretches
    of so many sensors (spatial smoothing), and `forward_backward` with the same read backwards.

    A sample whose angles y does not tell has NaN for all of them, and a warning names it: where a sensor is silent in
    every snapshot, since the array is then no uniform one, and where the covariance has a lower rank than there are
    sources. The other samples are what they are alone.

    Raises:
        ValueError: If there are not fewer sources than sensors in a stretch, or, of y, if it does not fit the array or
            the covariance of so few snapshots cannot have the rank of the sources.
    """

    sensors: int
    sources: int
    subarray: int = 0  # sensors in a stretch; 0 takes the whole array
    forward_backward: bool = True

    def __post_init__(self):
        if not 0 <= self.subarray <= self.sensors:
            raise ValueError(f"subarray is {self.subarray}; pass at most the {self.sensors} sensors, or 0 for all.")
        if not 1 <= self.sources < self.stretch:
            what = "the array" if self.stretch == self.sensors else "a stretch"
            raise ValueError(
                f"{self.sources} sources but {self.stretch} sensors in {what}: no noise subspace is left; pass at "
                "least one source and at most one less than sensors."
            )

    @classmethod
    def of(cls, problem: DirectionOfArrival, **settings: Any) -> Self:
        """The estimator for the array and the number of sources of a problem; other fields as given."""
        return cls(problem.sensors, problem.sources, **settings)

    @property
    def stretch(self) -> int:
        """Sensors that the covariance is of."""
        return self.subarray or self.sensors

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The angles, `(..., sources)`, without a variance."""
        R, rounding = self.covariance(obs.y), torch.finfo(obs.y.dtype).eps ** 2
        batch = R.shape[:-2]
        silent, R = self.silent(obs.y), R.reshape(-1, self.stretch, self.stretch)
        R = torch.where(silent.any(-1)[:, None, None], self._exemplary(R), R)
        values, vectors = torch.linalg.eigh(R)
        least = self.stretch * max(rounding, torch.finfo(values.dtype).eps) * values[:, -1]
        poor = values[:, -self.sources] <= least
        vectors = torch.where(poor[:, None, None], torch.linalg.eigh(self._exemplary(R))[1], vectors)
        angles = self.angles(vectors).sort(-1).values
        angles = angles.masked_fill((silent.any(-1) | poor)[:, None], math.nan)
        self._warn(silent, poor, angles)
        return Estimate(angles.reshape(*batch, self.sources).to(obs.y.real.dtype))

    def silent(self, y: Tensor) -> Tensor:
        """Which sensors of y `(..., sensors * snapshots)` say nothing beside the others: `(batch, sensors)`."""
        Y = y.to(torch.complex128).reshape(-1, self.sensors, y.shape[-1] // self.sensors)
        of_sensor = power(Y / binade(Y.abs().amax((-2, -1), keepdim=True))).mean(-1)
        return of_sensor <= torch.finfo(y.dtype).eps ** 2 * of_sensor.mean(-1, keepdim=True)

    def _exemplary(self, R: Tensor) -> Tensor:
        """A covariance that every method can take, of sources on orthogonal directions: `(L, L)`."""
        F = torch.fft.fft(torch.eye(self.stretch, dtype=R.dtype, device=R.device))[:, : self.sources]
        return F @ F.mH

    def _warn(self, silent: Tensor, poor: Tensor, angles: Tensor) -> None:
        untold = angles.isnan().any(-1)
        if not untold.any():
            return
        first = int(untold.nonzero()[0])
        if silent[first].all():
            why = "all sensors are silent"
        elif silent[first].any():
            why = f"sensor {int(silent[first].nonzero()[0])} is silent in every snapshot"
        elif poor[first]:
            why = f"its covariance has a lower rank than its {self.sources} sources (coherent? see subarray)"
        else:
            why = "its signal subspace lies on single sensors"
        warnings.warn(
            f"{type(self).__name__} cannot tell the angles of {int(untold.sum())} of {len(untold)} samples, which are "
            f"NaN; of sample {first} {why}.",
            stacklevel=3,
        )

    @abstractmethod
    def angles(self, vectors: Tensor) -> Tensor:
        """The angles `(batch, sources)`, unordered, of eigenvectors in columns `(batch, L, L)` by rising eigenvalue."""

    def covariance(self, y: Tensor) -> Tensor:
        """Sample covariance, smoothed, of unit power: `(..., L, L)`."""
        if not y.is_complex():
            raise ValueError(f"y is {y.dtype}; snapshots of an array are complex.")
        snapshots, left = divmod(y.shape[-1], self.sensors)
        if left or not snapshots:
            raise ValueError(
                f"y has {y.shape[-1]} entries, no multiple of {self.sensors} sensors; pass (..., sensors * snapshots)."
            )
        stretches = self.sensors - self.stretch + 1
        rank = snapshots * stretches * (2 if self.forward_backward else 1)
        if rank < self.sources:
            fix = "pass more snapshots, a subarray" + ("" if self.forward_backward else " or forward_backward=True")
            raise ValueError(
                f"{snapshots} snapshot(s) give a covariance of rank {rank} at most, too low for {self.sources} "
                f"sources; {fix}."
            )
        Y = y.to(torch.complex128).unflatten(-1, (self.sensors, snapshots))
        Y = Y / binade(Y.abs().amax((-2, -1), keepdim=True))  # powers of what is huge or tiny are no numbers
        Y = Y / power(Y).mean((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        parts = Y.unfold(-2, self.stretch, 1)  # (..., stretches, snapshots, L)
        parts = parts.flatten(-3, -2)
        R = parts.mT @ parts.conj() / parts.shape[-2]
        return (R + R.conj().flip(-2, -1)) / 2 if self.forward_backward else R


@dataclass(frozen=True)
class MUSIC(Subspace):
    """The deepest minima of the null spectrum `‖Eᴴ a(x)‖²`, E the noise subspace: on a grid, then by Newton's method.

    Where two sources make one minimum the others are taken from what minima are left, between sidelobes: that is how
    MUSIC fails. Minima are looked for within `limits`, whose ends count as such.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.DirectionOfArrival(sensors=8, sources=2)
        >>> ff.estimators.MUSIC.of(problem)(problem.sample(5, torch.Generator())[1]).x.shape
        torch.Size([5, 2])
    """

    limits: tuple[float, float] = (-math.pi, math.pi)
    grid: int = 0  # points; 0 takes 16 to a sensor

    def angles(self, vectors: Tensor) -> Tensor:
        low, high = self.limits
        lags = null_spectrum(vectors[..., : -self.sources])
        whole = high - low >= 2 * math.pi - 1e-9
        points = self.grid or 16 * self.stretch
        x = torch.linspace(low, high, points + 1, dtype=torch.float64, device=lags.device)
        step, x = (high - low) / points, x[:-1] if whole else x
        f = _values(lags, x.expand(len(lags), -1))[0]
        if whole:
            left, right = f.roll(1, -1), f.roll(-1, -1)
        else:
            wall = torch.full_like(f[:, :1], math.inf)
            left, right = torch.cat([wall, f[:, :-1]], -1), torch.cat([f[:, 1:], wall], -1)
        depth = torch.where((f <= left) & (f < right), f, 2 * self.stretch + f)  # what is no minimum comes last
        at = x[depth.topk(self.sources, largest=False).indices]
        at = _newton(lags, at, at - step, at + step)
        return _wrapped(at) if whole else at.clamp(low, high)


@dataclass(frozen=True)
class RootMUSIC(Subspace):
    """The roots of the null spectrum's polynomial that lie nearest to the unit circle, inside.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.DirectionOfArrival(sensors=8, sources=2)
        >>> ff.estimators.RootMUSIC.of(problem)(problem.sample(5, torch.Generator())[1]).x.shape
        torch.Size([5, 2])
    """

    def angles(self, vectors: Tensor) -> Tensor:
        lags = null_spectrum(vectors[..., : -self.sources])
        lags[:, 0] += LIFT * lags[:, 0].abs()
        # Σ_l c_l z^l with c_-l = conj c_l, times z^(L-1), lowest power first
        polynomial = torch.cat([lags[:, 1:].flip(-1).conj(), lags], -1)
        roots = polynomial_roots(polynomial)
        order = roots.abs().argsort(-1)
        count = self.stretch - 1  # each root inside has one outside
        inside = order[:, count - self.sources : count]
        return roots.gather(-1, inside).angle()


@dataclass(frozen=True)
class ESPRIT(Subspace):
    """The turn that takes the signal subspace on all sensors but the last to that on all but the first.

    By least squares, or by total least squares, which allows both for errors.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.DirectionOfArrival(sensors=8, sources=2)
        >>> ff.estimators.ESPRIT.of(problem)(problem.sample(5, torch.Generator())[1]).x.shape
        torch.Size([5, 2])
    """

    fit: Literal["total", "least-squares"] = "total"

    def angles(self, vectors: Tensor) -> Tensor:
        E = vectors[..., -self.sources :]
        first, second = E[..., :-1, :], E[..., 1:, :]
        if self.fit == "least-squares":
            turn = torch.linalg.lstsq(first, second).solution
        else:
            both = torch.cat([first, second], -1)
            V = torch.linalg.eigh(both.mH @ both)[1][..., : self.sources]  # what both nearly lack
            above, below = V[..., : self.sources, :], V[..., self.sources :, :]
            turn = -torch.linalg.solve_ex(below, above, left=False)[0]
        told = torch.isfinite(turn).flatten(1).all(-1)[:, None]
        turn = torch.where(told[..., None], turn, torch.eye(self.sources, dtype=turn.dtype, device=turn.device))
        return torch.linalg.eigvals(turn).angle().masked_fill(~told, math.nan)


@known_peers.register
def _(problem: DirectionOfArrival) -> dict[str, Estimator]:
    return {"MUSIC": MUSIC.of(problem), "ESPRIT": ESPRIT.of(problem)}


def null_spectrum(noise: Tensor) -> Tensor:
    """`f(x) = ‖Eᴴ a(x)‖² = Re(c_0 + 2 Σ_l c_l exp(i l x))`: E `(batch, L, k)` -> c `(batch, L)`, conjugate lags.

    By the sum of the diagonals of `E Eᴴ`, an autocorrelation.
    """
    L = noise.shape[-2]
    spectrum = power(torch.fft.fft(noise, 2 * L, dim=-2)).sum(-1)
    return torch.fft.ifft(spectrum, dim=-1)[..., :L].conj()


def polynomial_roots(coefficients: Tensor) -> Tensor:
    """Roots of `Σ_k c_k z^k`: `(batch, n + 1)` -> `(batch, n)`, eigenvalues of the companion matrix.

    Where the last coefficient vanishes, a root is far away instead of nowhere.
    """
    n = coefficients.shape[-1] - 1
    size, last = coefficients.abs(), coefficients[:, -1:]
    least = torch.finfo(size.dtype).eps * size.amax(-1, keepdim=True)
    last = torch.where(size[:, -1:] < least, least.to(last.dtype), last)
    C = coefficients.new_zeros(len(coefficients), n, n)
    C[:, 1:, :-1] = torch.eye(n - 1, dtype=C.dtype, device=C.device)
    C[:, :, -1] = -coefficients[:, :-1] / last
    return torch.linalg.eigvals(C)


def _values(lags: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The trigonometric polynomial and its first two derivatives at x `(batch, points)`."""
    l = torch.arange(lags.shape[-1], dtype=x.dtype, device=x.device)  # noqa: E741
    weight = torch.where(l > 0, 2.0, 1.0).to(x)
    terms = lags.unsqueeze(-2) * torch.polar(torch.ones_like(x), x).unsqueeze(-1) ** l * weight
    return terms.real.sum(-1), -(l * terms.imag).sum(-1), -(l.square() * terms.real).sum(-1)


def _newton(lags: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum within a bracket: Newton's steps on the slope, halving where these lead out of what is left of it."""
    for _ in range(NEWTON_STEPS):
        _, slope, curvature = _values(lags, x)
        low, high = torch.where(slope < 0, x, low), torch.where(slope > 0, x, high)
        new = x - slope / torch.where(curvature > 0, curvature, 1.0)
        inside = (curvature > 0) & (new >= low) & (new <= high)
        x = torch.where(inside, new, (low + high) / 2)
    return x


def _wrapped(x: Tensor) -> Tensor:
    """The angles moved into -pi … pi by whole turns."""
    return torch.remainder(x + math.pi, 2 * math.pi) - math.pi
