"""Operators from a user's own functions: of torch or numpy, on one signal or on a batch, tested once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.core.arrays import tensor_of
from fanfold.core.noise import circular
from fanfold.linops.base import LinearOperator
from fanfold.linops.dot_product import allowed_gap, dot_gap
from fanfold.linops.foreign import Foreign

Function = Callable[[Any], Any]
TRIED = 3  # signals that tell how a function is called


class Manner(NamedTuple):
    """How a function is called."""

    arrays: bool  # with numpy arrays, else with tensors
    one_by_one: bool  # with one signal, else with rows of a batch


# tensors first, as torch can differentiate through them
MANNERS = (Manner(False, False), Manner(False, True), Manner(True, False), Manner(True, True))


def from_functions(
    apply: Function,
    adjoint: Function,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    tolerance: float | None = None,
) -> LinearOperator:
    """The operator A of two functions, `x -> A x` and `y -> Aᴴ y`, for every algorithm and network.

    The functions take tensors or numpy arrays, one signal `(n,)` or rows of a batch `(batch, n)`: which of these is
    tried with three random signals. Gradients pass through functions of tensors where torch can differentiate them,
    else through the adjoint. Whether the one is the adjoint of the other is tested once.

    Args:
        apply: The function that gives `A x`.
        adjoint: The function that gives `Aᴴ y`: for a matrix M it is `M.conj().T @ y`, for numpy's `fft` of n entries
            it is `n * ifft(y)`.
        shape: `(m, n)`, measurements by unknowns.
        dtype: The dtype of signals and measurements; complex if either is.
        device: The device of signals and measurements.
        tolerance: The relative gap that the dot-product test allows; rounding in this dtype if None.

    Raises:
        ValueError: If a function fails, gives another shape or complex numbers of real ones, or the two do not fit.

    Example:
        >>> import fanfold as ff, numpy as np, torch
        >>> fft = ff.linops.from_functions(np.fft.fft, lambda y: 8 * np.fft.ifft(y), (8, 8), torch.complex64)
        >>> (fft @ torch.ones(5, 8, dtype=torch.complex64)).shape
        torch.Size([5, 8])
    """
    m, n = int(shape[0]), int(shape[1])
    if min(m, n) < 1:
        raise ValueError(f"shape is {tuple(shape)}; pass (m, n), measurements by unknowns, both at least 1.")
    forward, forward_native = _on_rows(apply, "apply", n, m, dtype, torch.device(device))
    back, back_native = _on_rows(adjoint, "adjoint", m, n, dtype, torch.device(device))
    A = Foreign(forward, back, (m, n), dtype, device, native=forward_native and back_native)
    gap, allowed = dot_gap(A), allowed_gap(A) if tolerance is None else tolerance
    if not gap <= allowed:
        raise ValueError(
            f"adjoint is not the adjoint of apply: <apply(x), y> and <x, adjoint(y)> differ by {gap:.1e} of their size "
            f"for random x and y, allowed {allowed:.1e}; check transposition, conjugation and scaling, and that both "
            "are linear."
        )
    return A


def _on_rows(
    function: Function, name: str, n: int, m: int, dtype: torch.dtype, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], bool]:
    """A function of rows `(batch, n) -> (batch, m)` of tensors, and whether torch can differentiate it.

    Raises:
        ValueError: If no way of calling it gives `m` numbers of `n`.
    """
    rows = circular((TRIED, n), torch.Generator().manual_seed(1), dtype).to(device)
    complaints: list[str] = []
    for manner in MANNERS:

        def call(x: Tensor, manner: Manner = manner) -> Tensor:
            return _called(function, name, x, manner, m)

        try:
            images = call(rows)
            if not manner.one_by_one:
                _check_rows_apart(call, images, rows, name)
        except Exception as error:  # of any kind: it is the user's code
            complaints.append(f"{error}")
            continue
        return call, not manner.arrays and _reaches(call, rows)
    listed = dict.fromkeys(complaint.rstrip(".") for complaint in complaints)
    raise ValueError(
        f"{name} cannot be called with {n} entries of {dtype} to give {m}, neither one signal nor rows of a batch, "
        f"neither a tensor nor an array: {'; '.join(listed)}."
    )


def _called(function: Function, name: str, rows: Tensor, manner: Manner, m: int) -> Tensor:
    given = rows.detach().cpu().resolve_conj().resolve_neg().numpy() if manner.arrays else rows
    if manner.one_by_one:
        parts = [_answer(function(x), name, manner) for x in given]
        images = torch.stack(parts) if parts else rows.new_zeros(0, m)
    else:
        images = _answer(function(given), name, manner)
    if tuple(images.shape) != (len(rows), m):
        raise ValueError(f"{name} gave shape {tuple(images.shape[manner.one_by_one :])}")
    if images.is_complex() and not rows.is_complex():
        raise ValueError(f"{name} gave {images.dtype} of {rows.dtype}; pass dtype={rows.dtype.to_complex()}")
    return images.to(rows.device, rows.dtype)


def _answer(value: Any, name: str, manner: Manner) -> Tensor:
    if not manner.arrays and not isinstance(value, Tensor):
        raise ValueError(f"{name} gave a {type(value).__name__} of a tensor")
    return tensor_of(value, f"what {name} gives")


def _check_rows_apart(call: Callable[[Tensor], Tensor], images: Tensor, rows: Tensor, name: str) -> None:
    """Refuse a function whose rows of a batch do not come out as each by itself: it is one of single signals.

    Raises:
        ValueError: If a row depends on the others.
    """
    size = images.abs().max()
    for k, x in enumerate(rows):
        gap = (call(x[None])[0] - images[k]).abs().max()
        if not gap <= 1e3 * torch.finfo(rows.dtype).eps * size:
            raise ValueError(f"{name} mixes the rows of a batch")


def _reaches(call: Callable[[Tensor], Tensor], rows: Tensor) -> bool:
    """Whether torch's gradients reach what a function was called with."""
    x = rows.clone().requires_grad_()
    with torch.enable_grad():
        image = call(x)
    if not image.requires_grad:
        return False
    return torch.autograd.grad(image.abs().sum(), x, allow_unused=True)[0] is not None
