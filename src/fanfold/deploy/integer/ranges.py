"""The proof that no value and no partial sum of an integer program overflows, whatever comes in by its ports.

Two bounds are for runtimes: float32 carries whole numbers up to 2^24 and float64 up to 2^53; and 8-bit kernels on
processors without VNNI add neighbouring products of unsigned and signed bytes in int16 and saturate, which
`255 (|w1| + |w2|) <= 32767` for neighbours rules out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fanfold.deploy.integer.intervals import INT48_MOST, Range, UnprovedError, bounded
from fanfold.deploy.integer.operations import MatMul, Operation, highest, lowest

FLOAT32_EXACT = 1 << 24  # whole numbers up to here are exact in float32
PAIR_LIMIT = (1 << 15) - 1  # where 8-bit kernels add two products in int16
BYTE = 255  # the most that an unsigned byte holds
OFFSET = 128  # makes a signed byte an unsigned one


class HasRange(Protocol):
    """A port: what the proof asks of one."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...


class RangeRow(NamedTuple):
    """What is proved of one operation.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Add, Const, IntegerPort, IntegerProgram
        >>> operations = (Const("one", np.array([1]), "int8"), Add("x_hat", "y", "one", "int16"))
        >>> y, x_hat = IntegerPort("y", (1,), "int8"), IntegerPort("x_hat", (1,), "int16")
        >>> IntegerProgram("plus", (y,), operations, (x_hat,)).proof.rows[1].high
        128
    """

    operation: str
    kind: str
    dtype: str  # of the value
    low: int  # the least that the value can be
    high: int  # the greatest
    bound: int  # of everything that is computed on the way, as the type must hold it: max(high, -low - 1)
    limit: int  # of the type that it is computed in
    carrier: str  # the float type that is exact here too: float32 or float64
    pairs: int | None = None  # 255 (|w1| + |w2|) for neighbours, of a product of bytes; None elsewhere

    @property
    def holds(self) -> bool:
        """Whether nothing overflows."""
        return self.bound <= self.limit and lowest(self.dtype) <= self.low and self.high <= highest(self.dtype)

    @property
    def bytes_alone(self) -> bool:
        """Whether an 8-bit kernel computes this product, and does so without saturation on any processor."""
        return self.pairs is not None and self.pairs <= PAIR_LIMIT


class Proof(NamedTuple):
    """The rows of a proof, and the range of each value.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import IntegerPort, IntegerProgram, MatMul
        >>> y, x_hat = IntegerPort("y", (2,), "int8"), IntegerPort("x_hat", (1,), "int32")
        >>> program = IntegerProgram("sum", (y,), (MatMul("x_hat", "y", np.array([[64, 64]], np.int8)),), (x_hat,))
        >>> program.proof.rows[0].bound, program.proof.rows[0].pairs
        (16384, 32640)
    """

    rows: tuple[RangeRow, ...]
    ranges: Mapping[str, Range]


def refuse_unproved(row: RangeRow) -> None:
    """Refuse an operation that may overflow.

    Raises:
        UnprovedError: With the name of the operation, the bound and the limit.
    """
    if row.holds:
        return
    place, bound, limit = f"{row.operation} ({row.kind})", row.bound, row.limit
    if bound > limit:
        advice = "clamp or rescale what goes in"
        advice = advice if limit >= INT48_MOST else f"widen it to int48, or {advice}"
        sentence = f"{place} may reach {bound} and is computed within {limit}; {advice}."
    else:
        bound, limit = max(row.high, -row.low - 1), highest(row.dtype)
        sentence = (
            f"{place} lies within {row.low} to {row.high}, which {row.dtype} does not hold ({lowest(row.dtype)} to "
            f"{limit}); clamp it before, or give it a wider type."
        )
    raise UnprovedError(sentence, row.operation, bound, limit)


def range_of_type(dtype: str, size: int) -> Range:
    """All that a type holds."""
    return Range(np.full(size, lowest(dtype)), np.full(size, highest(dtype)))


def proof_of(
    inputs: Sequence[HasRange],
    operations: Sequence[Operation],
    sizes: Mapping[str, int],
    dtypes: Mapping[str, str],
) -> Proof:
    """Bound every value of a program, whatever comes in by its ports.

    Raises:
        ValueError: If an operation may overflow, an index may lie outside its table, or a shift is too long.
    """
    ranges = {port.name: range_of_type(port.dtype, sizes[port.name]) for port in inputs}
    rows = []
    for op in operations:
        row, ranges[op.name] = proved(op, dtypes[op.name], [ranges[name] for name in op.inputs], dtypes)
        rows.append(row)
        refuse_unproved(row)  # what follows would be bounded by numbers that wrapped
    return Proof(tuple(rows), ranges)


def proved(op: Operation, dtype: str, sources: list[Range], dtypes: Mapping[str, str]) -> tuple[RangeRow, Range]:
    """The row of one operation and the range of its value, from the ranges of what goes in."""
    result, reached = bounded(op, *sources)
    wide = "int48" in (dtype, *(dtypes[name] for name in op.inputs))
    computed = dtype if isinstance(op, MatMul) else "int48" if wide else "int32"
    exact = max([result.magnitude, reached.magnitude, *(source.magnitude for source in sources)])
    carrier = "float32" if exact <= FLOAT32_EXACT else "float64"
    low, high = result.span
    pairs = None
    if isinstance(op, MatMul) and op.weights.dtype == np.int8 and dtypes[op.source] == "int8":
        pairs = neighbours(op.weights)
    bound = max(result.span.in_twos_complement, reached.in_twos_complement)
    return RangeRow(op.name, op.kind, dtype, low, high, bound, highest(computed), carrier, pairs), result


def neighbours(weights: np.ndarray) -> int:
    """`255 max(|w1| + |w2|)` over neighbours in a row of weights."""
    size = np.abs(weights.astype(np.int64))
    together = size[:, :-1] + size[:, 1:] if size.shape[1] > 1 else size
    return BYTE * int(together.max())
