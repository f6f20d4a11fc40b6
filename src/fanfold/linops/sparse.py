"""Sparse matrices, and operators of scipy."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from fanfold.core.arrays import tensor_of
from fanfold.linops.base import LinearOperator
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.foreign import DENSE_ENTRIES, LinearMap, largest_singular_value
from fanfold.linops.functions import from_functions


class Sparse(LinearOperator):
    """A matrix of shape `(m, n)` that is nearly all zero, real or complex; `from_scipy` makes one.

    Args:
        matrix: A sparse torch tensor in coordinates (COO).

    Raises:
        ValueError: If it is not one of two dimensions, or holds NaN or Inf.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Sparse(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]).to_sparse())
        >>> A @ torch.tensor([1.0, 2.0, 3.0]), A.gram_diagonal()
        (tensor([4., 1.]), tensor([1., 4., 0.]))
    """

    def __init__(self, matrix: Tensor):
        if matrix.layout is not torch.sparse_coo or matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"a sparse operator takes a sparse matrix (m, n), not {tuple(matrix.shape)}.")
        self._A = matrix.coalesce()
        refuse_non_finite(self._A.values())
        super().__init__((matrix.shape[0], matrix.shape[1]), matrix.dtype, matrix.device)
        self._AH = self._A.mH.coalesce()

    def _apply(self, x):
        return LinearMap.apply(x.reshape(-1, self.n), self._times, self._adjoint_times).reshape(*x.shape[:-1], self.m)

    def _adjoint(self, y):
        return LinearMap.apply(y.reshape(-1, self.m), self._adjoint_times, self._times).reshape(*y.shape[:-1], self.n)

    def _times(self, rows: Tensor) -> Tensor:
        return torch.sparse.mm(self._A, rows.mT).mT

    def _adjoint_times(self, rows: Tensor) -> Tensor:
        return torch.sparse.mm(self._AH, rows.mT).mT

    def _matrix(self):
        return self._A.to_dense()

    def norm(self):
        large = self.m * self.n > DENSE_ENTRIES
        return self.once("norm", lambda: largest_singular_value(self)) if large else super().norm()

    def gram_diagonal(self):
        return self.once("gram_diagonal", self._column_powers)

    def _column_powers(self) -> Tensor:
        values = self._A.values().abs().square()
        return values.new_zeros(self.n).index_add(0, self._A.indices()[1], values)

    def parts(self):
        return (self._A.indices(), self._A.values())

    def to(self, device=None, dtype=None):
        device, dtype = torch.device(device or self.device), dtype or self.dtype
        return self if (device, dtype) == (self.device, self.dtype) else Sparse(self._A.to(device, dtype))


def from_scipy(operator: Any, dtype: torch.dtype | None = None) -> LinearOperator:
    """A sparse matrix of scipy, or one of its `LinearOperator`s, as a fanfold operator, differentiable in the signal.

    Args:
        operator: A sparse matrix or array of any format, or a `scipy.sparse.linalg.LinearOperator` with `rmatvec`.
        dtype: The dtype of signals and measurements; that of the operator if None, float64 where it holds integers.

    Raises:
        ValueError: If it is neither, has no adjoint, or its adjoint does not fit.

    Example:
        >>> import fanfold as ff, scipy.sparse
        >>> ff.linops.from_scipy(scipy.sparse.eye_array(3, 4, dtype="float32"))
        Sparse(3x4, torch.float32, cpu)
    """
    if scipy.sparse.issparse(operator):
        entries = scipy.sparse.coo_array(operator)
        values = tensor_of(entries.data, "the sparse matrix")
        values = values.to(dtype or _floating(values.dtype))
        places = torch.from_numpy(np.stack([np.asarray(place, np.int64) for place in entries.coords]))
        return Sparse(torch.sparse_coo_tensor(places, values, entries.shape, check_invariants=True))
    if not isinstance(operator, scipy.sparse.linalg.LinearOperator):
        raise ValueError(
            f"the operator is a {type(operator).__name__}; pass a sparse matrix or a LinearOperator of scipy. A dense "
            "matrix is ff.linops.Dense(torch.as_tensor(matrix))."
        )
    try:
        operator.rmatvec(np.zeros(operator.shape[0], operator.dtype))
    except NotImplementedError as error:
        raise ValueError("this LinearOperator of scipy has no adjoint; give it one, rmatvec=...") from error
    native = torch.as_tensor(np.zeros(0, operator.dtype)).dtype
    forward, back = (
        lambda rows, product=product: product(np.atleast_2d(rows).T).T
        for product in (operator.matmat, operator.rmatmat)
    )
    return from_functions(forward, back, operator.shape, dtype or _floating(native))


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.float64
