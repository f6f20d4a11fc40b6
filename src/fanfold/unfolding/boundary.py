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
        ValueError: If there is no operator, or it maps everything to zero.
    """
    A = operator_of(obs)
    if not in_double:
        return obs.in_precision(at_least_single(obs.y.dtype))
    dtype = obs.working_dtype()
    learns = algorithm.by_svd and torch.is_grad_enabled() and not torch.compiler.is_compiling() and A.learns
    return obs.in_precision(double(dtype) if learns else dtype)
