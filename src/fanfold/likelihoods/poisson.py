"""The Poisson likelihood with logarithmic link. McCullagh & Nelder (1989), chapter 6."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fanfold.likelihoods.base import Likelihood

HERMITE_NODES, HERMITE_WEIGHTS = np.polynomial.hermite.hermgauss(40)
LOG_MASSES = np.log(HERMITE_WEIGHTS) + HERMITE_NODES**2
WIDENING = 1.2  # of what the peak's curvature says, as the flank towards low rates falls more slowly


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts `y ~ Poisson(exposure exp(z))`, with no other noise; real z only.

    The link of generalised linear models keeps rates positive for every z, as zero-mean A and x need. A count of k
    tells z to a standard deviation of about `1 / sqrt(k)`.

    Raises:
        ValueError: If `exposure` is not positive, or z is complex.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.likelihoods.Poisson(exposure=100.0).sample(torch.zeros(100_000), torch.Generator()).mean().round()
        tensor(100.)
    """

    exposure: float = 100.0  # expected count where z is 0

    uses_noise_var = False
    scalar = False
    alphabet = "counts: whole numbers from 0 on, real"

    def check(self, y):
        _refuse_complex(y)
        super().check(y)

    def _possible(self, y):
        return (y >= 0) & (y == y.round())

    def __post_init__(self):
        if not 0 < self.exposure < math.inf:
            raise ValueError(f"exposure is {self.exposure}; pass a positive number.")

    def _sample(self, z, generator, noise_var):
        _refuse_complex(z)
        return torch.poisson(self.exposure * torch.exp(z), generator=generator)

    def _score(self, y, p, tau, noise_var):
        _, mean, var = self._moments(y, p, tau)
        return mean / tau, (1 - var / tau) / tau

    def _log_evidence(self, y, p, tau, noise_var):
        if (tau == 0).all():
            return y * (math.log(self.exposure) + p) - self.exposure * torch.exp(p) - torch.lgamma(y + 1)
        return self._moments(y, p, tau)[0]

    def _moments(self, y: Tensor, p: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log evidence, and the mean and variance of `z - p`, by Gauss-Hermite quadrature about the peak."""
        _refuse_complex(p)
        log_rate = p + p.new_tensor(math.log(self.exposure))
        bend = wright_omega(torch.log(tau) + log_rate + tau * y)  # tau times the rate at the peak
        peak, sd = tau * y - bend, p.new_tensor(WIDENING) * (tau / (1 + bend)).sqrt()
        nodes, weights = p.new_tensor(HERMITE_NODES * math.sqrt(2)), p.new_tensor(LOG_MASSES)
        offset = sd[..., None] * nodes
        tilt = ((y - peak / tau)[..., None] - offset / (2 * tau[..., None])) * offset
        log_mass = weights + tilt - (bend / tau)[..., None] * torch.expm1(offset.clamp_max(80))
        mass = torch.softmax(log_mass, -1)
        lean = (mass * offset).sum(-1)
        var = (mass * (offset - lean[..., None]).square()).sum(-1)
        at_peak = y * (log_rate + peak) - bend / tau - peak * peak / (2 * tau) - torch.lgamma(y + 1)
        return log_mass.logsumexp(-1) + at_peak + torch.log(sd / tau.sqrt()) - math.log(math.pi) / 2, peak + lean, var


def wright_omega(c: Tensor) -> Tensor:
    """The positive w with `w + log w = c`, by five steps of Newton's method. Corless & Jeffrey (2002)."""
    c = c.clamp_min(-80)  # where w is exp(c), and nothing beside 1
    small = torch.exp(c.clamp_max(1))
    w = torch.where(c < 1, small / (1 + small / 2), c - torch.log(c.clamp_min(1)))
    for _ in range(5):
        w = w * (1 + c - torch.log(w)) / (1 + w)
    return w


def _refuse_complex(z: Tensor) -> None:
    if z.is_complex():
        raise ValueError("counts have a real logarithm of their rate; pass a real z.")
