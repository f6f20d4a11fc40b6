"""Writing an integer program: each value gets the narrowest type that is proved to hold it."""

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.intervals import Range
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram, reaching, size_of
from fanfold.deploy.integer.ranges import RangeRow, proved, range_of_type, refuse_unproved

Numbers = int | list[int] | np.ndarray


class Draft:
    """An integer program that is being written, one call an operation.

    A value is its name, a text. Accumulators are int32 where that is proved to be enough and int48 elsewhere; all else
    has the narrowest type that holds it. A method of the name of an operation appends it and returns its value; names
    that are not given are numbers behind the kind.

    Args:
        name: The name of the program.
        taken: Names that no value gets by itself, as one will be given it.

    Raises:
        ValueError: By each method, if the operation does not fit, or not even int48 is proved to hold its value.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Draft
        >>> draft = Draft("soft")
        >>> y = draft.input("y", (4,), "int16", fraction=8)
        >>> x = draft.sub(y, draft.clamp(y, -256, 256), name="x_hat")  # the soft threshold at 1
        >>> draft.output(x, (4,), fraction=8)
        >>> draft.finish().dtypes
        {'y': 'int16', 'clamp0': 'int16', 'x_hat': 'int32'}
    """

    def __init__(self, name: str, taken: Collection[str] = ()):
        self.name, self.taken = name, frozenset(taken)
        self.inputs: list[IntegerPort] = []
        self.outputs: list[IntegerPort] = []
        self.operations: list[ops.Operation] = []
        self.ranges: dict[str, Range] = {}
        self.dtypes: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def input(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Literal["int8", "int16", "int32"],
        fraction: int = 0,
        layout: Literal["real", "iq"] = "real",
        unit: str = "1",
    ) -> str:
        """A port that goes in; the arguments are those of `IntegerPort`."""
        port = IntegerPort(name, shape, dtype, fraction, layout, unit)
        self.inputs.append(port)
        self._note(name, port.size, dtype, range_of_type(dtype, port.size))
        return name

    def output(
        self,
        value: str,
        shape: tuple[int, ...],
        fraction: int = 0,
        layout: Literal["real", "iq"] = "real",
        unit: str = "1",
    ) -> None:
        """A port that shows a value; the arguments are those of `IntegerPort`."""
        dtype: Any = self.dtypes[value]
        self.outputs.append(IntegerPort(value, shape, dtype, fraction, layout, unit))

    def finish(self) -> IntegerProgram:
        """The program; operations that no output depends on are left out."""
        needed = reaching(self.operations, self.outputs)
        operations = tuple(op for op in self.operations if op.name in needed)
        return IntegerProgram(self.name, tuple(self.inputs), operations, tuple(self.outputs))

    def const(self, values: Numbers, name: str | None = None) -> str:
        """Numbers of the program."""
        return self._append(ops.Const(name or self.next_name("const"), _vector(values), "int48"))

    def matmul(self, source: str, weights: np.ndarray, outer: int = 1, inner: int = 1, name: str | None = None) -> str:
        """The product with a matrix of int8 or int16, seen as `MatMul` says."""
        return self._append(ops.MatMul(name or self.next_name("matmul"), source, weights, outer, inner, "int48"))

    def rescale(self, source: str, shift: Numbers, name: str | None = None) -> str:
        """A product with `2^-shift`, rounded half up."""
        return self._append(ops.Rescale(name or self.next_name("rescale"), source, _vector(shift), "int48"))

    def clamp(self, source: str, low: Numbers, high: Numbers, name: str | None = None) -> str:
        """The entries, no lower than `low` and no higher than `high`."""
        return self._append(ops.Clamp(name or self.next_name("clamp"), source, _vector(low), _vector(high), "int48"))

    def lookup(self, source: str, low: int, values: np.ndarray, name: str | None = None) -> str:
        """The entries of a table whose first one is for `low`."""
        return self._append(ops.Lookup(name or self.next_name("lookup"), source, low, values, "int48"))

    def bank(self, source: str, row: str, edges: Numbers, low: int, values: np.ndarray, name: str | None = None) -> str:
        """The entries of one of several tables, which another value picks, as `Bank` says."""
        return self._append(ops.Bank(name or self.next_name("bank"), source, row, _vector(edges), low, values, "int48"))

    def add(self, left: str, right: str, name: str | None = None) -> str:
        """The sum of two values."""
        return self._append(ops.Add(name or self.next_name("add"), left, right, "int48"))

    def sub(self, left: str, right: str, name: str | None = None) -> str:
        """The difference of two values."""
        return self._append(ops.Sub(name or self.next_name("sub"), left, right, "int48"))

    def mul(self, left: str, right: str, name: str | None = None) -> str:
        """The product of two values, entry by entry."""
        return self._append(ops.Mul(name or self.next_name("mul"), left, right, "int48"))

    def transpose(self, source: str, shape: tuple[int, ...], axes: tuple[int, ...], name: str | None = None) -> str:
        """The entries with their axes in another order."""
        return self._append(ops.Transpose(name or self.next_name("transpose"), source, shape, axes))

    def windows(
        self, source: str, shape: tuple[int, int, int], kernel: tuple[int, int], name: str | None = None
    ) -> str:
        """The windows of a picture `(rows, columns, channels)`."""
        return self._append(ops.Windows(name or self.next_name("windows"), source, shape, kernel))

    def join(self, left: str, right: str, outer: int = 1, name: str | None = None) -> str:
        """Two values side by side, each seen as `(outer, columns)`."""
        return self._append(ops.Join(name or self.next_name("join"), left, right, outer, "int48"))

    def copy(self, op: ops.Operation) -> str:
        """An operation of another program, of the same name."""
        return self._append(op)

    def next_name(self, kind: str) -> str:
        """A name that no value has."""
        names = (f"{kind}{k}" for k in itertools.count())
        return next(name for name in names if name not in self.sizes and name not in self.taken)

    def _append(self, op: ops.Operation) -> str:
        """Append an operation with the narrowest type that is proved to hold its value."""
        if unknown := [name for name in op.inputs if name not in self.sizes]:
            raise ValueError(f"{op.name} takes {unknown[0]}, which is none of {', '.join(list(self.sizes)[-8:])}.")
        size = size_of(op, self.sizes)
        *narrow, widest = self._types(op)
        for dtype in narrow:
            row, result = self._proved(op, dtype)
            if row.holds:
                break
        else:
            dtype, (row, result) = widest, self._proved(op, widest)
            refuse_unproved(row)
        self._note(op.name, size, dtype, result)
        self.operations.append(of_type(op, dtype))
        return op.name

    def _proved(self, op: ops.Operation, dtype: str) -> tuple[RangeRow, Range]:
        return proved(of_type(op, dtype), dtype, [self.ranges[name] for name in op.inputs], self.dtypes)

    def _types(self, op: ops.Operation) -> tuple[str, ...]:
        """The types that its value may have, the narrowest first."""
        if isinstance(op, ops.Moved):
            return (self.dtypes[op.source],)
        return ("int32", "int48") if isinstance(op, ops.MatMul) else tuple(ops.BITS)

    def _note(self, name: str, size: int, dtype: str, values: Range) -> None:
        if name in self.sizes:
            raise ValueError(f"{name} is there twice; each value needs a name of its own.")
        self.sizes[name], self.dtypes[name], self.ranges[name] = size, dtype, values


def of_type(op: Any, dtype: str) -> ops.Operation:
    """The operation, its value of this type; one that is moved keeps that of its source."""
    return op if isinstance(op, ops.Moved) else replace(op, dtype=dtype)


def _vector(values: Numbers) -> np.ndarray:
    """One number or several, as an array of one axis."""
    return np.atleast_1d(np.asarray(values))
