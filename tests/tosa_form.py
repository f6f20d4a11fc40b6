"""Integer programs as TOSA graphs, for Arm's reference model to run: a form that shares no code with the others.

Each value is int32, which TOSA adds, multiplies and compares; MATMUL takes int8 or int16. TOSA has no sums of 48 bits
but those of its int16 products, so a program with wider values is none of it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fanfold.deploy.integer import IntegerProgram
from fanfold.deploy.integer import operations as ops

UNIT = {"INT32": 30, "INT48": 14}  # a RESCALE by 2^unit and then 2^-(unit + shift) is one by 2^-shift


class TosaGraph:
    """The graph of a program for one batch; `run` gives its output."""

    def __init__(self, program: IntegerProgram, batch: int):
        import tosa_serializer as tosa

        wide = [name for name, dtype in program.dtypes.items() if dtype == "int48"]
        if wide:
            raise ValueError(f"{wide[0]} is int48, which TOSA does not add.")
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

    def rescaled(self, source: Any, shift: np.ndarray, shape: list[int], dtype: str = "int32") -> Any:
        unit = UNIT[dtype.upper()]
        parts = [
            self.const(np.full(shift.size, 1 << unit), "int32" if unit == UNIT["INT32"] else "int16"),
            self.const(unit + shift, "int8"),
            self.const(0, dtype),
            self.const(0, "int32"),
        ]
        attribute = (unit == UNIT["INT32"], self.tosa.RoundingMode.SINGLE_ROUND, shift.size > 1, False, False)
        return self.append("RESCALE", [source, *parts], shape, "int32", attribute)

    def written(self, op: ops.Operation, size: int) -> Any:
        shape, sources = [1, self.batch, size], [self.values[name] for name in op.inputs]
        match op:
            case ops.Const():
                return self.row(op.values)
            case ops.MatMul(outer=1, inner=1):
                byte = op.weights.dtype == np.int8 and self.program.dtypes[op.source] == "int8"
                dtype, total = ("int8", "int32") if byte else ("int16", "int48")
                x = self.append("CAST", sources, [1, self.batch, op.weights.shape[1]], dtype)
                weights = self.const(op.weights.T, dtype, [1, *op.weights.T.shape])
                zeros = [self.const(0, dtype), self.const(0, dtype)]
                product = self.append("MATMUL", [x, weights, *zeros], shape, total)
                return product if byte else self.rescaled(product, np.zeros(1, int), shape, total)
            case ops.Rescale():
                left = self.row(1 << np.maximum(-op.shift, 0))
                larger = self.append("MUL", [*sources, left, self.const(0, "int8")], shape, "int32")
                return self.rescaled(larger, np.maximum(op.shift, 0), shape)
            case ops.Clamp():
                raised = self.append(
                    "MAXIMUM", [*sources, self.row(op.low)], shape, "int32", (self.tosa.NanPropagationMode.PROPAGATE,)
                )
                return self.append(
                    "MINIMUM", [raised, self.row(op.high)], shape, "int32", (self.tosa.NanPropagationMode.PROPAGATE,)
                )
            case ops.Add() | ops.Sub():
                return self.append(op.kind, sources, shape, "int32")
            case ops.Mul():
                return self.append("MUL", [*sources, self.const(0, "int8")], shape, "int32")
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
