"""The linear operator that every algorithm sees, and adjoints, products and matrices, in one file as each makes others.

`A @ x`, `A.H @ y`, its spectrum, and which unknowns it sees.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.nn.functional import linear

from fanfold.core.precision import at_least_single
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.seen import Seen
from fanfold.linops.spectrum import ranks_of, thin_svd

T = TypeVar("T")


class SVD(NamedTuple):
    """`A = U diag(s) V.H`: U is m x k, s is real and not negative, V is n x k; `AᴴA` is zero beyond.

    s is descending, but for operators whose structure has an order of its own.

    Example:
        >>> import fanfold as ff, torch
        >>> U, s, V = ff.linops.Dense(torch.diag(torch.tensor([2.0, 1.0]))).svd()
        >>> s.tolist()
        [2.0, 1.0]
    """

    U: "LinearOperator"
    s: Tensor
    V: "LinearOperator"

    def to(self, dtype: torch.dtype) -> "SVD":
        """The same decomposition in another precision."""
        return SVD(self.U.to(dtype=dtype), self.s.to(dtype.to_real()), self.V.to(dtype=dtype))


class LinearOperator(ABC):
    """A linear map of `(..., n)` to `(..., m)`, real or complex.

    A subclass gives `_apply`, `_adjoint`, `parts` and `to`; where it knows its structure it also gives `_svd`, `_norm`
    or `_gram_diagonal`, which otherwise come from the dense matrix. Operators do not change: whatever is derived from
    one is computed once and kept. Half precision is computed in single, and what comes out is in half again.

    Attributes:
        varies: Whether each sample has a matrix of its own, as in `Batched`.
        factored: Whether its shape is a product of shapes, which errors then name, as in `Kronecker`.

    Args:
        shape: `(m, n)`, measurements by unknowns.
        dtype: The dtype of the operator and of the signals that it maps.
        device: The device of its tensors.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Dense(torch.ones(2, 3))
        >>> (A @ torch.ones(5, 3)).shape, (A.H @ A).shape
        (torch.Size([5, 2]), (3, 3))
    """

    varies: ClassVar[bool] = False
    factored: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device | str = "cpu"):
        self.shape, self.dtype, self.device = (int(shape[0]), int(shape[1])), dtype, torch.device(device)
        self._memo: dict[object, Any] = {}

    @property
    def m(self) -> int:
        """The number of measurements."""
        return self.shape[0]

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return self.shape[1]

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """`A x` for `x` of shape `(..., n)`."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """`Aᴴ y` for `y` of shape `(..., m)`."""

    @abstractmethod
    def parts(self) -> tuple[Any, ...]:
        """The tensors, numbers, texts and operators that define this operator; `fingerprint` hashes them."""

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
        wide = self.wide
        return self._apply(x) if wide is self else wide._apply(x.to(wide.dtype)).to(x.dtype)

    @cached_property
    def H(self) -> "LinearOperator":  # noqa: N802 - the adjoint's name in the mathematics
        """The adjoint: `A.H @ y` is `Aᴴ y`."""
        return Adjoint(self)

    @property
    def learns(self) -> bool:
        """Whether gradients flow to what defines it."""
        parts = self.parts()
        return any(p.requires_grad for p in parts if isinstance(p, Tensor)) or any(
            p.learns for p in parts if isinstance(p, LinearOperator)
        )

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """`compute()`, run at the first call and kept: for quantities derived from the operator alone."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    @property
    def wide(self) -> "LinearOperator":
        """The operator in single precision if it is in half, else itself."""
        dtype = at_least_single(self.dtype)
        return self if dtype == self.dtype else self.in_precision(dtype)

    def in_precision(self, dtype: torch.dtype) -> "LinearOperator":
        """The operator in another precision, converted once and kept."""
        return self if dtype == self.dtype else self.once(("precision", dtype), lambda: self.to(dtype=dtype))

    def matrix(self) -> Tensor:
        """The dense `(m, n)` matrix."""
        return self.once("matrix", lambda: self.wide._matrix().to(self.dtype))

    def _matrix(self) -> Tensor:
        return (self @ torch.eye(self.n, dtype=self.dtype, device=self.device)).mT

    def svd(self) -> SVD:
        """The thin singular value decomposition, structured where the operator is.

        Where the operator learns, values that repeat are told apart by rounding's root: see `spectrum.thin_svd`.
        """
        key = ("svd", self.learns and torch.is_grad_enabled())
        return self.once(key, lambda: self._svd() if self.wide is self else self.wide.svd().to(self.dtype))

    def _svd(self) -> SVD:
        U, s, V = thin_svd(self.matrix())
        return SVD(Dense(U), s, Dense(V.contiguous()))

    def norm(self) -> Any:
        """The spectral norm: the largest singular value, a number, or a tensor `(batch, 1)` where samples differ."""
        return self.once("norm", self.wide._norm)

    def _norm(self) -> Any:
        return torch.linalg.matrix_norm(self.matrix(), 2).item()

    def gram_diagonal(self) -> Tensor:
        """The diagonal of `AᴴA`, the squared norms of the columns: `(n,)`, real."""
        return self.once("gram_diagonal", lambda: self.wide._gram_diagonal().to(self.dtype.to_real()))

    def _gram_diagonal(self) -> Tensor:
        return self.matrix().abs().square().sum(-2)

    def seen(self) -> Seen:
        """Which unknowns it sees: one whose column is zero, to rounding, leaves no trace in any measurement."""
        return self.once("seen", lambda: Seen.of(self.wide.gram_diagonal().detach()))

    def weighted_gram(self, weights: Tensor) -> Tensor:
        """The covariance `A diag(w) Aᴴ` `(..., m, m)` of measurements of a signal with variances w `(..., n)`, real."""
        A = self.matrix()
        return (A * weights[..., None, :]) @ A.mH

    def quadratic_diagonal(self, P: Tensor) -> Tensor:
        """The diagonal of `Aᴴ P A` for Hermitian P `(..., m, m)`: `(..., n)`, real."""
        A = self.matrix()
        return (A.conj() * (P @ A)).sum(-2).real

    def of_samples(self, rows: slice | Tensor) -> "LinearOperator":
        """The operator of these samples of a batch: itself, unless each sample has a matrix of its own."""
        return self

    def ranks(self) -> Iterator[tuple[str, int, int]]:
        """Each factor of a product, or the operator itself, in words, with its rank to rounding and its full rank.

        Rows and columns of zeros do not count for the full rank. Where each sample has a matrix of its own both are
        those of one that lacks most.
        """
        yield f"{self}", *ranks_of(self.svd().s, self.shape, self.matrix)

    def probed(self) -> Tensor:
        """The measurements `A g` of one random signal, always the same: zero if A is, and as large as its rows are."""
        return self.once("probed", self._probed)

    @torch.no_grad()
    def _probed(self) -> Tensor:
        g = torch.randn(self.n, generator=torch.Generator().manual_seed(0), dtype=self.wide.dtype)
        return self.wide @ g.to(self.device)

    def fingerprint(self) -> str:
        """The SHA-256 of the operator's type, shape, dtype and contents: the same on every machine and device."""
        return self.once("fingerprint", self._fingerprint)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.shape} {self.dtype}".encode())
        for part in self.parts():
            if isinstance(part, LinearOperator):
                digest.update(part.fingerprint().encode())
            elif isinstance(part, Tensor):
                real = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
                digest.update(real.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                digest.update(repr(part).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.m}x{self.n}, {self.dtype}, {self.device})"


