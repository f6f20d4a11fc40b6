"""Whether an operator can be inverted where it does not vanish by its structure, and whether it vanishes."""

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


def refuse_unseen(A: LinearOperator, who: str) -> None:
    """Refuse an operator that does not see one of the unknowns, for what has no prior to fall back on.

    Raises:
        ValueError: Names the first unknown and, where samples differ, the sample.
    """
    mask = A.seen().mask
    if mask is not None:
        *sample, unknown = (~mask).nonzero()[0].tolist()
        where = f" of sample {sample[0]}" if sample else ""
        raise ValueError(
            f"{who} cannot tell unknown {unknown}{where}, as its column of {A} is zero; leave it out, or take an "
            "estimator that has a prior, such as LMMSE or EP."
        )


def refuse_zero(A: LinearOperator) -> None:
    """Refuse an operator that maps everything to zero, for one sample or for all: nothing is measured there.

    One product with a random signal tells, as only zero maps that to zero. Nothing is refused while a graph is traced.

    Raises:
        ValueError: Says so, and for which sample.
    """
    if not torch.compiler.is_compiling():
        A.once("not zero", lambda: _refuse_zero(A))


@torch.no_grad()
def _refuse_zero(A: LinearOperator) -> None:
    silent = (A.probed() == 0).all(-1)
    if silent.any():
        which = f"the matrix of sample {int(silent.nonzero()[0, 0])} of {A}" if A.varies else f"{A}"
        raise ValueError(f"{which} is zero: it measures nothing. Pass the operator that y was measured with.")
