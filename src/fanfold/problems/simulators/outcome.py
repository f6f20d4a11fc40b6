"""What became of one run of a simulator: an observation, or a failure of a named kind."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from fanfold.problems.kinds import AXES

Failure = Literal["crash", "time-out", "non-finite", "wrong shape", "unreadable"]
FAILURES: tuple[Failure, ...] = ("crash", "time-out", "non-finite", "wrong shape", "unreadable")


class Outcome(NamedTuple):
    """Of draw number `index`. Arrays rather than tensors, which do not travel well between processes."""

    index: int
    x: np.ndarray  # (d,)
    y: np.ndarray | None = None  # of the observation's shape; None if the run failed
    failure: Failure | None = None
    detail: str = ""  # what exactly went wrong, one line


def judge(index: int, x: np.ndarray, answer: Any, kind: str, shape: Sequence[int] | None, dtype: str) -> Outcome:
    """What a simulator answered, as an outcome: numbers of the right shape and all finite, or the failure.

    Args:
        index: Of the draw.
        x: Its parameters.
        answer: A tensor, an array or nested lists of numbers, real or complex.
        kind: Of the observation; it says how many axes there are.
        shape: That the observation must have, or None if any with these axes will do.
        dtype: "float32" or "float64"; a complex answer is kept in the same precision.
    """
    try:
        y = numbers(answer, dtype)
    except (TypeError, ValueError) as error:
        return Outcome(index, x, failure="unreadable", detail=one_line(error))
    y = y.reshape(1) if y.ndim == 0 else y
    fits = y.ndim == AXES[kind] and y.size > 0 and (shape is None or y.shape == tuple(shape))
    if not fits:
        wanted = f"{tuple(shape)}" if shape is not None else f"{AXES[kind]} axes"
        return Outcome(index, x, failure="wrong shape", detail=f"{y.shape} instead of {wanted}")
    finite = np.isfinite(y)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        return Outcome(index, x, failure="non-finite", detail=f"{y[first]} at index {first}")
    return Outcome(index, x, y)


def numbers(answer: Any, dtype: str) -> np.ndarray:
    """An answer as an array of the precision, complex if it is.

    Raises:
        TypeError, ValueError: If it is not made of numbers.
    """
    array = answer.detach().cpu().numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"it holds {array.dtype} and not numbers")
    to = np.dtype(dtype)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is a failure of its own
        return array.astype(np.result_type(to, np.complex64) if array.dtype.kind == "c" else to)


def one_line(error: object, most: int = 200) -> str:
    """The last line of a message, not too long."""
    lines = str(error).strip().splitlines()
    name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
    return (name + (lines[-1].strip() if lines else ""))[:most]
