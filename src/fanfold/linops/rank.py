"""Whether an operator can be inverted where it does not vanish by its structure."""

import torch

from fanfold.linops.base import LinearOperator
from fanfold.linops.kronecker import Kronecker


def refuse_rank_deficient(A: LinearOperator) -> None:
    """Refuse an operator with singular values of zero: what divides by them would be infinite.

    Zero is what rounding leaves of it, `max(m, n) eps` of the largest (Golub & Van Loan, 2013, section 5.4.1). Nothing
    is refused while a graph is traced, where values cannot be looked at.

    Raises:
        ValueError: Names the rank and, in a Kronecker product, the factor.
    """
    if not torch.compiler.is_compiling():
        A.once("full rank", lambda: _refuse(A))


def _refuse(A: LinearOperator) -> None:
    if isinstance(A, Kronecker):
        for k, factor in enumerate(A.factors, start=1):
            m, n = factor.shape
            _compare(f"factor {k} ({m}x{n}) of {A}", int(torch.linalg.matrix_rank(factor)), min(m, n))
    else:
        s = A.svd().s
        least = max(A.shape) * torch.finfo(s.dtype).eps * s.amax(-1, keepdim=True)
        _compare(f"{A}", int((s > least).sum(-1).min()), s.shape[-1])


def _compare(what: str, rank: int, full: int) -> None:
    if rank < full:
        raise ValueError(
            f"{what} has rank {rank}, not {full}: its inverse does not exist. Leave out measurements that repeat or "
            "unknowns that look alike, or take a linear step that does not divide by singular values, such as 'lmmse'."
        )
