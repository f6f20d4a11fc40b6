"""Kronecker products: `(A_1 ⊗ … ⊗ A_K) x` by one small matrix product a factor. Van Loan (2000)."""

import math

import torch
from torch import Tensor

from fanfold.linops.base import SVD, LinearOperator
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.product import linear_map
from fanfold.linops.spectrum import ranks_of, thin_svd


class Kronecker(LinearOperator):
    """`A_1 ⊗ … ⊗ A_K`: each factor acts on one axis of the scene `(n_1, …, n_K)`, whose entries are in row-major order.

    The matrix is never formed. Applying it costs about `n Σ n_k` operations, its singular value decomposition is the
    Kronecker product of the factors' own, and gradients flow to the signal and to the factors. Covariances of the
    measurements, `weighted_gram`, cost about `m² Σ n_k` (Van Loan & Pitsianis, 1993: the rearrangement that makes
    Kronecker products rank one).

    Args:
        *factors: Matrices `(m_k, n_k)`, of one dtype and on one device.

    Raises:
        ValueError: If there is no factor, one is no matrix, is empty or not finite, or they differ in dtype or device.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Kronecker(torch.ones(2, 3), torch.ones(4, 5))
        >>> A, (A @ torch.ones(7, 15)).shape
        (Kronecker((2x3) x (4x5), torch.float32, cpu), torch.Size([7, 8]))
    """

    factored = True

    def __init__(self, *factors: Tensor):
        if not factors:
            raise ValueError("a Kronecker product takes at least one factor.")
        for k, factor in enumerate(factors, start=1):
            if factor.ndim != 2 or 0 in factor.shape:
                raise ValueError(f"factor {k} has shape {tuple(factor.shape)}; pass matrices of shape (m_k, n_k).")
            if (factor.dtype, factor.device) != (factors[0].dtype, factors[0].device):
                raise ValueError(
                    f"factor {k} is {factor.dtype} on {factor.device} but the first is {factors[0].dtype} on "
                    f"{factors[0].device}; convert one."
                )
            refuse_non_finite(factor, f"factor {k}")
        rows, columns = ([f.shape[axis] for f in factors] for axis in (0, 1))
        super().__init__((math.prod(rows), math.prod(columns)), factors[0].dtype, factors[0].device)
        self.factors = factors
        self._adjoints = tuple(f.mH.resolve_conj().contiguous() for f in factors)

    def _apply(self, x):
        return self._product(x, self.factors, self._adjoints)

    def _adjoint(self, y):
        return self._product(y, self._adjoints, self.factors)

    def _product(self, x, factors, adjoints):
        if any(factor.requires_grad for factor in factors):
            return _by_modes(factors, x)
        return linear_map(x, lambda x: _by_modes(factors, x), lambda y: _by_modes(adjoints, y))

    def _svd(self):
        parts = [thin_svd(f) for f in self.factors]
        U, V = Kronecker(*(U for U, _, _ in parts)), Kronecker(*(V.contiguous() for _, _, V in parts))
        return SVD(U, _outer([s for _, s, _ in parts]), V)

    def _norm(self):
        return math.prod(torch.linalg.matrix_norm(f, 2).item() for f in self.factors)

    def _gram_diagonal(self):
        return _outer([f.abs().square().sum(0) for f in self.factors])

    def weighted_gram(self, weights):
        rows = [f.shape[0] for f in self.factors]
        z = _by_modes(self._squares(), weights.to(self.dtype)).reshape(-1, *(m for m in rows for _ in "ij"))
        return z.permute(0, *_interleaved(len(rows), back=True)).reshape(*weights.shape[:-1], self.m, self.m)

    def quadratic_diagonal(self, P):
        rows = [f.shape[0] for f in self.factors]
        z = P.reshape(-1, *rows, *rows).permute(0, *_interleaved(len(rows), back=False))
        squares = tuple(square.mH for square in self._squares())
        return _by_modes(squares, z.reshape(*P.shape[:-2], -1)).real

    def _squares(self) -> tuple[Tensor, ...]:
        """The products of every two rows of each factor, `(m_k², n_k)`: its Khatri-Rao product with its conjugate."""
        squares = ((f[:, None] * f.conj()).flatten(0, 1).contiguous() for f in self.factors)
        return self.once("squares", lambda: tuple(squares))

    def ranks(self):
        for k, factor in enumerate(self.factors, start=1):
            m, n = factor.shape
            ranks = ranks_of(torch.linalg.svdvals(factor.detach()), (m, n), lambda factor=factor: factor)
            yield f"factor {k} ({m}x{n}) of {self}", *ranks

    def parts(self):
        return self.factors

    def to(self, device=None, dtype=None):
        device, dtype = torch.device(device or self.device), dtype or self.dtype
        if (device, dtype) == (self.device, self.dtype):
            return self
        return self.once(("to", device, dtype), lambda: Kronecker(*(f.to(device, dtype) for f in self.factors)))

    def __repr__(self) -> str:
        sizes = " x ".join(f"({f.shape[0]}x{f.shape[1]})" for f in self.factors)
        return f"Kronecker({sizes}, {self.dtype}, {self.device})"


def _by_modes(factors: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """The product, last factor first: each eats the last axis and leaves its own in front, so order comes back."""
    z = x.reshape(-1, x.shape[-1])
    for factor in reversed(factors):
        count = z.shape[0]  # not len(z), which a trace would take for a constant
        each = factor.resolve_conj().expand(count, *factor.shape)  # where gradients flow, `@` would copy z to fold it
        z = (each @ z.reshape(count, -1, factor.shape[1]).mT).reshape(count, -1)
    return z.reshape(*x.shape[:-1], -1)


def _interleaved(count: int, *, back: bool) -> list[int]:
    """Axes i1 … iK j1 … jK, after that of the batch, as i1 j1 … iK jK, or back."""
    pairs = [axis for k in range(1, count + 1) for axis in (k, k + count)]
    return [pairs.index(axis) + 1 for axis in range(1, 2 * count + 1)] if back else pairs


def _outer(vectors: list[Tensor]) -> Tensor:
    """The Kronecker product of vectors."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = (product[:, None] * vector).reshape(-1)
    return product
