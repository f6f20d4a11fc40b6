"""Rounding to a grid, with the gradient of the numbers themselves. Bengio, Léonard & Courville (2013), section 2.3."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


class HalfUp(torch.autograd.Function):
    """`floor(x / unit + 1/2) unit`, as integer programs round; the gradient passes straight through.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.rounding import HalfUp
        >>> HalfUp.apply(torch.tensor([0.5, -0.5]), torch.tensor([1.0]))
        tensor([1., 0.])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, unit: Tensor) -> Tensor:
        """The rounded numbers; units are powers of two, so that dividing is exact."""
        return (x / unit).add_(0.5).floor_().mul_(unit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient as it comes."""
        return grads[0], None


class HalfEven(torch.autograd.Function):
    """`round(x / unit) unit`, ties to even, as weights are rounded once; the gradient passes straight through.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.rounding import HalfEven
        >>> HalfEven.apply(torch.tensor([0.5, 1.5]), torch.tensor([1.0]))
        tensor([0., 2.])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, unit: Tensor) -> Tensor:
        """The rounded numbers."""
        return (x / unit).round_().mul_(unit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient as it comes."""
        return grads[0], None


def unit_of(fraction: np.ndarray) -> Tensor:
    """What one stands for, `2^-fraction`."""
    return torch.from_numpy(np.ldexp(1.0, -fraction))


def half_up(x: Tensor, fraction: np.ndarray) -> Tensor:
    """Numbers on the grid of a fraction, half up."""
    return HalfUp.apply(x, unit_of(fraction).to(x.device))


def to_even(x: Tensor, fraction: np.ndarray) -> Tensor:
    """Numbers on the grid of a fraction, half to even."""
    return HalfEven.apply(x, unit_of(fraction).to(x.device))
