"""Operators of other libraries as fanfold operators, differentiable in the signal."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.linops.base import LinearOperator


class Foreign(LinearOperator):
    """An operator given by two functions on batches of rows, `(batch, n) -> (batch, m)` and back.

    Gradients pass through the adjoint, so the functions themselves need not be differentiable. The
    fingerprint is that of the dense matrix, since a foreign operator cannot be read otherwise.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ):
        super().__init__(shape, dtype, device)
        self._functions = (forward, adjoint)

    def _apply(self, x):
        return _LinearMap.apply(x.reshape(-1, self.n), *self._functions).reshape(*x.shape[:-1], self.m)

    def _adjoint(self, y):
        return _LinearMap.apply(y.reshape(-1, self.m), *self._functions[::-1]).reshape(*y.shape[:-1], self.n)

    def parts(self):
        return (self.matrix(),)

    def to(self, device=None, dtype=None):
        from fanfold.linops.dense import Dense

        if (torch.device(device or self.device), dtype or self.dtype) == (self.device, self.dtype):
            return self
        return Dense(self.matrix()).to(device, dtype)


class _LinearMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, forward, adjoint):
        ctx.functions = (forward, adjoint)
        return forward(x)

    @staticmethod
    def backward(ctx, *grad):
        forward, adjoint = ctx.functions
        return _LinearMap.apply(grad[0], adjoint, forward), None, None


def from_pylops(operator: Any) -> LinearOperator:
    """A PyLops `LinearOperator` (its `shape`, `dtype`, `matmat` and `rmatmat`) as a fanfold operator."""
    dtype = torch.as_tensor(operator.matvec(_numpy_zeros(operator.shape[1], operator.dtype))).dtype

    def by(function: Callable) -> Callable[[Tensor], Tensor]:
        return lambda rows: torch.as_tensor(function(rows.detach().resolve_conj().resolve_neg().numpy().T).T.copy()).to(
            dtype
        )

    return Foreign(by(operator.matmat), by(operator.rmatmat), operator.shape, dtype)


def from_deepinv(physics: Any, extent: tuple[int, ...], dtype: torch.dtype = torch.float32) -> LinearOperator:
    """A deepinv `LinearPhysics` (its `A` and `A_adjoint`) as a fanfold operator on flattened images.

    Args:
        physics: The deepinv operator.
        extent: Shape of one image without the batch axis, such as `(channels, height, width)`.
        dtype: Of the images.
    """
    image = torch.zeros(1, *extent, dtype=dtype)
    measured = physics.A(image).shape[1:]
    return Foreign(
        lambda rows: physics.A(rows.reshape(-1, *extent)).flatten(1),
        lambda rows: physics.A_adjoint(rows.reshape(-1, *measured)).flatten(1),
        (math.prod(measured), math.prod(extent)),
        dtype,
    )


def _numpy_zeros(n: int, dtype: Any):
    import numpy as np

    return np.zeros(n, dtype)