class Adjoint(LinearOperator):
    """The adjoint `Aᴴ` of an operator, which shares everything with it: what `A.H` gives.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Dense(torch.ones(2, 3))
        >>> A.H.shape, A.H.H is A
        ((3, 2), True)
    """

    def __init__(self, A: LinearOperator):
        super().__init__((A.n, A.m), A.dtype, A.device)
        self.H = A

    def _apply(self, x):
        return self.H._adjoint(x)

    def _adjoint(self, y):
        return self.H._apply(y)

    def _matrix(self):
        return self.H.matrix().mH

    def _svd(self):
        U, s, V = self.H.svd()
        return SVD(V, s, U)

    def _norm(self):
        return self.H.norm()

    def parts(self):
        return (self.H,)

    def to(self, device=None, dtype=None):
        return self.H.to(device, dtype).H


class Compose(LinearOperator):
    """The product `A B` of two operators: what `A @ B` gives.

    Raises:
        ValueError: If the shapes, dtypes or devices do not fit.

    Example:
        >>> import fanfold as ff, torch
        >>> A, B = ff.linops.Dense(torch.ones(2, 3)), ff.linops.DCT((3,))
        >>> A @ B
        Compose(2x3, torch.float32, cpu)
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
    """A matrix of shape `(m, n)`, real or complex, as an operator.

    Raises:
        ValueError: If the matrix is not two-dimensional, is empty, or holds NaN or Inf.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Dense(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        >>> A @ torch.tensor([1.0, 2.0]), round(A.norm(), 3)
        (tensor([3., 2.]), 3.0)
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
