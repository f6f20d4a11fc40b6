"""An operator given by two functions, differentiable in the signal."""

from collections.abc import Callable

import torch
from torch import Tensor

from fanfold.linops.base import Dense, LinearOperator


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
