"""The Gaussian between two ends. Johnson, Kotz & Balakrishnan (1994), section 13.10.1."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Truncated", "truncated_gaussian"]

LEGENDRE_NODES, LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(40)
MAX_EXPONENT = 36.0  # what lies further down a Gaussian's flank is below the rounding of double precision


class Truncated(NamedTuple):
    """The law of a standard Gaussian between two ends; made by `truncated_gaussian`.

    Example:
        >>> import torch
        >>> from fanfold.core.truncated import truncated_gaussian
        >>> round(truncated_gaussian(torch.tensor(0.0), torch.tensor(1e6)).var.item(), 4)  # 1 - 2 / π
        0.3634
    """

    log_mass: Tensor  # the log probability of the cell
    peak: Tensor  # the point of the cell that is nearest to zero
    offset: Tensor  # the mean, from that point on
    var: Tensor  # the variance

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.peak + self.offset


def truncated_gaussian(low: Tensor, high: Tensor, width: Tensor | None = None) -> Truncated:
    """The moments of `N(0, 1)` between `low` and `high`, in any tail and however narrow the cell.

    By Gauss-Legendre quadrature over the part that matters, against the density at the point nearest to zero: no
    difference of distribution functions, no loss of digits.

    Args:
        low: The lower end.
        high: The upper end.
        width: Their distance, for ends so far out that the difference is lost; that difference if None.
    """
    width = high - low if width is None else width
    peak = torch.where(low > 0, low, torch.where(high < 0, high, 0.0))
    away = peak.abs()
    reach = 2 * MAX_EXPONENT / (away + (away * away + 2 * MAX_EXPONENT).sqrt())
    behind = torch.where(low > 0, 0.0, torch.where(high < 0, -width, low))
    ahead = torch.where(low > 0, width, torch.where(high < 0, 0.0, high))
    low, high = torch.maximum(behind, -reach), torch.minimum(ahead, reach)
    centre, half = (low + high) / 2, (high - low) / 2
    nodes, weights = low.new_tensor(LEGENDRE_NODES), low.new_tensor(LEGENDRE_WEIGHTS)
    offset = half[..., None] * nodes
    rise = centre[..., None] + offset
    mass = weights * torch.exp(-rise * (rise / 2 + peak[..., None]))
    total = mass.sum(-1)
    lean = (mass * offset).sum(-1) / total
    var = (mass * (offset - lean[..., None]).square()).sum(-1) / total
    log_mass = torch.log(total * half) - peak * peak / 2 - math.log(2 * math.pi) / 2
    return Truncated(log_mass, peak, centre + lean, var)


def __dir__() -> list[str]:
    return __all__
