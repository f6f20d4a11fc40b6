"""Interval arithmetic of integer operations, entry by entry. Moore (1966), Interval Analysis, chapter 3.

A product's partial sums are bounded in any order, by `Σ |w| max|x|`, since vector units add in an order of their own.
"""

from functools import singledispatch
from typing import NamedTuple

import numpy as np

from fanfold.deploy.integer import operations as ops

INT48_MOST = ops.highest("int48")  # the widest accumulator
FLOAT64_EXACT = 1 << 53  # whole numbers up to here are exact in float64
MOST_SHIFT = 47


class UnprovedError(ValueError):
    """An operation may overflow: no accumulator is proved to hold what it computes.

    Args:
        sentence: What may be reached, where, and what to do.
        operation: The name of the operation.
        bound: What it may reach.
        limit: The most that what it is computed in holds.

    Example:
        >>> from fanfold.deploy.integer import UnprovedError
        >>> UnprovedError("r may reach 40000", "r", 40000, 32767).operation
        'r'
    """

    def __init__(self, sentence: str, operation: str, bound: int, limit: int):
        super().__init__(sentence)
        self.operation, self.bound, self.limit = operation, bound, limit


class Range(NamedTuple):
    """The least and the greatest value of each entry, `(size,)` each.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer.intervals import Range
        >>> Range(np.array([-4]), np.array([3])).magnitude
        4
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def span(self) -> "Span":
        """The least and the greatest value of all entries."""
        return Span(int(self.low.min()), int(self.high.max()))

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return self.span.magnitude


class Span(NamedTuple):
    """The least and the greatest of some numbers.

    Example:
        >>> from fanfold.deploy.integer.intervals import Span
        >>> Span(-128, 0).magnitude, Span(-128, 0).in_twos_complement
        (128, 127)
    """

    low: int
    high: int

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(-self.low, self.high)

    @property
    def in_twos_complement(self) -> int:
        """The b-bit type that holds them all is that with `2^(b - 1) - 1` at least this."""
        return max(self.high, -self.low - 1)


NOTHING = Span(0, 0)  # beside the result


@singledispatch
def bounded(op: ops.Operation, *sources: Range) -> tuple[Range, Span]:
    """The range of a value, and the span of what is computed on the way to it."""
    raise NotImplementedError(f"{op.kind} has no range; register one in intervals.")


@bounded.register
def _(op: ops.Const) -> tuple[Range, Span]:
    return Range(op.values, op.values), NOTHING


@bounded.register
def _(op: ops.MatMul, source: Range) -> tuple[Range, Span]:
    # in float64, whose sums of so few products of at most 2^30 are exact
    view = (op.outer, op.weights.shape[1], op.inner)
    low, high = (end.reshape(view).astype(np.float64) for end in source)
    positive, negative = np.maximum(op.weights, 0).astype(np.float64), np.minimum(op.weights, 0).astype(np.float64)
    partial = (positive - negative) @ np.maximum(np.abs(low), np.abs(high))
    ends = (positive @ low + negative @ high, positive @ high + negative @ low)
    least, greatest = (end.astype(np.int64).ravel() for end in ends)
    return Range(least, greatest), Span(-int(partial.max()), int(partial.max()))


@bounded.register
def _(op: ops.Rescale, source: Range) -> tuple[Range, Span]:
    if np.abs(op.shift).max() > MOST_SHIFT:
        raise ValueError(f"{op.name} shifts by {np.abs(op.shift).max()} bits; pass at most {MOST_SHIFT}.")
    longest = max(0, -int(op.shift.min()))
    if (reached := source.magnitude << longest) > FLOAT64_EXACT:
        sentence = f"{op.name} shifts {source.magnitude} by {longest} bits to the left, beyond 2^53."
        raise UnprovedError(sentence, op.name, reached, INT48_MOST)
    half = rounding(op.shift)
    halved = Range(source.low + half, source.high + half)
    return Range(rescaled(source.low, op.shift), rescaled(source.high, op.shift)), halved.span


@bounded.register
def _(op: ops.Clamp, source: Range) -> tuple[Range, Span]:
    if (op.low > op.high).any():
        raise ValueError(f"{op.name} clamps from {op.low.max()} to {op.high.min()}; pass low <= high.")
    low, high = (np.minimum(np.maximum(end, op.low), op.high) for end in source)
    return Range(low, high), Range(op.low, op.high).span


@bounded.register
def _(op: ops.Lookup, source: Range) -> tuple[Range, Span]:
    return _looked_up(op, op.low, op.values, source), NOTHING


@bounded.register
def _(op: ops.Bank, source: Range, row: Range) -> tuple[Range, Span]:
    if not op.edges.size:
        raise ValueError(f"{op.name} has no edges, so that nothing is picked; take a table, Lookup.")
    if op.values.shape[0] != op.edges.size + 1 or (np.diff(op.edges) <= 0).any():
        raise ValueError(f"{op.name} has {op.values.shape[0]} rows and edges {op.edges}; pass rows - 1 rising edges.")
    return _looked_up(op, op.low, op.values, source), Range(op.edges, op.edges).span


@bounded.register
def _(op: ops.Add, left: Range, right: Range) -> tuple[Range, Span]:
    return Range(left.low + right.low, left.high + right.high), NOTHING


@bounded.register
def _(op: ops.Sub, left: Range, right: Range) -> tuple[Range, Span]:
    return Range(left.low - right.high, left.high - right.low), NOTHING


@bounded.register
def _(op: ops.Mul, left: Range, right: Range) -> tuple[Range, Span]:
    if (reached := left.magnitude * right.magnitude) > FLOAT64_EXACT:
        sentence = f"{op.name} may reach {reached}, beyond 2^53; rescale before."
        raise UnprovedError(sentence, op.name, reached, INT48_MOST)
    corners = np.stack(np.broadcast_arrays(*(a * b for a in left for b in right)))
    return Range(corners.min(0), corners.max(0)), NOTHING


@bounded.register
def _(op: ops.Transpose, source: Range) -> tuple[Range, Span]:
    low, high = (end.reshape(op.shape).transpose(op.axes).ravel() for end in source)
    return Range(low, high), NOTHING


@bounded.register
def _(op: ops.Windows, source: Range) -> tuple[Range, Span]:
    low, high = (windows_of(op, end[None])[0] for end in source)
    return Range(low, high), NOTHING


@bounded.register
def _(op: ops.Join, left: Range, right: Range) -> tuple[Range, Span]:
    low, high = (joined(op, a[None], b[None])[0] for a, b in zip(left, right))
    return Range(low, high), NOTHING


def windows_of(op: ops.Windows, x: np.ndarray) -> np.ndarray:
    """The windows `(batch, size)` of pictures `(batch, rows · columns · channels)`."""
    (rows, columns, _), (h, w) = op.shape, op.kernel
    around = ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0))
    picture = np.pad(x.reshape(len(x), *op.shape), around)
    shifted = [picture[:, i : i + rows, j : j + columns] for i in range(h) for j in range(w)]
    return np.stack(shifted, 3).reshape(len(x), op.window * op.shape[0] * op.shape[1])


def joined(op: ops.Join, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two values `(batch, size)` side by side."""
    batch = max(len(left), len(right))  # what no input reaches has no batch
    rows = [(batch, op.outer, x.shape[1] // op.outer) for x in (left, right)]
    seen = [np.broadcast_to(x, (batch, x.shape[1])).reshape(shape) for x, shape in zip((left, right), rows)]
    return np.concatenate(seen, 2).reshape(batch, left.shape[1] + right.shape[1])


def _looked_up(op: ops.Operation, low: int, values: np.ndarray, source: Range) -> Range:
    first, last = int(source.low.min()) - low, int(source.high.max()) - low
    entries = values.shape[-1]
    if not 0 <= first <= last < entries:
        raise ValueError(
            f"{op.name} looks up {first + low} to {last + low} in a table for {low} to {low + entries - 1}; clamp what "
            "goes in, or pass a longer table."
        )
    reached = values[..., first : last + 1]
    return Range(np.full(source.low.size, reached.min()), np.full(source.low.size, reached.max()))


def rounding(shift: np.ndarray) -> np.ndarray:
    """The half that is added before a shift to the right: `1 << (s - 1)`, and 0 where nothing is shifted out."""
    return np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)


def rescaled(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """`(x + (1 << (s - 1))) >> s`, and `x << -s` where s is not positive; whole numbers of 64 bits."""
    return ((x + rounding(shift)) >> np.maximum(shift, 0)) << np.maximum(-shift, 0)
