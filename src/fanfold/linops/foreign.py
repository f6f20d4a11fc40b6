"""An operator given by two functions, differentiable in the signal."""

from collections.abc import Callable

import torch
from torch import Tensor

from fanfold.core.precision import at_least_single
from fanfold.linops.base import Dense, LinearOperator


class Foreign(LinearOperator):
    """An operator given by two functions on batches of rows, `(batch, n) -> (batch, m)` and back.

    Gradients pass through the adjoint, so the functions themselves need not be differentiable. The
    fingerprint is that of the dense matrix, since a foreign operator cannot be read otherwise.

    Args:
        forward: The function that gives `A x` of each row.
        adjoint: The function that gives `Aᴴ y` of each row.
        shape: `(m, n)`, measurements by unknowns.
        dtype: The dtype of the rows.
        device: The device of the rows.

    Raises:
        ValueError: If the rows are of half precision.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Foreign(lambda x: x.flip(-1), lambda y: y.flip(-1), (4, 4), torch.float32)
        >>> ff.dot_test(A) < 1e-6
        True
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ):
        if at_least_single(dtype) != dtype:
            raise ValueError(f"functions of rows in {dtype} are not taken; pass {at_least_single(dtype)} and y in it.")
        super().__init__(shape, dtype, device)
        self._functions = (forward, adjoint)

    def _apply(self, x):
        return _LinearMap.apply(x.reshape(-1, self.n), *self._functions).reshape(*x.shape[:-1], self.m)

    def _adjoint(self, y):
        return _LinearMap.apply(y.reshape(-1, self.m), *self._functions[::-1]).reshape(*y.shape[:-1], self.n)

    @property
    def learns(self):
        return False

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
    def backward(ctx, *grads):
        forward, adjoint = ctx.functions
        return _LinearMap.apply(grads[0], adjoint, forward), None, None
