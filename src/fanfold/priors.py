"""Priors x ~ p with independent entries, and what they say of x after r = x + noise of variance v.

Every prior serves real and complex signals: the dtype of the argument decides. Complex priors are circular
and variances are `E|x|²`. By Tweedie's formula the posterior mean is `r + v ∇ log p(r)`, which the tests use.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.noise import circular
from fanfold.units import power

Signal = Inexact[Tensor, "*batch"]
Variance = float | Float[Tensor, "..."]


def gaussian_log_prob(x: Tensor, var: Variance) -> Tensor:
    """Log density of a zero-mean Gaussian: real `N(0, var)`, or circular complex `CN(0, var)`."""
    var = torch.as_tensor(var, dtype=x.real.dtype, device=x.device)
    if x.is_complex():
        return -power(x) / var - torch.log(math.pi * var)
    return -0.5 * power(x) / var - 0.5 * torch.log(2 * math.pi * var)


class Prior(ABC):
    """A distribution of independent entries, and its posterior after Gaussian noise."""

    @property
    @abstractmethod
    def power(self) -> float:
        """`E|x|²`."""

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw independent entries on the generator's device."""

    @abstractmethod
    def log_prob(self, x: Signal) -> Float[Tensor, "*batch"]:
        """Log density of each entry (for an atom, the log of its probability)."""

    @abstractmethod
    def log_evidence(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """Log density of `r = x + w` with `E|w|² = v`, for each entry."""

    @abstractmethod
    def posterior_mean(self, r: Signal, v: Variance) -> Signal:
        """`E[x | r]` for `r = x + w` with `E|w|² = v`, for each entry."""

    @abstractmethod
    def posterior_var(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """`E[|x - E[x|r]|² | r]`; divided by `v` it is the derivative of `posterior_mean`."""


@dataclass(frozen=True)
class Gaussian(Prior):
    """`x ~ N(0, var)`, or `CN(0, var)` for complex signals."""

    var: float = 1.0

    @property
    def power(self) -> float:
        return self.var

    def sample(self, shape, generator, dtype=torch.float32):
        return circular(shape, generator, dtype, self.var)

    def log_prob(self, x):
        return gaussian_log_prob(x, self.var)

    def log_evidence(self, r, v):
        return gaussian_log_prob(r, self.var + v)

    def posterior_mean(self, r, v):
        return r * (self.var / (self.var + v))

    def posterior_var(self, r, v):
        return self.var * v / (self.var + v) * torch.ones_like(r.real)


@dataclass(frozen=True)
class BernoulliGaussian(Prior):
    """Zero with probability `1 - p`, else `N(0, var)` (complex: `CN(0, var)`)."""

    p: float = 0.1
    var: float = 1.0

    @property
    def power(self) -> float:
        return self.p * self.var

    def sample(self, shape, generator, dtype=torch.float32):
        active = torch.rand(shape, generator=generator, device=generator.device) < self.p
        return circular(shape, generator, dtype, self.var) * active

    def log_prob(self, x):
        continuous = math.log(self.p) + gaussian_log_prob(x, self.var)
        return torch.where(x == 0, math.log1p(-self.p), continuous)

    def log_evidence(self, r, v):
        active = math.log(self.p) + gaussian_log_prob(r, self.var + v)
        return torch.logaddexp(active, math.log1p(-self.p) + gaussian_log_prob(r, v))

    def activity(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """Posterior probability that an entry is not zero."""
        log_odds = math.log(self.p) - math.log1p(-self.p)
        return torch.sigmoid(log_odds + gaussian_log_prob(r, self.var + v) - gaussian_log_prob(r, v))

    def posterior_mean(self, r, v):
        return r * (self.activity(r, v) * (self.var / (self.var + v)))

    def posterior_var(self, r, v):
        pi, gain = self.activity(r, v), self.var / (self.var + v)
        return pi * (gain * v + (1 - pi) * power(r) * gain**2)


@dataclass(frozen=True)
class Laplace(Prior):
    """Density proportional to `exp(-|x| / scale)` with `E|x|² = var`: two-sided if real, radial if complex.

    The real posterior is a pair of truncated Gaussians. The complex one has no closed form: its moments are
    Gauss-Legendre integrals over the magnitude, the phase being integrated out to Bessel functions. Both are
    computed in float64.
    """

    var: float = 1.0

    @property
    def power(self) -> float:
        return self.var

    def scale(self, *, is_complex: bool) -> float:
        """Decay length of the density: `E|x|²` is `2 scale²` on the line and `6 scale²` in the plane."""
        return math.sqrt(self.var / (6 if is_complex else 2))

    def sample(self, shape, generator, dtype=torch.float32):
        def uniform() -> Tensor:
            return 1 - torch.rand(shape, generator=generator, dtype=dtype.to_real(), device=generator.device)

        scale = self.scale(is_complex=dtype.is_complex)
        if dtype.is_complex:  # the radius has density rho exp(-rho / scale): the sum of two exponentials
            return torch.polar(-scale * torch.log(uniform() * uniform()), 2 * math.pi * uniform())
        return torch.where(uniform() < 0.5, scale, -scale) * -torch.log(uniform())

    def log_prob(self, x):
        scale = self.scale(is_complex=x.is_complex())
        return -x.abs() / scale - math.log(2 * math.pi * scale**2 if x.is_complex() else 2 * scale)

    def log_evidence(self, r, v):
        return self._posterior(r, v)[0].to(r.real.dtype)

    def posterior_mean(self, r, v):
        return self._posterior(r, v)[1].to(r.dtype)

    def posterior_var(self, r, v):
        return self._posterior(r, v)[2].to(r.real.dtype)

    def _posterior(self, r: Tensor, v: Variance) -> tuple[Tensor, Tensor, Tensor]:
        """Log evidence, mean and variance, in float64."""
        v = torch.as_tensor(v, dtype=torch.float64, device=r.device)
        if r.is_complex():
            return self._complex_posterior(r.to(torch.complex128), v)
        return self._real_posterior(r.double(), v)

    def _real_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, sigma = 1 / self.scale(is_complex=False), v.sqrt()
        mean, weight, second = [], [], []
        for sign in (1, -1):  # the half-lines x > 0 and x < 0, each a Gaussian cut at zero
            mu = r * sign - rate * v
            log_mass = torch.special.log_ndtr(mu / sigma)
            hazard = torch.exp(-0.5 * (mu / sigma) ** 2 - 0.5 * math.log(2 * math.pi) - log_mass)
            mean.append(sign * (mu + sigma * hazard))
            second.append(mu**2 + v + mu * sigma * hazard)
            weight.append(log_mass - sign * rate * r)
        log_weight = torch.stack(weight)
        log_sum = torch.logsumexp(log_weight, 0)
        share = torch.exp(log_weight - log_sum)
        x_hat = (share * torch.stack(mean)).sum(0)
        var = (share * torch.stack(second)).sum(0) - x_hat**2
        return log_sum + math.log(rate / 2) + rate**2 * v / 2, x_hat, var

    def _complex_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, magnitude = 1 / self.scale(is_complex=True), r.abs()
        width, peak = 9 * v.sqrt(), magnitude - rate * v / 2
        decay = (rate - 2 * magnitude / v).clamp_min(torch.finfo(torch.float64).tiny)  # where the peak is at zero
        low = (peak - width).clamp_min(0)
        high = torch.where(peak > 0, peak + width, torch.minimum(width, 40 / decay))
        nodes, weights = (torch.as_tensor(a, device=r.device) for a in np.polynomial.legendre.leggauss(160))
        rho = low[..., None] + (high - low)[..., None] * (nodes + 1) / 2
        cross = 2 * rho * magnitude[..., None] / v[..., None]
        log_radial = -rate * rho - (rho - magnitude[..., None]) ** 2 / v[..., None]
        shift = log_radial.amax(-1, keepdim=True)
        mass = weights * rho * torch.exp(log_radial - shift) * torch.special.i0e(cross)
        total = mass.sum(-1)
        cosine = torch.special.i1e(cross) / torch.special.i0e(cross)
        radial_mean = (mass * rho * cosine).sum(-1) / total
        second = (mass * rho**2).sum(-1) / total
        phase = r / magnitude.clamp_min(torch.finfo(torch.float64).tiny)
        log_evidence = (
            torch.log(total * (high - low) / 2) + shift.squeeze(-1) + math.log(rate**2 / math.pi) - torch.log(v)
        )
        return log_evidence, phase * radial_mean, second - radial_mean**2
