"""Unbounded scales of parameters: the logarithm of a positive one, the logit of one between bounds.

A Gaussian on such a scale lies within the support of the prior. Its mean and variance on the parameter's own scale are
closed for the logarithm (Johnson, Kotz & Balakrishnan, 1994, section 14.3), and Gauss-Hermite sums for the logit.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

REAL, POSITIVE, BOUNDED = 0.0, 1.0, 2.0
NODES = 20
EDGE = 1e-6  # of the range of a bounded parameter, nearer to whose ends none is told apart
MOST_SPREAD = 2.0  # variances of the draws, that the variance of an estimate may be
MARGIN = 0.25  # of the range of the draws, that an estimate may lie beyond it
LARGEST = 60.0  # of a logarithm, whose exponential single precision holds
LARGEST_MEAN, LARGEST_LOG_VAR = 33.0, 20.0  # likewise, with the variance of that log-normal
SKEWED = 3.0  # largest over median of a positive parameter, relative to that of its inverse, that asks for a logarithm

Limits = Sequence[tuple[float, float]]


class ParameterScales(nn.Module):
    """Maps each parameter to a scale without bounds, and Gaussians on it back.

    Args:
        limits: The least and the largest value of each parameter, infinite where there is none.

    Example:
        >>> import math, torch
        >>> from fanfold.estimators.posterior.scales import ParameterScales
        >>> scales = ParameterScales([(0.0, math.inf), (-1.0, 1.0)])
        >>> x = torch.tensor([[2.0, 0.5]])
        >>> torch.allclose(scales.back(scales.free(x)), x)
        True
    """

    kind: Tensor
    least: Tensor
    most: Tensor
    prior_var: Tensor
    low: Tensor
    high: Tensor
    nodes: Tensor
    weights: Tensor

    def __init__(self, limits: Limits):
        super().__init__()
        kinds = []
        for low, high in limits:
            both = math.isfinite(low) and math.isfinite(high)
            kinds.append(BOUNDED if both else POSITIVE if math.isfinite(low) else REAL)
        finite = [[b if math.isfinite(b) else 0.0 for b in bounds] for bounds in zip(*limits)]
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self.register_buffer("kind", torch.tensor(kinds))
        self.register_buffer("least", torch.full((len(kinds),), -torch.inf))  # that was learned of, on that scale
        self.register_buffer("most", torch.full((len(kinds),), torch.inf))
        self.register_buffer("prior_var", torch.full((len(kinds),), torch.inf))
        self.register_buffer("low", torch.tensor(finite[0]))
        self.register_buffer("high", torch.tensor(finite[1]))
        self.register_buffer("nodes", torch.tensor(nodes, dtype=torch.float32))
        self.register_buffer("weights", torch.tensor(weights / weights.sum(), dtype=torch.float32))

    def prepare(self, x: Tensor) -> None:
        """Take the logarithm of a parameter that is positive and skewed, where no limit was given; x `(samples, d)`."""
        least, most = x.amin(0), x.amax(0)
        median = x.median(0).values.clamp_min(torch.finfo(x.dtype).tiny)
        skewed = (least > 0) & (most / median > SKEWED * median / least.clamp_min(torch.finfo(x.dtype).tiny) ** 0.5)
        skewed |= (least > 0) & (most > 30 * median)
        self.kind.copy_(torch.where(skewed & (self.kind == REAL), POSITIVE, self.kind))
        u = self.free(x)
        margin = MARGIN * (u.amax(0) - u.amin(0))
        self.least.copy_(u.amin(0) - margin)
        self.most.copy_(u.amax(0) + margin)
        self.prior_var.copy_(MOST_SPREAD * u.double().var(0))

    def free(self, x: Tensor) -> Tensor:
        """Parameters `(..., d)` on their unbounded scale."""
        tiny = torch.finfo(x.dtype).tiny
        log = (x - self.low).clamp_min(tiny).log()
        share = ((x - self.low) / (self.high - self.low).clamp_min(tiny)).clamp(EDGE, 1 - EDGE)
        logit = torch.log(share) - torch.log1p(-share)
        return torch.where(self.kind == REAL, x, torch.where(self.kind == POSITIVE, log, logit))

    def back(self, u: Tensor) -> Tensor:
        """The inverse of `free`."""
        positive = self.low + u.clamp(-LARGEST, LARGEST).exp()
        bounded = self.low + (self.high - self.low) * torch.sigmoid(u)
        return torch.where(self.kind == REAL, u, torch.where(self.kind == POSITIVE, positive, bounded))

    def moments(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the parameters, of Gaussians on their unbounded scale; all `(..., d)`.

        A Gaussian that reaches far beyond what was learned of, where a logarithm would run away, is drawn back to it.
        """
        mean = torch.minimum(torch.maximum(mean, self.least), self.most)
        var = torch.minimum(var, self.prior_var)
        log_mean = (mean + var / 2).clamp(-LARGEST_MEAN, LARGEST_MEAN)
        log_normal = log_mean.exp()
        log_normal_var = log_normal.square() * torch.expm1(var.clamp_max(LARGEST_LOG_VAR))
        at = torch.sigmoid(mean.unsqueeze(-1) + var.sqrt().unsqueeze(-1) * self.nodes)
        share = (at * self.weights).sum(-1)
        share_var = ((at - share.unsqueeze(-1)).square() * self.weights).sum(-1)
        width = self.high - self.low
        real, positive = self.kind == REAL, self.kind == POSITIVE
        x = torch.where(real, mean, torch.where(positive, self.low + log_normal, self.low + width * share))
        x_var = torch.where(real, var, torch.where(positive, log_normal_var, width.square() * share_var))
        return x, x_var

    def within(self, x: Tensor) -> Tensor:
        """The nearest parameters within the limits: no further from any x in the support, and so of no larger error."""
        x = torch.where(self.kind == REAL, x, torch.maximum(x, self.low))
        return torch.where(self.kind == BOUNDED, torch.minimum(x, self.high), x)
