"""Operators of PyLops as fanfold operators, differentiable in the signal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.linops.base import LinearOperator
from fanfold.linops.foreign import Foreign


def from_pylops(operator: Any) -> LinearOperator:
    """A PyLops `LinearOperator` (its `shape`, `dtype`, `matmat` and `rmatmat`) as a fanfold operator."""
    dtype = torch.as_tensor(operator.matvec(np.zeros(operator.shape[1], operator.dtype))).dtype

    def by(function: Callable) -> Callable[[Tensor], Tensor]:
        return lambda rows: torch.as_tensor(function(rows.detach().resolve_conj().resolve_neg().numpy().T).T.copy()).to(
            dtype
        )

    return Foreign(by(operator.matmat), by(operator.rmatmat), operator.shape, dtype)
