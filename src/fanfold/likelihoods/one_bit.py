"""The one-bit likelihood, probit. Rangan (2011), section IV-C; Zymnis, Boyd & Candès (2010)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.likelihoods.base import Likelihood

SIGNS = "-1 and 1 (on each axis, if complex); of labels 0 and 1 pass 2 * y - 1"


@dataclass(frozen=True)
class OneBit(Likelihood):
    """The sign `y = sign(z + w)`, ±1, with `w ~ N(0, noise_var)`; of a complex signal the sign of each axis.

    The scale of z shows against that of w alone: without noise it is the prior that fixes it.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.likelihoods.OneBit().sample(torch.tensor([3.0, -0.1]), torch.Generator()).tolist()
        [1.0, -1.0]
    """

    outcomes = (-1.0, 1.0)
    alphabet = SIGNS

    def _possible(self, y):
        return y.abs() == 1

    def _sample(self, z, generator, noise_var):
        return sign(z + circular(tuple(z.shape), generator, z.dtype, noise_var))

    def _score(self, y, p, tau, noise_var):
        sd = spread(tau + noise_var)
        h, bend = hazard(y * p / sd)
        return y * h / sd, bend / (sd * sd)

    def _log_evidence(self, y, p, tau, noise_var):
        return torch.special.log_ndtr(y * p / spread(tau + noise_var))


def sign(z: Tensor) -> Tensor:
    """The sign of z, 1 for zero."""
    return torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))


def spread(var: Tensor) -> Tensor:
    """The standard deviation of a variance, with a finite reciprocal and gradient where it is zero."""
    return torch.maximum(var, var.new_tensor(torch.finfo(var.dtype).tiny ** 0.5)).sqrt()


def hazard(c: Tensor) -> tuple[Tensor, Tensor]:
    """The hazard `h = φ(c) / Φ(c)` and `-h' = h (h + c)`, finite with finite gradients for every c.

    Far below zero h + c cancels, and the slope is `1 - Var`, the variance of a Gaussian's tail as a series.
    """
    high, low = (9.0, -12.0) if c.dtype == torch.float32 else (25.0, -50.0)  # above, h is below rounding
    near = c.clamp(low, high)
    h = math.sqrt(2 / math.pi) / torch.special.erfcx(-near / math.sqrt(2))
    t = c.clamp_max(low) ** -2
    far = c < low
    return torch.where(far, -c * (1 + t - 2 * t * t), h), torch.where(
        far, 1 - t * (1 - 6 * t + 50 * t * t), h * (h + near)
    )
