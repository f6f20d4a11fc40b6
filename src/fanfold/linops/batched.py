"""A matrix of its own for each sample: channels that fade."""

import torch
from jaxtyping import Inexact
from torch import Tensor

from fanfold.linops.base import SVD, LinearOperator
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.spectrum import thin_svd


class Batched(LinearOperator):
    """`A_b x_b` for sample b of a batch: matrices `(batch, m, n)` and signals `(batch, n)`, or one signal for all.

    Algorithms see it as they see any operator; what they take from it (`matrix`, `svd`, `norm`, `gram_diagonal`) has
    the batch in front. Its fingerprint is that of the ensemble, the matrices of this shape and dtype: a network whose
    deviations do not depend on the matrix belongs to them all.

    Raises:
        ValueError: If the matrices are not of shape `(batch, m, n)`, are empty, or hold NaN or Inf.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Batched(torch.ones(8, 4, 6))
        >>> (A @ torch.ones(8, 6)).shape, A[:2].batch
        (torch.Size([8, 4]), 2)
    """

    varies = True

    def __init__(self, matrices: Inexact[Tensor, "batch m n"]):
        if matrices.ndim != 3 or 0 in matrices.shape:
            raise ValueError(f"a batched operator takes matrices of shape (batch, m, n), not {tuple(matrices.shape)}.")
        refuse_non_finite(matrices)
        super().__init__((matrices.shape[1], matrices.shape[2]), matrices.dtype, matrices.device)
        self._A = matrices

    @property
    def batch(self) -> int:
        """The number of matrices."""
        return len(self._A)

    def __getitem__(self, rows: slice | Tensor) -> "Batched":
        """The matrices of some samples."""
        return Batched(self._A[rows])

    def of_samples(self, rows):
        return self[rows] if self.batch > 1 else self

    def _apply(self, x):
        return self._times(self._A, x)

    def _adjoint(self, y):
        return self._times(self._A.mH, y)

    def _times(self, matrices: Tensor, x: Tensor) -> Tensor:
        if x.ndim > 1 and x.shape[-2] not in (1, self.batch) and self.batch > 1:
            raise ValueError(
                f"{self} has a matrix for each of {self.batch} samples but the batch has {x.shape[-2]}; "
                "pass an operator with the rows of these samples: A[rows]."
            )
        return (matrices @ x[..., None])[..., 0]

    def _matrix(self):
        return self._A

    def _svd(self):
        U, s, V = thin_svd(self._A)
        return SVD(Batched(U), s, Batched(V))

    def _norm(self):
        return torch.linalg.matrix_norm(self._A, 2)[:, None]

    def parts(self):
        return ()

    @property
    def learns(self):
        return self._A.requires_grad

    def to(self, device=None, dtype=None):
        return Batched(self._A.to(device or self.device, dtype or self.dtype))

    def __repr__(self) -> str:
        return f"Batched({self.batch} of {self.m}x{self.n}, {self.dtype}, {self.device})"
