"""Operators of deepinv as fanfold operators, differentiable in the signal."""

import math
from typing import Any

import torch

from fanfold.adapters.adopted import adopted
from fanfold.linops import LinearOperator


def from_deepinv(physics: Any, extent: tuple[int, ...], dtype: torch.dtype = torch.float32) -> LinearOperator:
    """A deepinv `LinearPhysics` (its `A` and `A_adjoint`) as a fanfold operator on flattened images.

    Args:
        physics: The deepinv operator.
        extent: The shape of one image without the batch axis, such as `(channels, height, width)`.
        dtype: The dtype of the images.

    Raises:
        ValueError: If `A_adjoint` is not the adjoint of `A`, as one random image shows.
    """
    image = torch.zeros(1, *extent, dtype=dtype)
    measured = physics.A(image).shape[1:]
    return adopted(
        physics,
        lambda rows: physics.A(rows.reshape(-1, *extent)).flatten(1),
        lambda rows: physics.A_adjoint(rows.reshape(-1, *measured)).flatten(1),
        (math.prod(measured), math.prod(extent)),
        dtype,
    )
