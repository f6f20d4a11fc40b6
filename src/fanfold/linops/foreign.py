"""An operator given by two functions, differentiable in the signal."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from scipy.sparse.linalg import svds
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import at_least_single
from fanfold.linops.base import Dense, LinearOperator

DENSE_ENTRIES = 4_000_000  # of a matrix that is worth forming for a norm, a diagonal or a hash
BLOCK = 256  # columns at once, where it is not
PROBES = 16  # signals whose images are hashed there


class Foreign(LinearOperator):
    """An operator given by two functions on batches of rows, `(batch, n) -> (batch, m)` and back.

    Gradients pass through the adjoint, so the functions themselves need not be differentiable; where they are `native`,
    made of torch's own differentiable functions, gradients pass through them, and reach tensors that they hold. The
    fingerprint is that of the dense matrix, since a foreign operator cannot be read otherwise, or of the images of 16
    fixed signals where the matrix is large; the norm is found by Lanczos iterations there.

    Args:
        forward: The function that gives `A x` of each row.
        adjoint: The function that gives `Aᴴ y` of each row.
        shape: `(m, n)`, measurements by unknowns.
        dtype: The dtype of the rows.
        device: The device of the rows.
        native: Whether torch can differentiate both functions.

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
        *,
        native: bool = False,
    ):
        if at_least_single(dtype) != dtype:
            raise ValueError(f"functions of rows in {dtype} are not taken; pass {at_least_single(dtype)} and y in it.")
        super().__init__(shape, dtype, device)
        self._functions, self._native = (forward, adjoint), native

    def _apply(self, x):
        return self._mapped(x.reshape(-1, self.n), *self._functions).reshape(*x.shape[:-1], self.m)

    def _adjoint(self, y):
        return self._mapped(y.reshape(-1, self.m), *self._functions[::-1]).reshape(*y.shape[:-1], self.n)

    @property
    def learns(self):
        return False

    def _mapped(self, rows: Tensor, forward: Callable, adjoint: Callable) -> Tensor:
        return forward(rows) if self._native else LinearMap.apply(rows, forward, adjoint)

    @torch.no_grad()
    def _matrix(self):
        return super()._matrix()

    @property
    def _is_large(self) -> bool:
        return self.m * self.n > DENSE_ENTRIES

    def norm(self):
        return self.once("norm", lambda: largest_singular_value(self)) if self._is_large else super().norm()

    def gram_diagonal(self):
        return self.once("gram_diagonal", self._column_powers) if self._is_large else super().gram_diagonal()

    @torch.no_grad()
    def _column_powers(self) -> Tensor:
        powers = torch.empty(self.n, dtype=self.dtype.to_real(), device=self.device)
        for first in range(0, self.n, BLOCK):
            unit = torch.zeros(min(BLOCK, self.n - first), self.n, dtype=self.dtype, device=self.device)
            unit[:, first : first + len(unit)].fill_diagonal_(1)
            powers[first : first + len(unit)] = (self @ unit).abs().square().sum(-1)
        return powers

    @torch.no_grad()
    def parts(self):
        if not self._is_large:
            return (self.matrix(),)
        signals = circular((PROBES, self.n), torch.Generator().manual_seed(0), self.dtype)
        return (self @ signals.to(self.device),)

    def to(self, device=None, dtype=None):
        if (torch.device(device or self.device), dtype or self.dtype) == (self.device, self.dtype):
            return self
        return Dense(self.matrix()).to(device, dtype)


class LinearMap(torch.autograd.Function):
    """A linear function of rows whose derivative is that of its adjoint."""

    @staticmethod
    def forward(ctx, x, forward, adjoint):
        ctx.functions = (forward, adjoint)
        return forward(x)

    @staticmethod
    def backward(ctx, *grads):
        forward, adjoint = ctx.functions
        return LinearMap.apply(grads[0], adjoint, forward), None, None


class Products(ScipyOperator):
    """An operator as scipy's solvers see it: products with single vectors of numpy, forth and back."""

    def __init__(self, A: LinearOperator, dtype: np.dtype):
        super().__init__(dtype, A.shape)
        self.A = A

    def _matvec(self, x):
        return self._product(self.A, x)

    def _rmatvec(self, x):
        return self._product(self.A.H, x)

    def _product(self, A: LinearOperator, v: np.ndarray) -> np.ndarray:
        image = A @ torch.from_numpy(v.ravel().copy()).to(A.device, A.dtype)
        return image.cpu().resolve_conj().numpy()


@torch.no_grad()
def largest_singular_value(A: LinearOperator) -> float:
    """The spectral norm of an operator whose matrix is not formed, by Lanczos iterations (ARPACK) in its precision."""
    start = circular((min(A.shape),), torch.Generator().manual_seed(0), A.dtype).numpy()
    return float(svds(Products(A, start.dtype), k=1, v0=start, return_singular_vectors=False)[0])
