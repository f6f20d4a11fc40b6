"""The linear operator that every algorithm sees: A @ x, A.H @ y, its spectrum; adjoints, products and matrices."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.nn.functional import linear

from fanfold.linops.checks import refuse_non_finite

T = TypeVar("T")


class SVD(NamedTuple):
    """`A = U diag(s) V.H`: U is m x k, s is real and not negative, V is n x k; `AᴴA` is zero beyond.

    s is descending, but for operators whose structure has an order of its own.
    """

    U: "LinearOperator"
    s: Tensor
    V: "LinearOperator"


class LinearOperator(ABC):
    """A linear map of `(..., n)` to `(..., m)`, real or complex.

    A subclass gives `_apply` and `_adjoint`; where it knows its structure it also gives `_svd`, `norm` or
    `gram_diagonal`, which otherwise come from the dense matrix. Operators do not change: whatever is
    derived from one is computed once and kept.

    Attributes:
        varies: Whether each sample has a matrix of its own, as in `Batched`.

    Args:
        shape: `(m, n)`, measurements by unknowns.
        dtype: Of the operator and of the signals that it maps.
        device: Where its tensors are.
    """

    varies: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device | str = "cpu"):
        self.shape, self.dtype, self.device = (int(shape[0]), int(shape[1])), dtype, torch.device(device)
        self._memo: dict[object, object] = {}

    @property
    def m(self) -> int:
        """Number of measurements."""
        return self.shape[0]

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.shape[1]

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """`A x` for `x` of shape `(..., n)`."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """`Aᴴ y` for `y` of shape `(..., m)`."""

    @abstractmethod
    def parts(self) -> tuple[Any, ...]:
        """What defines the operator: tensors, numbers, text and other operators. `fingerprint` hashes them."""

    @abstractmethod
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "LinearOperator":
        """The same operator on another device or in another precision."""

    @overload
    def __matmul__(self, x: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, x: "LinearOperator") -> "LinearOperator": ...
    def __matmul__(self, x) -> Any:
        if isinstance(x, LinearOperator):
            return Compose(self, x)
        if x.shape[-1] != self.n:
            hint = " Transposed?" if x.shape[-1] == self.m else ""
            raise ValueError(
                f"A maps {self.n} -> {self.m} but the signal has {x.shape[-1]} entries; "
                f"pass shape (..., {self.n}).{hint}"
            )
        return self._apply(x)

    @cached_property
    def H(self) -> "LinearOperator":  # noqa: N802 - the adjoint's name in the mathematics
        """The adjoint: `A.H @ y` is `Aᴴ y`."""
        return Adjoint(self)

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """`compute()`, run at the first call and kept: for quantities derived from the operator alone."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]

    def matrix(self) -> Tensor:
        """The dense `(m, n)` matrix."""
        return self.once("matrix", self._matrix)

    def _matrix(self) -> Tensor:
        return (self @ torch.eye(self.n, dtype=self.dtype, device=self.device)).mT

    def svd(self) -> SVD:
        """Thin singular value decomposition; structured where the operator is."""
        return self.once("svd", self._svd)

    def _svd(self) -> SVD:
        U, s, Vh = torch.linalg.svd(self.matrix(), full_matrices=False)
        return SVD(Dense(U), s, Dense(Vh.mH.contiguous()))

    def norm(self) -> float:
        """Spectral norm: the largest singular value."""
        return self.once("norm", lambda: torch.linalg.matrix_norm(self.matrix(), 2).item())

    def gram_diagonal(self) -> Tensor:
        """Diagonal of `AᴴA`, the squared norms of the columns: `(n,)`, real."""
        return self.once("gram_diagonal", lambda: self.matrix().abs().square().sum(0))

    def weighted_gram(self, weights: Tensor) -> Tensor:
        """`A diag(w) Aᴴ` for real weights `(..., n)`: `(..., m, m)`, what a signal of these variances measures like."""
        A = self.matrix()
        return (A * weights[..., None, :]) @ A.mH

    def quadratic_diagonal(self, P: Tensor) -> Tensor:
        """Diagonal of `Aᴴ P A` for Hermitian P `(..., m, m)`: `(..., n)`, real."""
        A = self.matrix()
        return (A.conj() * (P @ A)).sum(-2).real

    def fingerprint(self) -> str:
        """SHA-256 of the operator's type, shape, dtype and contents: the same on every machine and device."""
        return self.once("fingerprint", self._fingerprint)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.shape} {self.dtype}".encode())
        for part in self.parts():
            if isinstance(part, LinearOperator):
                digest.update(part.fingerprint().encode())
            elif isinstance(part, Tensor):
                real = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
                digest.update(real.detach().cpu().contiguous().numpy().tobytes())
            else:
                digest.update(repr(part).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.m}x{self.n}, {self.dtype}, {self.device})"


class Adjoint(LinearOperator):
    """`Aᴴ`, sharing everything with `A`."""

    def __init__(self, A: LinearOperator):
        super().__init__((A.n, A.m), A.dtype, A.device)
        self._of = A

    @property
    def H(self) -> LinearOperator:  # type: ignore[override]  # noqa: N802
        return self._of

    def _apply(self, x):
        return self._of._adjoint(x)

    def _adjoint(self, y):
        return self._of._apply(y)

    def _matrix(self):
        return self._of.matrix().mH

    def _svd(self):
        U, s, V = self._of.svd()
        return SVD(V, s, U)

    def norm(self):
        return self._of.norm()

    def parts(self):
        return (self._of,)

    def to(self, device=None, dtype=None):
        return self._of.to(device, dtype).H


class Compose(LinearOperator):
    """`A B x`: what `A @ B` gives for two operators.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.
    """

    def __init__(self, A: LinearOperator, B: LinearOperator):
        if A.n != B.m:
            raise ValueError(f"cannot compose {A} after {B}: {B.m} entries come out and {A.n} are expected.")
        if (A.dtype, A.device) != (B.dtype, B.device):
            raise ValueError(f"cannot compose {A} after {B}: bring both to one dtype and device with .to().")
        super().__init__((A.m, B.n), A.dtype, A.device)
        self._A, self._B = A, B

    def _apply(self, x):
        return self._A @ (self._B @ x)

    def _adjoint(self, y):
        return self._B.H @ (self._A.H @ y)

    def parts(self):
        return (self._A, self._B)

    def to(self, device=None, dtype=None):
        return Compose(self._A.to(device, dtype), self._B.to(device, dtype))


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
