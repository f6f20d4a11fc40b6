"""What is checked, and in which precision it is computed, before an algorithm takes its first step."""

from typing import Protocol

import torch

from fanfold.algorithms.base import Algorithm
from fanfold.core.precision import at_least_single, double
from fanfold.linops import LinearOperator, refuse_zero
from fanfold.observation import Observation


class HasOperator(Protocol):
    """A problem or an observation: whatever carries the operator `A`."""

    @property
    def A(self) -> LinearOperator | None: ...  # noqa: N802


def operator_of(carrier: HasOperator) -> LinearOperator:
    """The operator that is carried.

    Raises:
        ValueError: If there is none, or it maps everything to zero.
    """
    if carrier.A is None:
        raise ValueError("an iterative algorithm needs the operator A and this observation has none; pass one with A.")
    refuse_zero(carrier.A)
    return carrier.A


def bound_to(A: LinearOperator, bound: LinearOperator) -> LinearOperator:
    """The object that a network goes on to take for its operator, of two that are the same one.

    Operators in different precisions are the same where they are in the lower one; the network keeps its own then.

    Raises:
        ValueError: If they differ, with both hashes.
    """
    if A.fingerprint() == bound.fingerprint():
        return A
    if A.dtype.is_complex == bound.dtype.is_complex and A.shape == bound.shape:
        lower = max(A.dtype, bound.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        if A.in_precision(lower).fingerprint() == bound.in_precision(lower).fingerprint():
            return bound
    raise ValueError(
        f"the network belongs to another operator: it was unfolded for A with hash {bound.fingerprint()[:12]} and "
        f"got {A} with hash {A.fingerprint()[:12]}. Use that A, or unfold and train for this one."
    )


def admitted(algorithm: Algorithm, obs: Observation, *, in_double: bool = True) -> Observation:
    """The observation in the precision in which the steps of the algorithm compute; estimates are then brought back.

    That is the data's own, but single for half precision, and double for single where numbers are so large or small
    that their fourth powers do not fit, and where gradients flow through singular vectors, whose derivative loses half
    of the digits.

    Args:
        algorithm: What takes the steps.
        obs: The observation as it came.
        in_double: Whether double precision may take the place of single.

    Raises:
        ValueError: If there is no operator, it maps everything to zero, or no precision holds what is computed.
    """
    A = operator_of(obs)
    obs.check_size()
    if not in_double:
        return obs.in_precision(at_least_single(obs.y.dtype))
    dtype = obs.working_dtype()
    learns = algorithm.by_svd and torch.is_grad_enabled() and not torch.compiler.is_compiling() and A.learns
    return obs.in_precision(double(dtype) if learns else dtype)
