"""The Laplace prior, in closed form on the line and by quadrature in the plane."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fanfold.priors.base import Prior, Variance, in_single

LEAST_VAR = 1e-150  # of the noise: powers of it and of its reciprocal are finite in double precision


@dataclass(frozen=True)
class Laplace(Prior):
    """Entries have a density proportional to `exp(-|x| / scale)` with `E|x|² = var`: two-sided, or radial if complex.

    The real posterior is a pair of truncated Gaussians. The complex one has no closed form: its moments are
    Gauss-Legendre integrals over the magnitude, the phase being integrated out to Bessel functions. Both are
    computed in float64.

    Example:
        >>> import fanfold as ff, torch
        >>> x_hat = ff.priors.Laplace(var=1.0).posterior_mean(torch.tensor([3.0]), 0.5)
        >>> 2.2 < x_hat.item() < 2.4  # near the soft threshold 3 - 0.5 √2
        True
    """

    var: float = 1.0  # variance of an entry

    heavy_tailed = True

    @property
    def power(self) -> float:
        return self.var

    def scale(self, *, is_complex: bool) -> float:
        """The decay length of the density: `E|x|²` is `2 scale²` on the line and `6 scale²` in the plane."""
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

    @in_single
    def log_evidence(self, r, v):
        log_evidence = self._posterior(r, v)[0].to(r.real.dtype)
        return torch.where(torch.as_tensor(v, device=r.device) == 0, self.log_prob(r), log_evidence)

    @in_single
    def posterior(self, r, v, given=None):
        _, mean, share = self._posterior(r, v)
        return mean.to(r.dtype), (share * torch.as_tensor(v, dtype=torch.float64, device=r.device)).to(r.real.dtype)

    def _posterior(self, r: Tensor, v: Variance) -> tuple[Tensor, Tensor, Tensor]:
        """The log evidence, the mean, and the variance as a share of v, in float64."""
        v = torch.as_tensor(v, dtype=torch.float64, device=r.device).clamp_min(LEAST_VAR)
        if r.is_complex():
            return self._complex_posterior(r.to(torch.complex128), v)
        return self._real_posterior(r.double(), v)

    def _real_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, sigma = 1 / self.scale(is_complex=False), v.sqrt()
        reach = 100 * sigma + 2 * rate * v  # beyond it one side has all, and the mean moves along with r
        near = torch.minimum(torch.maximum(r, -reach), reach)
        up, down = (sign * near / sigma - rate * sigma for sign in (1, -1))  # centres of the Gaussians that zero cuts
        log_ratio = _log_scaled_mass(up) - _log_scaled_mass(down)
        share_up, share_down = torch.sigmoid(log_ratio), torch.sigmoid(-log_ratio)
        (mean_up, var_up), (mean_down, var_down) = _half_gaussian(up), _half_gaussian(down)
        x_hat = sigma * (share_up * mean_up - share_down * mean_down) + (r - near)
        between = share_up * share_down * (mean_up + mean_down) ** 2
        log_up, log_down = (self._log_side(sign * r, v) for sign in (1, -1))
        return torch.logaddexp(log_up, log_down), x_hat, share_up * var_up + share_down * var_down + between

    def _log_side(self, r: Tensor, v: Tensor) -> Tensor:
        """The log of `∫ p(x) N(r; x, v) dx` over positive x, without differences of large numbers on either side."""
        rate, sigma = 1 / self.scale(is_complex=False), v.sqrt()
        centre = r / sigma - rate * sigma
        inside = torch.special.log_ndtr(centre.clamp_min(0)) - rate * (r - rate * v / 2)
        outside = _log_scaled_mass(centre.clamp_max(0)) - r.square() / (2 * v)
        return torch.where(centre > 0, inside, outside) + math.log(rate / 2)

    def _complex_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, size, sigma = 1 / self.scale(is_complex=True), r.abs(), v.sqrt()
        magnitude = torch.minimum(size, 1e17 * (sigma + rate * v))  # beyond it the mean moves along with r
        width, peak = 9 * sigma, -rate * v / 2  # of the density of delta = |x| - |r|
        decay = (rate - 2 * magnitude / v).clamp_min(torch.finfo(torch.float64).tiny)  # where the peak is below |x| = 0
        low, falls = torch.maximum(peak - width, -magnitude), peak <= -magnitude
        span = torch.where(falls, torch.minimum(width, 40 / decay), peak + width - low)
        nodes, weights = (torch.as_tensor(a, device=r.device) for a in np.polynomial.legendre.leggauss(160))
        ahead = span[..., None] * (nodes + 1) / 2
        delta, rho = low[..., None] + ahead, (magnitude + low).clamp_min(0)[..., None] + ahead
        cross = 2 * rho * magnitude[..., None] / v[..., None]
        about_zero = (2 * magnitude / v - rate)[..., None] * rho - rho**2 / v[..., None]
        about_peak = -(((low - peak)[..., None] + ahead) ** 2) / v[..., None]  # the same, up to a constant
        log_radial = torch.where(falls[..., None], about_zero, about_peak)
        shift = log_radial.amax(-1, keepdim=True)
        mass = weights * rho * torch.exp(log_radial - shift) * torch.special.i0e(cross)
        total = mass.sum(-1)
        mass = mass / total[..., None]
        ratio, deficit = _bessel_ratio(cross)  # the mean cosine of the phase of x against r, and one less that
        away = (mass * rho * deficit).sum(-1)
        mean = (mass * delta).sum(-1)
        x_hat = torch.where(falls, (mass * rho * ratio).sum(-1), magnitude + mean - away)
        var = (mass * (delta - mean[..., None]) ** 2).sum(-1) + away**2 + 2 * x_hat * away
        phase = r / size.clamp_min(torch.finfo(torch.float64).tiny)
        constant = torch.where(falls, -(size**2) / v, rate**2 * v / 4 - rate * size)
        log_evidence = torch.log(total * span / 2) + shift[..., 0] + constant - torch.log(v * math.pi)
        return log_evidence + 2 * math.log(rate), phase * (x_hat + (size - magnitude)), var / v


def _log_scaled_mass(a: Tensor) -> Tensor:
    """`log Φ(a) + a² / 2`, without cancellation where `a` is negative."""
    below, above = a.clamp_max(0), a.clamp_min(0)
    tail = torch.log(torch.special.erfcx(below / -math.sqrt(2)) / 2)
    return torch.where(a < 0, tail, torch.special.log_ndtr(above) + above.square() / 2)


def _half_gaussian(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `N(a, 1)` given that it is positive; an asymptotic series where `a` is below -50."""
    near, t = a.clamp(-50, 30), a.clamp_max(-50) ** -2  # above 30 the hazard is below rounding
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(near / -math.sqrt(2))
    far = a < -50
    mean = torch.where(far, t.sqrt() * (1 - 2 * t + 10 * t**2 - 74 * t**3), a + hazard)
    var = torch.where(far, t * (1 - 6 * t + 50 * t**2 - 518 * t**3), 1 - hazard * (near + hazard))
    return mean, var


def _bessel_ratio(z: Tensor) -> tuple[Tensor, Tensor]:
    """`I1(z) / I0(z)` for `z >= 0`, and one less that; an asymptotic series where z is above 300."""
    near, t = z.clamp_max(300), 1 / z.clamp_min(300)
    ratio = torch.special.i1e(near) / torch.special.i0e(near)
    far = t / 2 + t**2 / 8 + t**3 / 8 + 25 * t**4 / 128
    return torch.where(z > 300, 1 - far, ratio), torch.where(z > 300, far, 1 - ratio)
