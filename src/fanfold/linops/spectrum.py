"""Singular value decompositions, with gradients where values repeat, and what rounding leaves of values of zero."""

from collections.abc import Callable

import torch
from torch import Tensor

from fanfold.linops.seen import Seen


def rounding(s: Tensor, shape: tuple[int, int]) -> Tensor:
    """What rounding leaves of singular values that are zero: `max(m, n) eps` of the largest.

    Golub & Van Loan (2013), section 5.4.1.
    """
    return max(shape) * torch.finfo(s.dtype).eps * s.amax(-1, keepdim=True)


def reciprocal(s: Tensor, shape: tuple[int, int]) -> Tensor:
    """The singular values of the pseudo-inverse: `1 / s`, and zero where s is zero to rounding."""
    kept = s > rounding(s, shape)
    return torch.where(kept, 1 / torch.where(kept, s, 1), 0)


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`U`, `s` and `V` with `matrix = U diag(s) Vᴴ`, differentiable where s repeats.

    The derivative of singular vectors divides by differences of squared singular values, which are all zero in Fourier
    and identity matrices; in what depends on the matrix alone, and not on the choice of vectors, the quotients have a
    limit. Where gradients flow, values that are nearer to each other than the root of rounding are moved that far apart
    along their own vectors, so that quotients are differences which keep half of the digits. Others stay as they are.
    """
    U, s, Vh = torch.linalg.svd(matrix.detach(), full_matrices=False)
    if not (matrix.requires_grad and torch.is_grad_enabled()):
        return U, s, Vh.mH
    gap = torch.finfo(s.dtype).eps ** 0.5 * s.amax(-1, keepdim=True)
    steps = gap * torch.arange(s.shape[-1], 0, -1, dtype=s.dtype, device=s.device)  # falling, as s does
    moves = (s - steps).flip(-1).cummax(-1).values.flip(-1).clamp_min(0) + steps - s
    moves = torch.where(moves > gap / 2, moves, 0)  # the rest is rounding
    U, s, Vh = torch.linalg.svd(matrix + (U * moves[..., None, :]) @ Vh, full_matrices=False)
    return U, s, Vh.mH


def ranks_of(s: Tensor, shape: tuple[int, int], matrix: Callable[[], Tensor]) -> tuple[int, int]:
    """The rank to rounding and the most it could be with as many rows and columns of zeros, of the worst matrix.

    Args:
        s: The singular values, `(..., k)`.
        shape: `(m, n)`.
        matrix: What gives the matrices, `(..., m, n)`; called only where a rank is not k.
    """
    rank = (s > rounding(s, shape)).sum(-1)
    if (rank == s.shape[-1]).all():
        return s.shape[-1], s.shape[-1]
    squares = matrix().detach().abs().square()
    rows, columns = (Seen.of(squares.sum(axis)).count for axis in (-1, -2))
    full = torch.minimum(*(torch.as_tensor(count, device=s.device).reshape(-1).long() for count in (rows, columns)))
    rank, full = torch.broadcast_tensors(rank.reshape(-1), full)
    worst = (full - rank).argmax()
    return int(rank[worst]), int(full[worst])
