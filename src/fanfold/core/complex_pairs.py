"""Complex matrices on real pairs, for runtimes that have no complex type: `(a + jb)(c + jd) = ac - bd + j(ad + bc)`.

A packed vector `(..., 2 n)` has its n reals first and its n imaginaries after them; a pair of matrices is
`(2, ..., a, b)`, or two tensors `(..., a, b)`.
"""

import torch
from torch import Tensor


def as_pairs(z: Tensor) -> Tensor:
    """Complex numbers `(..., n)` as pairs `(..., n, 2)`."""
    return torch.view_as_real(z.resolve_conj())


def packed(z: Tensor) -> Tensor:
    """Pairs `(..., n, 2)` as a packed vector `(..., 2 n)`."""
    return torch.cat([z[..., 0], z[..., 1]], -1)


def paired(z: Tensor) -> Tensor:
    """A packed vector `(..., 2 n)` as pairs `(..., n, 2)`."""
    return z.unflatten(-1, (2, -1)).transpose(-1, -2)


def from_right(M: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The real `(..., 2 a, 2 b)` that right-multiplies packed rows as complex M `(2, ..., a, b)` does complex rows."""
    re, im = M[0], M[1]
    return torch.cat([torch.cat([re, im], -1), torch.cat([-im, re], -1)], -2)


def from_left(M: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The real `(..., 2 a, 2 b)` that left-multiplies columns, reals then imaginaries; its transpose is the adjoint."""
    re, im = M[0], M[1]
    return torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)


def pair_of(M: Tensor) -> Tensor:
    """A complex matrix `(..., a, b)` as a pair `(2, ..., a, b)` in single precision."""
    return as_pairs(M).movedim(-1, 0).float().contiguous()


def beside(*parts: Tensor) -> Tensor:
    """Packed vectors `(..., 2 n_i)` as one, `(..., 2 Σ n_i)`."""
    split = [part.unflatten(-1, (2, -1)) for part in parts]
    return torch.cat(split, -1).flatten(-2)


def swapped(z: Tensor) -> Tensor:
    """Packed rows `(..., a, 2 b)` transposed without conjugation, `(..., b, 2 a)`."""
    return z.unflatten(-1, (2, -1)).transpose(-1, -3).flatten(-2)
