"""The logistic likelihood, as a scale mixture of probit ones. Andrews & Mallows (1974), section 3."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fanfold.likelihoods.base import Likelihood
from fanfold.likelihoods.one_bit import SIGNS, hazard, sign, spread


@dataclass(frozen=True)
class Logistic(Likelihood):
    """The sign of z and logistic noise: y is 1 with probability `1 / (1 + exp(-z / s))`, else -1.

    The noise has variance `noise_var = π² s² / 3`; without any this is the noiseless one-bit likelihood.
    Logistic noise is Gaussian noise whose standard deviation is `2 s` times a Kolmogorov variable. One quadrature over
    that variable serves every p and tau, near and far in the tails; over z none does, as sigmoid and Gaussian may each
    be the sharper one.

    Example:
        >>> import fanfold as ff, torch
        >>> log_p = ff.likelihoods.Logistic().log_likelihood(torch.ones(1), torch.zeros(1), noise_var=1.0)
        >>> round(log_p.exp().item(), 3)
        0.5
    """

    outcomes = (-1.0, 1.0)
    alphabet = SIGNS

    def _possible(self, y):
        return y.abs() == 1

    def _sample(self, z, generator, noise_var):
        u = torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)
        return sign(z + math.sqrt(3 * noise_var) / math.pi * torch.logit(u, eps=torch.finfo(z.dtype).eps / 4))

    def _score(self, y, p, tau, noise_var):
        log_share, c, sd = self._parts(y, p, tau, noise_var)
        share, (h, bend) = torch.softmax(log_share, -1), hazard(c)
        score = (share * h / sd).sum(-1)
        between = (share * (h / sd - score[..., None]).square()).sum(-1)
        return y * score, (share * bend / (sd * sd)).sum(-1) - between

    def _log_evidence(self, y, p, tau, noise_var):
        return self._parts(y, p, tau, noise_var)[0].logsumexp(-1)

    @staticmethod
    def _parts(y: Tensor, p: Tensor, tau: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log of weight times evidence, the distance from the edge and the deviation of each probit likelihood."""
        scale, weight = (p.new_tensor(a) for a in kolmogorov_rule())
        sd = spread(tau[..., None] + scale * scale * noise_var[..., None])
        far = 10_000 * spread(tau + noise_var)  # beyond it gradients overflow in single precision
        c = torch.maximum(torch.minimum(y * p, far), -far)[..., None] / sd
        return torch.log(weight) + torch.special.log_ndtr(c), c, sd


@lru_cache(maxsize=1)
def kolmogorov_rule(nodes: int = 32) -> tuple[list[float], list[float]]:
    """The standard deviations and weights of Gaussians that mix to logistic noise of unit variance.

    Gauss-Legendre in the Kolmogorov variable k with density `8 k Σ (-1)^(j+1) j² exp(-2 j² k²)`; below 0.2 it
    holds less than 1e-12 and above 5.2 less than 1e-22.
    """
    t, w = np.polynomial.legendre.leggauss(nodes)
    k, w = 0.2 + 2.5 * (t + 1), 2.5 * w
    j = np.arange(1, 60)[:, None]
    density = (8 * k * (-1.0) ** (j + 1) * j**2 * np.exp(-2 * j**2 * k**2)).sum(0)
    weight = np.maximum(w * density, 1e-300)
    return (2 * math.sqrt(3) / math.pi * k).tolist(), (weight / weight.sum()).tolist()
