"""Operators of other libraries are tried once when they are adopted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.linops import Foreign, LinearOperator, dot_test

Rows = Callable[[Tensor], Tensor]


def adopted(guest: Any, forward: Rows, adjoint: Rows, shape: tuple[int, int], dtype: torch.dtype) -> LinearOperator:
    """Two functions of a guest as an operator, once its adjoint has been seen to be one.

    Raises:
        ValueError: If it is not, as one random signal shows: every algorithm would go astray.
    """
    A = Foreign(forward, adjoint, shape, dtype)
    try:
        dot_test(A)
    except ValueError as error:
        raise ValueError(
            f"{type(guest).__name__} cannot be taken over: what it calls its adjoint is none for signals of {dtype}. "
            f"Is it linear, and is its scaling the same both ways? {error}"
        ) from error
    return A
