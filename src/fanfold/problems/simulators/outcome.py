"""What became of one run of a simulator: an observation, or a failure of a named kind."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from fanfold.problems.kinds import AXES

Failure = Literal["crash", "time-out", "too large", "non-finite", "wrong shape", "unreadable"]
DETAIL_LENGTH = 200  # letters of a detail at most


class Outcome(NamedTuple):
    """What became of one draw. It holds arrays rather than tensors, which do not travel well between processes.

    Attributes:
        index: The number of the draw.
        x: Its parameters, `(d,)`.
        y: Its observation, of the observation's shape; None if the run failed.
        failure: The kind of the failure; None if the run succeeded.
        detail: What exactly went wrong, in one line.

    Example:
        >>> import numpy as np
        >>> from fanfold.problems.simulators.outcome import judge
        >>> judge(3, np.zeros(2), [1.0, float("nan")], "vector", None, "float32").failure
        'non-finite'
    """

    index: int
    x: np.ndarray
    y: np.ndarray | None = None
    failure: Failure | None = None
    detail: str = ""


def judge(index: int, x: np.ndarray, answer: Any, kind: str, shape: Sequence[int] | None, dtype: str) -> Outcome:
    """What a simulator answered, as an outcome: numbers of the right shape and all finite, or the failure.

    Args:
        index: The number of the draw.
        x: Its parameters.
        answer: A tensor, an array or nested lists of numbers, real or complex.
        kind: The kind of the observation, which says how many axes there are.
        shape: The shape that the observation must have, or None if any with these axes will do.
        dtype: "float32" or "float64"; a complex answer is kept in the same precision.
    """
    try:
        y = numbers(answer, dtype)
    except Exception as error:  # an object of the simulator's own may raise anything when it is asked for numbers
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
    """An answer as an array of that precision, complex where the answer is.

    Raises:
        TypeError: If it is not made of numbers.
        ValueError: If it has not the same number of entries along an axis everywhere.
    """
    array = _array_of(answer) if isinstance(answer, torch.Tensor) else np.asarray(answer)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"it holds {array.dtype} and not numbers")
    precision = np.dtype(dtype)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is a failure of its own
        return array.astype(np.result_type(precision, np.complex64) if array.dtype.kind == "c" else precision)


def _array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array, in single precision where NumPy has not its own."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def one_line(message: object) -> str:
    """The last line of a message or an exception, the latter after its name, cut where it is too long.

    What a terminal would obey rather than show becomes a replacement character.
    """
    lines = str(message).strip().splitlines()
    name = f"{type(message).__name__}: " if isinstance(message, BaseException) else ""
    line = (name + (lines[-1].strip() if lines else ""))[:DETAIL_LENGTH]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
