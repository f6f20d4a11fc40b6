"""A matrix as an operator."""

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.nn.functional import linear

from fanfold.linops.base import LinearOperator, refuse_non_finite


class Dense(LinearOperator):
    """`A x` for a matrix of shape `(m, n)`, real or complex.

    Raises:
        ValueError: If the matrix is not two-dimensional, is empty, or holds NaN or Inf.
    """

    def __init__(self, matrix: Inexact[Tensor, "m n"]):
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"a dense operator takes a matrix of shape (m, n), not {tuple(matrix.shape)}.")
        refuse_non_finite(matrix)
        super().__init__((matrix.shape[0], matrix.shape[1]), matrix.dtype, matrix.device)
        self._A = matrix
        self._conj = matrix.conj().resolve_conj()  # the matrix itself when real

    def _apply(self, x):
        return linear(x, self._A)

    def _adjoint(self, y):
        return torch.matmul(y, self._conj)

    def _matrix(self):
        return self._A

    def parts(self):
        return (self._A,)

    def to(self, device=None, dtype=None):
        device, dtype = torch.device(device or self.device), dtype or self.dtype
        if (device, dtype) == (self.device, self.dtype):
            return self
        return self.once(("to", device, dtype), lambda: Dense(self._A.to(device, dtype)))
