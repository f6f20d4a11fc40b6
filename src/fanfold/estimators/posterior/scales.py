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
SKEWED, SPREAD = 3.0, 30.0  # of a positive parameter that asks for a logarithm: see `prepare`; largest over median
NARROW = 1e-2  # of what its limits allow, that a parameter's draws take up at least to be seen as bounded by them

Limits = Sequence[tuple[float, float]]


class ParameterScales(nn.Module):
    """Maps each parameter to a scale without bounds, and Gaussians on it back.

    Args:
        limits: The least and the largest value of each parameter, infinite where there is none.
        dtype: The precision that it computes in, in which limits are kept.

    Example:
        >>> import math, torch
        >>> from fanfold.estimators.posterior.scales import ParameterScales
        >>> scales = ParameterScales([(0.0, math.inf), (-1.0, 1.0)])
        >>> x = torch.tensor([[2.0, 0.5]])
        >>> torch.allclose(scales.back(scales.free(x)), x)
        True
    """

    kind: Tensor
    low: Tensor
    high: Tensor
    floor: Tensor
    ceiling: Tensor
    least: Tensor
    most: Tensor
    most_var: Tensor
    largest: Tensor
    largest_var: Tensor
    nodes: Tensor
    weights: Tensor

    def __init__(self, limits: Limits, dtype: torch.dtype = torch.float32):
        super().__init__()
        kinds = []
        for low, high in limits:
            both = math.isfinite(low) and math.isfinite(high)
            kinds.append(BOUNDED if both else POSITIVE if math.isfinite(low) else REAL)
        finite = [[b if math.isfinite(b) else 0.0 for b in bounds] for bounds in zip(*limits)]
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        columns = {
            "kind": kinds,
            "low": finite[0],
            "high": finite[1],
            "floor": [low for low, _ in limits],  # of the support, infinite where it has none
            "ceiling": [high for _, high in limits],
            "nodes": nodes,
            "weights": weights / weights.sum(),
        }
        for name, values in columns.items():
            self.register_buffer(name, torch.tensor(values, dtype=dtype))
        # of what was learned of: on the unbounded scale its ends and largest variance, on its own scale the same
        for name in ("least", "most", "most_var", "largest", "largest_var"):
            start = -torch.inf if name == "least" else torch.inf
            self.register_buffer(name, torch.full((len(kinds),), start, dtype=dtype))

    def prepare(self, x: Tensor) -> None:
        """Settle the scales by draws x `(samples, d)`.

        A positive, skewed parameter is taken as its logarithm although no limit was given; one that touches its only
        limit, as counts do, is not, nor one whose limits are far wider than its draws.
        """
        x = x.double()
        tiny = torch.finfo(torch.float32).tiny
        least, most, median = x.amin(0), x.amax(0), x.median(0).values.clamp_min(tiny)
        # the largest is farther above the median, in decades, than half of what the least is below it
        skewed = (least > 0) & (most / median > SKEWED * (median / least.clamp_min(tiny)).sqrt())
        skewed |= (least > 0) & (most > SPREAD * median)
        touches = (self.kind == POSITIVE) & (least <= self.low)
        wide = (self.kind == BOUNDED) & (most - least < NARROW * (self.high - self.low))
        kind = torch.where(touches | wide, REAL, self.kind.double())
        self.kind.copy_(torch.where(skewed & (kind == REAL) & (self.floor == -torch.inf), POSITIVE, kind))
        u = self.free(x)
        margin = MARGIN * (u.amax(0) - u.amin(0))
        self.least.copy_(u.amin(0) - margin)
        self.most.copy_(u.amax(0) + margin)
        self.most_var.copy_(MOST_SPREAD * u.var(0))
        self.largest.copy_(most + MARGIN * (most - least))
        self.largest_var.copy_(MOST_SPREAD * x.var(0))

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
        return self.within(torch.where(self.kind == REAL, u, torch.where(self.kind == POSITIVE, positive, bounded)))

    def moments(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the parameters, of Gaussians on their unbounded scale; all `(..., d)`.

        A Gaussian that reaches far beyond what was learned of, where a logarithm would run away, is drawn back to it.
        """
        mean = self.near(mean)
        var = torch.minimum(var, self.most_var)
        log_mean = (mean + var / 2).clamp(-LARGEST_MEAN, LARGEST_MEAN)
        log_normal = torch.minimum(self.low + log_mean.exp(), self.largest)
        log_normal_var = log_mean.exp().square() * torch.expm1(var.clamp_max(LARGEST_LOG_VAR))
        positive = self.kind == POSITIVE
        x = torch.where(positive, log_normal, mean)
        x_var = torch.where(positive, torch.minimum(log_normal_var, self.largest_var), var)
        at = torch.sigmoid(mean.unsqueeze(-1) + var.sqrt().unsqueeze(-1) * self.nodes)
        share = (at * self.weights).sum(-1)
        share_var = ((at - share.unsqueeze(-1)).square() * self.weights).sum(-1)
        width, bounded = self.high - self.low, self.kind == BOUNDED
        x = torch.where(bounded, self.low + width * share, x)
        return x, torch.where(bounded, width.square() * share_var, x_var)

    def near(self, u: Tensor) -> Tensor:
        """On the unbounded scale, the nearest that is not far beyond what was learned of."""
        return torch.minimum(torch.maximum(u, self.least), self.most)

    def capped(self, var: Tensor) -> Tensor:
        """Variances of parameters that are taken as logarithms, not far above that of all draws."""
        return torch.where(self.kind == POSITIVE, torch.minimum(var, self.largest_var), var)

    def within(self, x: Tensor) -> Tensor:
        """The nearest parameters within the limits: no further from any x in the support, and so of no larger error."""
        return torch.minimum(torch.maximum(x, self.floor), self.ceiling)
