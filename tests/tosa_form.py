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
            self.values[port.name] = self.append("CAST", [tensor], shape, "int32")
        for op in program.operations:
            self.values[op.name] = self.written(op, program.sizes[op.name])
        for port in program.outputs:
            self.graph.addOutputTensor(self.values[port.name])

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
        shape = [1, self.batch, max(source.shape[2] for source in sources)]
        shifted = [self.const(0, "int8")] if kind == "MUL" else []
        return self.append(kind, [*sources, *shifted], shape, dtype, attribute)

    def bits(self, x: Any, mask: Any) -> Any:
        return self.on("BITWISE_AND", x, self.row(np.asarray(mask)))

    def down(self, x: Any, shift: Any) -> Any:
        return self.on("ARITHMETIC_RIGHT_SHIFT", x, self.row(np.asarray(shift)), attribute=(False,))

    def carried(self, high: Any, low: Any) -> tuple[Any, Any]:
        return self.on("ADD", high, self.down(low, 16)), self.bits(low, 0xFFFF)

    def halves(self, x: Any) -> tuple[Any, Any]:
        """A value of int32, or of two parts, in two parts."""
        return x if isinstance(x, tuple) else (self.down(x, 16), self.bits(x, 0xFFFF))

    def wide(self, op: ops.Operation, sources: list) -> tuple[Any, Any]:
        """What does not fit into int32, or is made of what does not."""
        if isinstance(op, ops.Mul):
            if isinstance(sources[0], tuple) or not self.program.proof.ranges[op.right].magnitude < 1 << 15:
                raise ValueError(f"{op.name} is a product of too many bits.")
            return self.carried(*(self.on("MUL", half, sources[1]) for half in self.halves(sources[0])))
        if isinstance(op, ops.Add | ops.Sub):
            pairs = zip(*map(self.halves, sources))
            return self.carried(*(self.on(op.kind, *pair) for pair in pairs))
        high, low = self.halves(sources[0])
        if isinstance(op, ops.Clamp):
            for end, above in ((op.low, True), (op.high, False)):
                limits = self.row(end >> 16), self.row(end & 0xFFFF)
                (one, one_low), (other, other_low) = ((high, low), limits) if above else (limits, (high, low))
                same, more = (self.on(kind, one, other, dtype="bool") for kind in ("EQUAL", "GREATER"))
                tied = self.on("LOGICAL_AND", same, self.on("GREATER", one_low, other_low, dtype="bool"), dtype="bool")
                keeps = self.on("LOGICAL_OR", more, tied, dtype="bool")
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
        if "int48" in (self.program.dtypes[op.name], *(self.program.dtypes[name] for name in op.inputs)):
            high, low = self.wide(op, sources)
            if self.program.dtypes[op.name] == "int48":
                return high, low
            return self.on("ADD", self.on("MUL", high, self.row(np.array(1 << 16))), low)
        match op:
            case ops.Const():
                return self.row(op.values)
            case ops.MatMul(outer=1, inner=1):
                byte = op.weights.dtype == np.int8 and self.program.dtypes[op.source] == "int8"
                dtype, total = ("int8", "int32") if byte else ("int16", "int48")
                x = self.append("CAST", sources, [1, self.batch, op.weights.shape[1]], dtype)
                weights = self.const(op.weights.T, dtype, [1, *op.weights.T.shape])
                zeros = [self.const(0, dtype), self.const(0, dtype)]
                product = self.append("MATMUL", [x, weights, *zeros], [1, self.batch, size], total)
                return product if byte else self.rescaled(product, np.zeros(1, int), total)
            case ops.Rescale():
                larger = self.on("MUL", *sources, self.row(1 << np.maximum(-op.shift, 0)))
                return self.rescaled(larger, np.maximum(op.shift, 0))
            case ops.Clamp():
                attribute = (self.tosa.NanPropagationMode.PROPAGATE,)
                raised = self.on("MAXIMUM", *sources, self.row(op.low), attribute=attribute)
                return self.on("MINIMUM", raised, self.row(op.high), attribute=attribute)
            case ops.Add() | ops.Sub() | ops.Mul():
                return self.on(op.kind, *sources)
        raise ValueError(f"{op.name} ({op.kind}) has no form here.")

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
