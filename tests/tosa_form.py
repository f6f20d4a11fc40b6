"""Integer programs as TOSA graphs, for Arm's reference model to run: a form that shares no code with the others.

Each value is int32, which TOSA adds, multiplies and compares; MATMUL takes int8 or int16. TOSA has no sums of 48 bits
but those of its int16 products, so a wider value is two, `high * 2^16 + low` with `0 <= low < 2^16`. Products that may
not fit into int32 have no such form here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fanfold.deploy.integer import IntegerProgram
from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.intervals import rounding

UNIT = {"INT32": 30, "INT48": 14}  # a RESCALE by 2^unit and then 2^-(unit + shift) is one by 2^-shift


class TosaGraph:
    """The graph of a program for one batch; `run` gives its output."""

    def __init__(self, program: IntegerProgram, batch: int):
        import tosa_serializer as tosa

        self.tosa, self.batch, self.program = tosa, batch, program
        self.graph = tosa.TosaSerializer()
        self.values: dict[str, Any] = {}
        for port in program.inputs:
            shape, dtype = [1, batch, port.size], self.dtype(port.dtype)
            tensor = self.graph.addPlaceholder(shape, dtype, None)
            whole = port.dtype == "int32"
            self.values[port.name] = tensor if whole else self.append("CAST", [tensor], shape, "int32")
        for op in program.operations:
            self.values[op.name] = self.written(op, program.sizes[op.name])
        for port in program.outputs:
            self.graph.addOutputTensor(self.spread(self.values[port.name], port.size))

    def dtype(self, name: str) -> Any:
        return self.tosa.DType.__members__[name.upper()]

    def append(self, kind: str, sources: list, shape: list[int], dtype: str, attribute: tuple = ()) -> Any:
        result = self.graph.addIntermediate(shape, self.dtype(dtype))
        made = self.tosa.TosaSerializerAttribute()
        words = "".join(word.capitalize() for word in kind.split("_"))
        getattr(made, {"Matmul": "MatMul"}.get(words, words) + "Attribute")(*attribute)
        self.graph.addOperator(self.tosa.Op.__members__[kind], [s.name for s in sources], [result.name], made)
        return result

    def const(self, numbers: Any, dtype: str, shape: list[int] | None = None) -> Any:
        numbers = np.asarray(numbers).reshape(-1)
        return self.graph.addConst(shape or [numbers.size], self.dtype(dtype), numbers)

    def row(self, numbers: np.ndarray) -> Any:
        return self.const(numbers, "int32", [1, 1, numbers.size])

    def rescaled(self, source: Any, shift: np.ndarray, dtype: str = "int32") -> Any:
        unit = UNIT[dtype.upper()]
        parts = [
            self.const(np.full(shift.size, 1 << unit), "int32" if unit == UNIT["INT32"] else "int16"),
            self.const(unit + shift, "int8"),
            self.const(0, dtype),
            self.const(0, "int32"),
        ]
        attribute = (unit == UNIT["INT32"], self.tosa.RoundingMode.SINGLE_ROUND, shift.size > 1, False, False)
        return self.append("RESCALE", [source, *parts], source.shape, "int32", attribute)

    def on(self, kind: str, *sources: Any, attribute: tuple = (), dtype: str = "int32") -> Any:
        """An operation on values entry by entry."""
        shape = [1, *(max(source.shape[axis] for source in sources) for axis in (1, 2))]
        shifted = [self.const(0, "int8")] if kind == "MUL" else []
        return self.append(kind, [*sources, *shifted], shape, dtype, attribute)

    def bits(self, x: Any, mask: Any) -> Any:
        return self.on("BITWISE_AND", x, self.row(np.asarray(mask)))

    def down(self, x: Any, shift: Any) -> Any:
        if not np.any(shift):
            return x
        return self.on("ARITHMETIC_RIGHT_SHIFT", x, self.row(np.asarray(shift)), attribute=(False,))

    def carried(self, high: Any, low: Any) -> tuple[Any, Any]:
        return self.on("ADD", high, self.down(low, 16)), self.bits(low, 0xFFFF)

    def halves(self, x: Any) -> tuple[Any, Any]:
        """A value of int32, or of two parts, in two parts."""
        return x if isinstance(x, tuple) else (self.down(x, 16), self.bits(x, 0xFFFF))

    def wide(self, op: ops.Operation, sources: list) -> tuple[Any, Any]:
        """What does not fit into int32, or is made of what does not."""
        if isinstance(op, ops.Mul):
            sizes = [self.program.proof.ranges[name].magnitude for name in op.inputs]
            if isinstance(sources[0], tuple) and isinstance(sources[1], tuple):
                raise ValueError(f"{op.name} is a product of too many bits.")
            right = int(isinstance(sources[0], tuple) or (sizes[1] < sizes[0] and not isinstance(sources[1], tuple)))
            left, factor = self.halves(sources[1 - right]), sources[right]
            first = max(0, (sizes[right].bit_length() + 1 - 9) // 8 * 8)  # byte by byte, the first with its sign
            total = self.carried(*(self.on("MUL", half, self.down(factor, first)) for half in left))
            for at in range(first - 8, -8, -8):
                larger = (self.on("MUL", part, self.row(np.array(1 << 8))) for part in total)
                byte = self.bits(self.down(factor, at), 0xFF)
                part = self.carried(*(self.on("MUL", half, byte) for half in left))
                total = self.carried(*(self.on("ADD", *pair) for pair in zip(larger, part)))
            return total
        if isinstance(op, ops.Add | ops.Sub):
            pairs = zip(*map(self.halves, sources))
            return self.carried(*(self.on(op.kind, *pair) for pair in pairs))
        if isinstance(op, ops.Const):
            return self.row(op.values >> 16), self.row(op.values & 0xFFFF)
        if isinstance(op, ops.MatMul):  # byte by byte, from the upper one down
            first = ops.BITS[self.program.dtypes[op.source]] - 8
            high, low = self.halves(self.product(op, self.down(sources[0], first), words=True))
            for at in range(first - 8, -8, -8):
                larger = (self.on("MUL", part, self.row(np.array(1 << 8))) for part in (high, low))
                part = self.halves(self.product(op, self.bits(self.down(sources[0], at), 0xFF), words=True))
                high, low = self.carried(*(self.on("ADD", *pair) for pair in zip(larger, part)))
            return high, low
        if isinstance(op, ops.Transpose | ops.Windows | ops.Join):
            high, low = (self.moved(op, *halves) for halves in zip(*map(self.halves, sources)))
            return high, low
        high, low = self.halves(sources[0])
        if isinstance(op, ops.Clamp):
            for end, above in ((op.low, True), (op.high, False)):
                limits = self.row(end >> 16), self.row(end & 0xFFFF)
                (one, one_low), (other, other_low) = ((high, low), limits) if above else (limits, (high, low))
                keeps = self.greater((one, one_low), (other, other_low))
                high, low = (self.on("SELECT", keeps, *pair) for pair in zip((high, low), limits))
            return high, low
        if not isinstance(op, ops.Rescale):
            raise ValueError(f"{op.name} ({op.kind}) has no form of two parts here.")
        left, right, half = np.maximum(-op.shift, 0), np.maximum(op.shift, 0), rounding(op.shift)
        while left.any():
            part = np.minimum(left, 15)
            high, low = self.carried(*(self.on("MUL", x, self.row(1 << part)) for x in (high, low)))
            left = left - part
        high, low = self.carried(
            self.on("ADD", high, self.row(half >> 16)), self.on("ADD", low, self.row(half & 0xFFFF))
        )
        while right.any():
            part = np.minimum(right, 15)
            lost = self.on("MUL", self.bits(high, (1 << part) - 1), self.row(1 << (16 - part)))
            high, low = self.down(high, part), self.on("ADD", self.down(low, part), lost)
            right = right - part
        return high, low

    def written(self, op: ops.Operation, size: int) -> Any:
        sources = [self.values[name] for name in op.inputs]
        wide = "int48" in (self.program.dtypes[op.name], *(self.program.dtypes[name] for name in op.inputs))
        wide |= isinstance(op, ops.MatMul) and self.program.dtypes[op.source] == "int32"
        # a RESCALE takes no more bits than its shift has
        wide |= isinstance(op, ops.Rescale) and self.program.proof.ranges[op.source].magnitude >= 1 << UNIT["INT32"] - 1
        if wide and not isinstance(op, ops.Bank):
            high, low = self.wide(op, sources)
            if self.program.dtypes[op.name] == "int48":
                return high, low
            return self.on("ADD", self.on("MUL", high, self.row(np.array(1 << 16))), low)
        match op:
            case ops.Const():
                return self.row(op.values)
            case ops.MatMul():
                return self.product(op, *sources)
            case ops.Lookup():
                return self.looked_up(op.values, op.low, *sources)
            case ops.Bank():
                return self.looked_up(op.values.ravel(), op.low, sources[0], self.first_of_row(op, sources[1]))
            case ops.Transpose() | ops.Windows() | ops.Join():
                return self.moved(op, *sources)
            case ops.Rescale():
                larger = self.on("MUL", *sources, self.row(1 << np.maximum(-op.shift, 0)))
                return self.rescaled(larger, np.maximum(op.shift, 0)) if (op.shift > 0).any() else larger
            case ops.Clamp():
                attribute = (self.tosa.NanPropagationMode.PROPAGATE,)
                raised = self.on("MAXIMUM", *sources, self.row(op.low), attribute=attribute)
                return self.on("MINIMUM", raised, self.row(op.high), attribute=attribute)
            case ops.Add() | ops.Sub() | ops.Mul():
                return self.on(op.kind, *sources)
        raise ValueError(f"{op.name} ({op.kind}) has no form here.")

    def seen(self, x: Any, *shape: int) -> Any:
        """The same entries in another shape."""
        to = self.graph.addConst([len(shape)], self.dtype("shape"), list(shape))
        return self.append("RESHAPE", [x, to], list(shape), "int32")

    def turned(self, x: Any, axes: list[int]) -> Any:
        return self.append("TRANSPOSE", [x], [x.shape[axis] for axis in axes], "int32", (axes,))

    def side_by_side(self, parts: list, axis: int) -> Any:
        shape = [*parts[0].shape]
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.append("CONCAT", parts, shape, "int32", (axis,))

    def spread(self, x: Any, size: int) -> Any:
        """A value with its batch and all its entries: numbers of the program have none."""
        if x.shape[1:] == [self.batch, size]:
            return x
        zeros = self.const(np.zeros(self.batch * size, int), "int32", [1, self.batch, size])
        return self.on("ADD", x, zeros)

    def greater(self, one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
        """Whether a value of two parts is greater than another."""
        same, more = (self.on(kind, one[0], other[0], dtype="bool") for kind in ("EQUAL", "GREATER"))
        tied = self.on("LOGICAL_AND", same, self.on("GREATER", one[1], other[1], dtype="bool"), dtype="bool")
        return self.on("LOGICAL_OR", more, tied, dtype="bool")

    def moved(self, op: ops.Operation, *sources: Any) -> Any:
        """What computes nothing."""
        size = self.program.sizes[op.name]
        if isinstance(op, ops.Windows):
            return self.windows(op, *sources)
        if isinstance(op, ops.Transpose):
            left = [axis for axis in range(len(op.shape)) if op.shape[axis] > 1]  # TOSA takes six, and one is the batch
            seen = self.seen(self.spread(sources[0], size), self.batch, *(op.shape[axis] for axis in left))
            axes = [0, *(1 + left.index(axis) for axis in op.axes if axis in left)]
            return self.seen(self.turned(seen, axes), 1, self.batch, size)
        assert isinstance(op, ops.Join)
        sizes = [self.program.sizes[name] for name in op.inputs]
        seen = [self.seen(self.spread(x, n), self.batch, op.outer, n // op.outer) for x, n in zip(sources, sizes)]
        return self.seen(self.side_by_side(seen, 2), 1, self.batch, size)

    def product(self, op: ops.MatMul, source: Any, *, words: bool = False) -> Any:
        byte = not words and op.weights.dtype == np.int8 and self.program.dtypes[op.source] == "int8"
        dtype, total = ("int8", "int32") if byte else ("int16", "int48")
        (rows, columns), places = op.weights.shape, self.batch * op.outer * op.inner
        x = self.spread(source, op.outer * columns * op.inner)
        x = self.seen(x, self.batch * op.outer, columns, op.inner)
        x = self.seen(self.turned(x, [0, 2, 1]), 1, places, columns)
        x = self.append("CAST", [x], [1, places, columns], dtype)
        weights = self.const(op.weights.T, dtype, [1, columns, rows])
        product = self.append("MATMUL", [x, weights, *(self.const(0, dtype) for _ in "ab")], [1, places, rows], total)
        if not byte:
            product = self.rescaled(product, np.zeros(1, int), total)
        turned = self.turned(self.seen(product, self.batch * op.outer, op.inner, rows), [0, 2, 1])
        return self.seen(turned, 1, self.batch, op.outer * rows * op.inner)

    def looked_up(self, values: np.ndarray, low: int, x: Any, first: Any = None) -> Any:
        index = self.on("SUB", x, self.row(np.array(low)))
        index = self.on("ADD", index, first) if first else index
        batch, size = index.shape[1:]
        table = self.const(values, "int32", [1, values.size, 1])
        entries = self.append("GATHER", [table, self.seen(index, 1, batch * size)], [1, batch * size, 1], "int32")
        return self.seen(entries, 1, batch, size)

    def first_of_row(self, op: ops.Bank, row: Any) -> Any:
        """Where in the tables, one after the other, that one begins whose edges a value reaches."""
        high, low = (self.seen(half, 1, half.shape[1] * half.shape[2], 1) for half in self.halves(row))
        edges = self.row((op.edges - 1) >> 16), self.row((op.edges - 1) & 0xFFFF)
        step, none = (self.row(np.array(n)) for n in (op.values.shape[1], 0))
        steps = self.on("SELECT", self.greater((high, low), edges), step, none)
        total = self.append("REDUCE_SUM", [steps], [1, steps.shape[1], 1], "int32", (2,))
        return self.seen(total, 1, *self.halves(row)[0].shape[1:])

    def windows(self, op: ops.Windows, x: Any) -> Any:
        (rows, columns, channels), (h, w) = op.shape, op.kernel
        around = self.graph.addConst([8], self.dtype("shape"), [0, 0, h // 2, h // 2, w // 2, w // 2, 0, 0])
        shape = [self.batch, rows + h - 1, columns + w - 1, channels]
        x = self.seen(self.spread(x, rows * columns * channels), self.batch, *op.shape)
        picture = self.append("PAD", [x, around, self.const(0, "int32")], shape, "int32")
        ends = [
            [self.graph.addConst([4], self.dtype("shape"), part) for part in ([0, i, j, 0], [self.batch, *op.shape])]
            for i in range(h)
            for j in range(w)
        ]
        shifted = [self.append("SLICE", [picture, *end], [self.batch, *op.shape], "int32") for end in ends]
        return self.seen(self.side_by_side(shifted, 3), 1, self.batch, op.window * rows * columns)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs, as `play` gives them, by the reference model."""
        import tosa_reference_model

        given = [inputs[port.name].reshape(1, self.batch, -1).astype(port.dtype) for port in self.program.inputs]
        outputs, status = tosa_reference_model.run(bytes(self.graph.serialize()), given)
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            raise ValueError(f"the reference model says {status}.")
        return {
            port.name: output.view(np.int32).reshape(-1, *port.shape).astype(port.dtype)
            for port, output in zip(self.program.outputs, outputs)
        }
