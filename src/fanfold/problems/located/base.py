"""One source of known shape at an unknown place: `y = a e^{i phi} s(place) + w`. Kay (1993), chapters 3 and 7.

What a tone's frequency and a pulse's delay have in common: priors, likelihood, profiles over the gain, and the exact
posterior of the place with the gain integrated out.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db, power
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described
from fanfold.problems.gaussian.quadrature import posterior_moments

Gain = Literal["known", "phase", "rayleigh"]
Density = Literal["uniform", "raised-cosine"]
SAMPLES_AT_ONCE = 512  # whose posteriors are integrated together, for their memory
CELLS_AT_ONCE = 4096  # of their quadratures that are evaluated together


@dataclass(frozen=True, kw_only=True)
class Located(Described, ABC):
    """`y = a e^{i phi} s(place) + w`, `‖s‖² = m` wherever the source is; a subclass says what s is.

    All parameters are the place, then the phase (uniform on (-pi, pi)) and the amplitude as far as they are unknown.
    The amplitude is 1, or Rayleigh with `E a² = 1`; the SNR is `E a² / noise_var`, hence of one sample of y on average.

    Raises:
        ValueError: If the SNR is not finite, a choice is unknown, or a parameter to estimate is.

    Example:
        >>> import fanfold as ff
        >>> tone = ff.problems.Tone(gain="rayleigh", estimate=("frequency", "amplitude"))
        >>> tone.names, tone.wanted, tone.has_posterior
        (('frequency', 'phase', 'amplitude'), (0, 2), False)
    """

    snr_db: float | tuple[float, float] = 10.0  # or the range that each draw's SNR comes from, uniform in dB
    gain: Gain = "phase"  # what of a e^{i phi} is unknown: nothing, phi, or both
    density: Density = "uniform"  # prior of the place on its window; a raised cosine ends smoothly
    estimate: tuple[str, ...] = ()  # the parameters to estimate; none named: the place alone
    show_noise: bool = True  # whether observations carry noise_var

    place: ClassVar[str] = "place"
    A = None

    def __post_init__(self):
        low, high = self.snr_range
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"snr_db is {self.snr_db}; pass a finite number or a range (low, high).")
        unknown = [name for name in self.estimate if name not in self.names]
        if unknown or len(set(self.estimate)) < len(self.estimate):
            raise ValueError(f"estimate is {self.estimate}; name some of {', '.join(self.names)}, each once.")

    # What a subclass says

    @property
    @abstractmethod
    def window(self) -> tuple[float, float]:
        """The least and the largest place."""

    @property
    @abstractmethod
    def resolution(self) -> float:
        """From the peak of `|s(place)ᴴ s(other)|` to where it is small: what separates two places."""

    @property
    @abstractmethod
    def bend(self) -> float:
        """`‖s''‖`, the second derivative by the place, at most; with an unknown phase, of s turned as suits it best."""

    @property
    def dtype(self) -> torch.dtype:
        """The data type of observations."""
        return torch.complex64

    @abstractmethod
    def waveform(self, place: Tensor) -> Tensor:
        """`s` for places `(...)`, `(..., m)`; differentiable."""

    # Parameters

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return (self.place, "phase", "amplitude")[: {"known": 1, "phase": 2, "rayleigh": 3}[self.gain]]

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places of the estimated ones among all parameters."""
        return tuple(self.names.index(name) for name in self.estimate) or (0,)

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the largest value of each parameter."""
        return (self.window, (-math.pi, math.pi), (0.0, math.inf))[: len(self.names)]

    @property
    def periodic(self) -> tuple[bool, ...]:
        """True of a parameter whose largest value is next to its least."""
        return (False, True, False)[: len(self.names)]

    @property
    def snr_range(self) -> tuple[float, float]:
        """The least and the largest SNR in dB."""
        return self.snr_db if isinstance(self.snr_db, tuple) else (self.snr_db, self.snr_db)

    @property
    def noise_var(self) -> float:
        """`E|w|²`.

        Raises:
            ValueError: If each draw has its own.
        """
        if isinstance(self.snr_db, tuple):
            raise ValueError(f"snr_db is a range, {self.snr_db}: each draw has its own noise_var, in its Observation.")
        return 1 / from_db(self.snr_db)

    # Draws

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws of all parameters, `(n, parameters)`, and their observation."""
        low, high = self.window
        u = 2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1
        if self.density == "raised-cosine":
            # what is refused moves by half the period of the cosine, where it fills up just what is missing
            stays = torch.rand(n, generator=generator, dtype=torch.float64) < (1 + torch.cos(math.pi * u)) / 2
            u = torch.where(stays, u, u - torch.sign(u))
        phase = math.pi * (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
        amplitude = (-torch.log1p(-torch.rand(n, generator=generator, dtype=torch.float64))).sqrt()
        x = torch.stack([(low + high) / 2 + (high - low) / 2 * u, phase, amplitude], -1)[:, : len(self.names)]
        x = x.to(self.dtype.to_real())
        low_db, high_db = self.snr_range
        snr_db = low_db + (high_db - low_db) * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        var = 10 ** (-snr_db / 10)
        y = self.mean(x.double())
        y = (y + circular(tuple(y.shape), generator, y.dtype, var)).to(self.dtype)
        if not self.show_noise:
            return x, Observation(y)
        return x, Observation(y, None, var.to(x.dtype) if low_db < high_db else torch.tensor(self.noise_var))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws of the wanted parameters, `(n, wanted)`, and their observation."""
        x, obs = self.sample_all(n, generator)
        return x[:, self.wanted], obs

    # The model

    def mean(self, x: Tensor) -> Tensor:
        """The mean of y, `(..., parameters)` -> `(..., m)`."""
        s = self.waveform(x[..., 0])
        if self.gain == "known":
            return s
        turn = torch.complex(x[..., 1:2].cos(), x[..., 1:2].sin())
        return s * (turn * x[..., 2:3] if self.gain == "rayleigh" else turn)

    def log_density(self, place: Tensor) -> Tensor:
        """The log prior of the place alone, `(...)` -> `(...)`; -inf outside the window."""
        low, high = self.window
        u = (2 * place - low - high) / (high - low)
        log_p = torch.full_like(u, -math.log(high - low))
        if self.density == "raised-cosine":
            # 1 + cos(pi u) = 2 sin²(pi (1 - |u|) / 2), which keeps its digits near the ends
            log_p = log_p + math.log(2) + 2 * torch.log(torch.sin(math.pi / 2 * (1 - u.abs())).clamp_min(0.0))
        return torch.where(u.abs() <= 1, log_p, -math.inf)

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of all parameters, `(..., parameters)` -> `(...)`; -inf outside the limits."""
        log_p = self.log_density(x[..., 0])
        if len(self.names) > 1:
            log_p = torch.where(x[..., 1].abs() <= math.pi, log_p - math.log(2 * math.pi), -math.inf)
        if len(self.names) > 2:
            a = x[..., 2]
            log_p = torch.where(a > 0, log_p + torch.log(2 * torch.where(a > 0, a, 1.0)) - a.square(), -math.inf)
        return log_p

    @property
    def prior_information(self) -> Tensor | None:
        """`E ∇log p ∇log pᵀ` of all parameters, double: `pi²` over half the window squared for a raised cosine.

        A uniform place has none. The amplitude's is infinite, and 0 here, which does not matter to the place or phase;
        None where the amplitude is wanted.
        """
        if self.density == "uniform" or 2 in self.wanted:
            return None
        low, high = self.window
        information = torch.zeros(len(self.names), len(self.names), dtype=torch.float64)
        information[0, 0] = (2 * math.pi / (high - low)) ** 2
        return information

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)` of all parameters, `(..., parameters)` with `(..., m)` -> `(...)`.

        Raises:
            ValueError: If the noise variance is neither observed nor one for all draws.
        """
        var, residual = self._variance(obs), obs.y - self.mean(x)
        half = 1.0 if residual.is_complex() else 0.5
        misfit = half * power(residual).sum(-1) / var[..., 0]
        return -misfit - half * residual.shape[-1] * torch.log(math.pi / half * var[..., 0])

    # Searching

    def grid(self, count: int | None = None) -> Tensor:
        """Places that a search starts from, with any gain: `(count, parameters)`; None takes eight in a resolution."""
        low, high = self.window
        count = count or math.ceil(8 * (high - low) / self.resolution)
        places = torch.linspace(low, high, count, dtype=torch.float64)
        rest = [torch.zeros_like(places), torch.ones_like(places)]
        return torch.stack([places, *rest][: len(self.names)], -1)

    def profile(self, x: Tensor, obs: Observation) -> Tensor:
        """The parameters with the gain that suits their place and y best."""
        if self.gain == "known":
            return x
        s = self.waveform(x[..., 0])
        c = (s.conj() * obs.y).sum(-1)
        values = [x[..., 0].expand(c.shape), c.angle(), c.abs() / power(s).sum(-1)]
        return torch.stack(values[: len(self.names)], -1)

    # The exact posterior

    @property
    def has_posterior(self) -> bool:
        """True where `posterior` answers: the place alone is wanted, and the noise variance is known or observed."""
        return self.wanted == (0,) and (self.show_noise or not isinstance(self.snr_db, tuple))

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance of the place given y, `(..., m)` -> `(..., 1)`, the gain integrated out, by quadrature.

        With `c = sᴴ y` the likelihood is `exp(2 Re c / noise_var)` where the gain is known (half the exponent for a
        real y), `I0(2 |c| / noise_var)` where its phase is not, and `exp(|c|² / (noise_var (m + noise_var)))` where
        it is Gaussian, each up to a factor without the place. In double precision; the relative error of the variance
        is below 1e-6.

        Raises:
            ValueError: If other parameters than the place are estimated or the noise variance is unknown.
        """
        if self.wanted != (0,):
            raise ValueError(f"the posterior of {', '.join(self.estimate)} is not known; estimate {self.place} alone.")
        parts = (tensor.split(SAMPLES_AT_ONCE) for tensor in self._flat(obs))
        moments = [self._moments(a, b) for a, b in zip(*parts, strict=True)]
        mean, variance = (torch.cat(part).reshape(*obs.y.shape[:-1], 1) for part in zip(*moments, strict=True))
        return Estimate(mean.to(obs.y.real.dtype), variance.to(obs.y.real.dtype))

    def _moments(self, y: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.window

        def log_density(places: Tensor, rows: Tensor | None) -> Tensor:
            if rows is not None and len(rows) > CELLS_AT_ONCE:
                parts = zip(places.split(CELLS_AT_ONCE), rows.split(CELLS_AT_ONCE), strict=True)
                return torch.cat([log_density(*part) for part in parts])
            s = self.waveform(places)
            if rows is None:
                c, noise_var = y @ s.mH, var[:, None]
            else:
                c, noise_var = (s.conj() @ y[rows].unsqueeze(-1)).squeeze(-1), var[rows, None]
            return self._log_marginal(c, noise_var, y.shape[-1]) + self.log_density(places)

        cells = math.ceil(4 * (high - low) / self.resolution)
        return posterior_moments(log_density, low, high, self._sharpness(y, var), cells)

    def _sharpness(self, y: Tensor, var: Tensor) -> Tensor:
        """A bound on minus the second derivative of `_log_marginal` by the place, `(batch,)`."""
        energy, m = power(y).sum(-1), y.shape[-1]
        bend = self.bend * energy.sqrt()  # no less than |(sᴴ y)''|
        if self.gain == "rayleigh":
            return 2 * bend * (m * energy).sqrt() / (var * (m + var))
        return (2.0 if y.is_complex() else 1.0) * bend / var

    def _log_marginal(self, c: Tensor, var: Tensor, m: int) -> Tensor:
        """`log p(y | place)` with the gain integrated out, up to what does not depend on the place."""
        if self.gain == "rayleigh":
            return power(c) / (var * (m + var))
        if self.gain == "known":
            return 2 * c.real / var if c.is_complex() else c / var
        u = 2 * c.abs() / var
        return u + torch.log(torch.special.i0e(u))

    def _flat(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Observations `(batch, m)` and noise variances `(batch,)`, in double precision."""
        y = obs.y.to(torch.complex128 if obs.y.is_complex() else torch.float64)
        var = self._variance(obs).double().expand(*y.shape[:-1], 1)
        return y.reshape(-1, y.shape[-1]), var.reshape(-1)

    def _variance(self, obs: Observation) -> Tensor:
        """The noise variance, `(..., 1)`."""
        if obs.noise_var is not None:
            return obs.noise_var[..., None] if obs.noise_var.ndim == 0 else obs.noise_var
        return torch.tensor([self.noise_var], dtype=obs.y.real.dtype, device=obs.y.device)
