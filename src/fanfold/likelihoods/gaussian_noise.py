"""The linear likelihood: y = z + w."""

import math
from dataclasses import dataclass

import torch

from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.likelihoods.base import Likelihood


@dataclass(frozen=True)
class GaussianNoise(Likelihood):
    """The linear likelihood `y = z + w` with `w ~ N(0, noise_var)`, circular if complex: GAMP with it is AMP.

    Example:
        >>> import fanfold as ff, torch
        >>> mean, var = ff.likelihoods.GaussianNoise().posterior(torch.ones(1), torch.zeros(1), 1.0, noise_var=1.0)
        >>> mean.item(), var.item()
        (0.5, 0.5)
    """

    scalar = False
    linear = True

    def _sample(self, z, generator, noise_var):
        return z + circular(tuple(z.shape), generator, z.dtype, noise_var)

    def _score(self, y, p, tau, noise_var):
        var = tau + noise_var
        precision = 1 / var.clamp_min(torch.finfo(var.dtype).tiny * 1e5)
        return (y - p) * precision, precision.expand(p.shape)

    def _log_evidence(self, y, p, tau, noise_var):
        var = tau + noise_var
        if p.is_complex():
            return -power(y - p) / var - torch.log(math.pi * var)
        return -power(y - p) / (2 * var) - torch.log(2 * math.pi * var) / 2
