"""Operators of PyLops as fanfold operators, differentiable in the signal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.linops import Foreign, LinearOperator


def from_pylops(operator: Any) -> LinearOperator:
    """A PyLops `LinearOperator` (its `shape`, `dtype`, `matmat` and `rmatmat`) as a fanfold operator.

    Example:
        >>> import fanfold as ff, numpy as np, pylops
        >>> ff.adapters.from_pylops(pylops.MatrixMult(np.ones((2, 3))))
        Foreign(2x3, torch.float64, cpu)
    """
    dtype = torch.as_tensor(operator.matvec(np.zeros(operator.shape[1], operator.dtype))).dtype

    def on_rows(function: Callable) -> Callable[[Tensor], Tensor]:
        def apply(rows: Tensor) -> Tensor:
            columns = rows.detach().resolve_conj().resolve_neg().numpy().T
            return torch.as_tensor(function(columns).T.copy()).to(dtype)

        return apply

    return Foreign(on_rows(operator.matmat), on_rows(operator.rmatmat), operator.shape, dtype)
