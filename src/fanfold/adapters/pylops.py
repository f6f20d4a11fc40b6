"""Operators of PyLops as fanfold operators, differentiable in the signal."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fanfold.adapters.adopted import adopted
from fanfold.core.abilities import ability
from fanfold.linops import LinearOperator


class SaysLinearity(Protocol):
    """An operator that says whether it is linear over the complex numbers, or over the reals alone."""

    clinear: bool


def from_pylops(operator: Any) -> LinearOperator:
    """A PyLops `LinearOperator` (its `shape`, `dtype`, `matmat` and `rmatmat`) as a fanfold operator.

    One that is linear over the reals alone (`clinear=False`, such as `FFT(real=True)`) becomes a real operator on real
    signals: complex measurements are their real parts, then their imaginary parts, `(..., 2m)`.

    Raises:
        ValueError: If `rmatmat` is not the adjoint of `matmat`, as one random signal shows.

    Example:
        >>> import fanfold as ff, numpy as np, pylops
        >>> ff.adapters.from_pylops(pylops.MatrixMult(np.ones((2, 3))))
        Foreign(2x3, torch.float64, cpu)
        >>> ff.adapters.from_pylops(pylops.signalprocessing.FFT(8, real=True))
        Foreign(10x8, torch.float64, cpu)
    """
    (m, n), spoken = operator.shape, ability(operator, SaysLinearity)
    linear = spoken is None or spoken.clinear
    zeros = np.zeros(n, operator.dtype if linear else np.real(np.zeros(1, operator.dtype)).dtype)
    seen = torch.as_tensor(operator.matvec(zeros)).dtype

    def rows(function: Callable) -> Callable[[Tensor], Tensor]:
        def apply(rows: Tensor) -> Tensor:
            columns = rows.detach().resolve_conj().resolve_neg().numpy().T
            return torch.as_tensor(function(columns).T.copy())

        return apply

    forward, adjoint = rows(operator.matmat), rows(operator.rmatmat)
    if linear:
        functions = (lambda x: forward(x).to(seen)), (lambda y: adjoint(y).to(seen))
        return adopted(operator, *functions, (m, n), seen)
    kind = seen.to_real()
    if not seen.is_complex:
        functions = (lambda x: forward(x).to(kind)), (lambda y: adjoint(y).real.to(kind))
        return adopted(operator, *functions, (m, n), kind)

    def stacked(x: Tensor) -> Tensor:
        y = forward(x)
        return torch.cat([y.real, y.imag], -1).to(kind)

    def back(y: Tensor) -> Tensor:
        return adjoint(torch.complex(*y.chunk(2, -1))).real.to(kind)

    return adopted(operator, stacked, back, (2 * m, n), kind)
