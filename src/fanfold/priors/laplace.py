"""The Laplace prior, in closed form on the line and by quadrature in the plane."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fanfold.priors.base import Prior, Variance


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

    def log_evidence(self, r, v):
        return self._posterior(r, v)[0].to(r.real.dtype)

    def posterior(self, r, v, given=None):
        _, mean, var = self._posterior(r, v)
        return mean.to(r.dtype), var.to(r.real.dtype)

    def _posterior(self, r: Tensor, v: Variance) -> tuple[Tensor, Tensor, Tensor]:
        """The log evidence, mean and variance, in float64."""
        v = torch.as_tensor(v, dtype=torch.float64, device=r.device)
        if r.is_complex():
            return self._complex_posterior(r.to(torch.complex128), v)
        return self._real_posterior(r.double(), v)

    def _real_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, sigma = 1 / self.scale(is_complex=False), v.sqrt()
        up, down = (sign * r - rate * v for sign in (1, -1))  # centres of the Gaussians that zero cuts, seen from zero
        log_up = torch.special.log_ndtr(up / sigma) - rate * r
        log_down = torch.special.log_ndtr(down / sigma) + rate * r
        log_sum = torch.logaddexp(log_up, log_down)
        share_up, share_down = torch.exp(log_up - log_sum), torch.exp(log_down - log_sum)
        (mean_up, var_up), (mean_down, var_down) = (_truncated_gaussian(centre / sigma) for centre in (up, down))
        x_hat = sigma * (share_up * mean_up - share_down * mean_down)
        between = share_up * share_down * (mean_up + mean_down) ** 2
        var = v * (share_up * var_up + share_down * var_down + between)
        return log_sum + math.log(rate / 2) + rate**2 * v / 2, x_hat, var

    def _complex_posterior(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate, magnitude = 1 / self.scale(is_complex=True), r.abs()
        width, peak = 9 * v.sqrt(), -rate * v / 2  # of the density of delta = |x| - |r|
        decay = (rate - 2 * magnitude / v).clamp_min(torch.finfo(torch.float64).tiny)  # where the peak is below |x| = 0
        low = torch.maximum(peak - width, -magnitude)
        high = torch.where(peak > -magnitude, peak + width, -magnitude + torch.minimum(width, 40 / decay))
        nodes, weights = (torch.as_tensor(a, device=r.device) for a in np.polynomial.legendre.leggauss(160))
        delta = low[..., None] + (high - low)[..., None] * (nodes + 1) / 2
        rho = (magnitude[..., None] + delta).clamp_min(0)
        cross = 2 * rho * magnitude[..., None] / v[..., None]
        log_radial = -rate * delta - delta**2 / v[..., None]
        shift = log_radial.amax(-1, keepdim=True)
        mass = weights * rho * torch.exp(log_radial - shift) * torch.special.i0e(cross)
        total = mass.sum(-1)
        mass = mass / total[..., None]
        away = (mass * rho * _bessel_deficit(cross)).sum(-1)  # E |x| (1 - cosine of its phase against r)
        mean = (mass * delta).sum(-1)
        x_hat = magnitude + mean - away
        var = (mass * (delta - mean[..., None]) ** 2).sum(-1) + away**2 + 2 * x_hat * away
        phase = r / magnitude.clamp_min(torch.finfo(torch.float64).tiny)
        log_evidence = torch.log(total * (high - low) / 2) + shift[..., 0] - rate * magnitude - torch.log(v * math.pi)
        return log_evidence + 2 * math.log(rate), phase * x_hat, var


def _truncated_gaussian(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `N(a, 1)` given that it is positive; an asymptotic series where `a` is below -50."""
    near, t = a.clamp_min(-50), a.clamp_max(-50) ** -2
    hazard = torch.exp(-0.5 * near**2 - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(near))
    far = a < -50
    mean = torch.where(far, t.sqrt() * (1 - 2 * t + 10 * t**2), near + hazard)
    var = torch.where(far, t * (1 - 6 * t + 50 * t**2), 1 - hazard * (near + hazard))
    return mean, var


def _bessel_deficit(z: Tensor) -> Tensor:
    """`1 - I1(z) / I0(z)` for `z >= 0`; an asymptotic series where z is above 300."""
    near, t = z.clamp_max(300), 1 / z.clamp_min(300)
    far = t / 2 + t**2 / 8 + t**3 / 8 + 25 * t**4 / 128
    return torch.where(z > 300, far, 1 - torch.special.i1e(near) / torch.special.i0e(near))
