"""Whether an operator can be inverted where it does not vanish by its structure."""

import torch

from fanfold.linops.base import LinearOperator


def refuse_rank_deficient(A: LinearOperator) -> None:
    """Refuse an operator with singular values of zero, to rounding: what divides by them would be infinite.

    Nothing is refused while a graph is traced, where values cannot be looked at.

    Raises:
        ValueError: Names the rank and, in a Kronecker product, the factor.
    """
    if not torch.compiler.is_compiling():
        A.once("full rank", lambda: _refuse(A))


def _refuse(A: LinearOperator) -> None:
    for what, rank, full in A.ranks():
        if rank < full:
            raise ValueError(
                f"{what} has rank {rank}, not {full}: its inverse does not exist. Leave out measurements that repeat "
                "or unknowns that look alike, or take a linear step that does not divide by singular values, such as "
                "'lmmse'."
            )
