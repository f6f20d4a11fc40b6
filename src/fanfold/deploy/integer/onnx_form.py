"""An integer program as an ONNX file, whose bits in a runtime are the player's; one file, a few nodes an operation.

Products of bytes that no kernel saturates are `MatMulInteger`; all else is in float32 or float64, as the proof says of
each operation. A rescale is `Floor(x 2^-s + 1/2)`. Where a clamp follows and a product takes the value as unsigned
bytes, both are `QuantizeLinear`, whose ties go to even: of what is never half way; else the floor is that of the cast,
since nothing is negative there. Bytes and their products become numbers again by `DequantizeLinear`: ONNX Runtime
leaves out a cast to bytes and back.
"""

import json
from collections.abc import Sequence
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import numpy as np

from fanfold.core.files import write_whole
from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.intervals import rounding
from fanfold.deploy.integer.onnx_sums import CARRIERS, ScaledSums, clipped
from fanfold.deploy.integer.operations import highest, lowest
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram
from fanfold.deploy.integer.ranges import OFFSET
from fanfold.deploy.integer.single_precision import DIGIT, fits_single_precision

OPSET = 17
IR_VERSION = 8  # what runtimes of 2022 read


def program_to_onnx(program: IntegerProgram, path: str | Path) -> Path:
    """Write a program as an ONNX file, inputs and outputs `(batch, *shape)` of whole numbers, for any batch.

    The metadata say the shape, Q format, layout and unit of each port. The same program gives the same bytes.

    Raises:
        ImportError: If ONNX is not installed.
        OSError: If the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from fanfold.deploy.integer import Draft, program_to_onnx
        >>> draft = Draft("half")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (4,))
        >>> program_to_onnx(draft.finish(), pathlib.Path(tempfile.mkdtemp(), "half.onnx")).suffix
        '.onnx'
    """
    write_whole(Path(path), onnx_model(program).SerializeToString(deterministic=True))
    return Path(path)


def onnx_model(program: IntegerProgram) -> Any:
    """The program as an `onnx.ModelProto`.

    Raises:
        ImportError: If ONNX is not installed.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise ImportError("ONNX files need onnx: pip install 'fanfold[export]'") from error
    nodes, numbers = _Graph(program).needed()
    inputs, outputs = (
        [helper.make_tensor_value_info(port.name, _type(port.dtype), ["batch", *port.shape]) for port in ports]
        for ports in (program.inputs, program.outputs)
    )
    model = helper.make_model(
        helper.make_graph(nodes, program.name, inputs, outputs, numbers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fanfold",
        ir_version=IR_VERSION,
    )
    helper.set_model_props(
        model, {f"port.{port.name}": port_facts(port) for port in (*program.inputs, *program.outputs)}
    )
    onnx.checker.check_model(model)
    return model


def port_facts(port: IntegerPort) -> str:
    """A port in JSON: its type, shape, Q format, layout and unit."""
    facts = {"dtype": port.dtype, "shape": port.shape, "q": port.q_format, "layout": port.layout, "unit": port.unit}
    return json.dumps(facts)


def _type(dtype: str) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class _Graph:
    """The nodes of a program; each value is a tensor `(batch, size)` and the type that it has there."""

    def __init__(self, program: IntegerProgram):
        self.program, self.nodes, self.numbers = program, [], []
        self.named: dict[tuple, str] = {}  # numbers by their content
        self.rows = {row.operation: row for row in program.proof.rows}
        self.operations = {op.name: op for op in program.operations}
        self.ranges = dict(program.proof.ranges)
        self.values: dict[tuple[str, str], str] = {}  # value and type -> tensor
        self.types: dict[str, str] = {}  # the type that it was computed in
        self.bytes: dict[str, str] = {}  # value -> tensor of bytes, 128 more
        self.products: dict[str, str] = {}  # product of bytes -> tensor of int32
        self.multiplied = {  # values that a product takes as bytes
            op.source for op in program.operations if isinstance(op, ops.MatMul) and self.rows[op.name].bytes_alone
        }
        # OpenVINO rounds otherwise where `QuantizeLinear` stands beside products of bytes in floating point
        self.quantises = all(row.pairs is None or row.bytes_alone for row in program.proof.rows)
        self.outputs = {port.name for port in program.outputs}
        self.single = fits_single_precision(program)
        self.carriers = {"float32": CARRIERS["float32"]} if self.single else CARRIERS
        self.varying = {port.name for port in program.inputs}  # values that some input reaches
        self.batch = ""
        self.sums = ScaledSums(self)
        for port in program.inputs:
            self._keep(port.name, port.dtype, self._flat(port))
        for op in program.operations:
            self.varying |= {op.name} if self.varying & set(op.inputs) else set()
            if op.name not in self.sums.within:  # what is part of a sum alone is written by those who take the sum
                self.add(op)
        for port in program.outputs:
            self._output(port)

    def needed(self) -> tuple[list[Any], list[Any]]:
        """The nodes that outputs depend on, and the numbers that these take."""
        wanted, nodes = {port.name for port in self.program.outputs}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                nodes.append(node)
        return nodes[::-1], [number for number in self.numbers if number.name in wanted]

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], f"n{len(self.nodes)}", **attributes))
        return output

    def number(self, values: Any, dtype: str) -> str:
        from onnx import numpy_helper

        array = np.ascontiguousarray(values).astype(dtype).reshape(np.shape(values))
        if ops.content(array) not in self.named:
            self.named[ops.content(array)] = f"c{len(self.numbers)}"
            self.numbers.append(numpy_helper.from_array(array, self.named[ops.content(array)]))
        return self.named[ops.content(array)]

    def source(self, name: str, dtype: str) -> str:
        """A value in a type."""
        if name not in self.types:
            self.add(self.operations[name])
        if (name, dtype) not in self.values:
            there = self.values[name, self.types[name]]
            if self.types[name] == "int16" and self.multiplied:
                there = self.cast(there, "int32")  # OpenVINO has no `QuantizeLinear` that goes back to 16 bits
            self.values[name, dtype] = self.cast(there, dtype)
        return self.values[name, dtype]

    def sources(self, op: ops.Operation) -> list[str]:
        return [self.source(name, self.carrier(op)) for name in op.inputs]

    def carrier(self, op: ops.Operation) -> str:
        return self.rows[op.name].carrier

    def cast(self, tensor: str, dtype: str) -> str:
        return self.node("Cast", [tensor], to=_type(dtype))

    def _batch_size(self) -> str:
        if not self.batch:
            shape = self.node("Shape", [self.program.inputs[0].name])
            self.batch = self.node("Slice", [shape, *(self.number([n], "int64") for n in (0, 1))])
        return self.batch

    def _keep(self, name: str, dtype: str, tensor: str) -> None:
        self.values[name, dtype], self.types[name] = tensor, dtype

    def _keep_bytes(self, name: str, tensor: str) -> None:
        self.bytes[name] = tensor
        numbers = [self.number(1.0, "float32"), self.number(OFFSET, "uint8")]
        self._keep(name, "float32", self.node("DequantizeLinear", [tensor, *numbers]))

    def _reshape(self, tensor: str, *shape: int) -> str:
        return self.node("Reshape", [tensor, self.number([-1, *shape], "int64")])

    def _flat(self, port: IntegerPort) -> str:
        return port.name if len(port.shape) == 1 else self._reshape(port.name, port.size)

    def _batched(self, tensor: str, size: int) -> str:
        """A tensor with the batch of the first input: what no input reaches has none."""
        shape = self.node("Concat", [self._batch_size(), self.number([size], "int64")], axis=0)
        return self.node("Expand", [tensor, shape])

    def _output(self, port: IntegerPort) -> None:
        whole = self.source(port.name, port.dtype)
        if port.name not in self.varying:  # it has no batch yet
            whole = self._batched(whole, port.size)
        self.node("Reshape", [whole, self.number([-1, *port.shape], "int64")], port.name)

    @singledispatchmethod
    def add(self, op: ops.Operation) -> None:
        raise NotImplementedError(f"{op.kind} has no nodes; register them in onnx_form.")

    @add.register
    def _(self, op: ops.Const) -> None:
        self._keep(op.name, self.carrier(op), self.number(op.values[None], self.carrier(op)))

    @add.register
    def _(self, op: ops.MatMul) -> None:
        rows, columns = op.weights.shape
        of_bytes = self.rows[op.name].bytes_alone
        if (squared := self._summed_squares(op)) is not None:
            x = self.source(squared, self.carrier(op))
            return self._keep(op.name, self.carrier(op), self.node("ReduceSumSquare", [x], axes=[1]))
        dtype = "int8" if of_bytes else self.carrier(op)
        seen, zero = self._unsigned(op.source) if of_bytes else (self.source(op.source, dtype), [])
        if op.inner > 1:  # the value goes first: kernels take its bytes as unsigned, and pairs of weights are bounded
            seen = self.node("Transpose", [self._reshape(seen, columns, op.inner)], perm=[0, 2, 1])
        rows_of = seen if (op.outer, op.inner) == (1, 1) else self._reshape(seen, columns)
        factors = [rows_of, self.number(op.weights.T, dtype), *zero]
        product = self.node("MatMulInteger" if of_bytes else "MatMul", factors)
        if op.inner > 1:
            product = self.node("Transpose", [self._reshape(product, op.inner, rows)], perm=[0, 2, 1])
        if rows_of != seen:
            product = self._reshape(product, op.outer * rows * op.inner)
        self._keep(op.name, "int32" if of_bytes else dtype, product)
        if of_bytes:
            self.products[op.name] = product
        return None

    def _summed_squares(self, op: ops.MatMul) -> str | None:
        """The value whose squares are summed, if that is all that a product does."""
        before, all_of_it = self.operations.get(op.source), (op.outer, op.inner, len(op.weights)) == (1, 1, 1)
        if isinstance(before, ops.Mul) and before.left == before.right and all_of_it and (op.weights == 1).all():
            return before.left
        return None

    def _unsigned(self, name: str) -> tuple[str, list[str]]:
        """Bytes plus 128, and that zero point: ONNX Runtime multiplies unsigned ones 30 times faster than signed."""
        if name not in self.bytes:
            above = self.node("Add", [self.source(name, "float32"), self.number(OFFSET, "float32")])
            self.bytes[name] = self.cast(above, "uint8")
        return self.bytes[name], [self.number(OFFSET, "uint8")]

    @add.register
    def _(self, op: ops.Rescale) -> None:
        if self.single and self.carrier(op) != "float32":
            return self._keep(op.name, "float32", self._rescaled_port(op))
        if sum_ := self.sums.write(op.source, np.ldexp(1.0, -op.shift), 0.5 if (op.shift > 0).any() else 0.0):
            tensor, dtype = sum_
            return self._keep(op.name, dtype, self.node("Floor", [tensor]) if (op.shift > 0).any() else tensor)
        (x,), dtype = self.sources(op), self.carrier(op)
        scaled = self.node("Mul", [x, self.number(np.ldexp(1.0, -op.shift), dtype)])
        if (op.shift > 0).any():
            half = self.number(np.ldexp(rounding(op.shift).astype(float), -op.shift), dtype)
            scaled = self.node("Floor", [self.node("Add", [scaled, half])])
        return self._keep(op.name, dtype, scaled)

    def _rescaled_port(self, op: ops.Rescale) -> str:
        """A rescale of a port of 32 bits without double precision: a digit and the others, from whole numbers."""
        port, shift, digit = self.source(op.source, "int32"), int(op.shift[0]), DIGIT
        scaled = self.node("Mul", [self.cast(port, "float32"), self.number(2.0**-digit, "float32")])
        high = self.node("Floor", [scaled])  # of what was rounded, so that the others may be a bit more, or below 0
        above = self.node("Mul", [self.cast(high, "int32"), self.number(1 << digit, "int32")])
        low = self.cast(self.node("Sub", [port, above]), "float32")
        if shift <= digit:
            high = self.node("Mul", [high, self.number(2.0 ** (digit - shift), "float32")])
            return self.node("Add", [high, self._half_up(low, 2.0**-shift)])
        carried = self.node("Floor", [self.node("Mul", [low, self.number(2.0**-digit, "float32")])])
        return self._half_up(self.node("Add", [high, carried]), 2.0 ** (digit - shift))

    def _half_up(self, tensor: str, factor: float) -> str:
        scaled = self.node("Mul", [tensor, self.number(factor, "float32")])
        return self.node("Floor", [self.node("Add", [scaled, self.number(0.5, "float32")])])

    @add.register
    def _(self, op: ops.Clamp) -> None:
        as_bytes = op.name in self.multiplied
        if as_bytes and (rounded := self._rounded_to_bytes(op)):
            return self._keep_bytes(op.name, rounded)
        if sum_ := self._clamped(op, OFFSET if as_bytes else 0):
            tensor, dtype, rounds = sum_
            if as_bytes:  # nothing is below 0, so that the cast rounds down
                return self._keep_bytes(op.name, self.cast(tensor, "uint8"))
            return self._keep(op.name, dtype, self.node("Floor", [tensor]) if rounds else tensor)
        (x,), dtype = self.sources(op), self.carrier(op)
        return self._keep(op.name, dtype, clipped(self, x, op.low, op.high, dtype))

    def _rounded_to_bytes(self, op: ops.Clamp) -> str | None:
        """The bytes of a clamp that takes all of them and follows a rescale, by one node; None where that is not so."""
        before = self.operations.get(op.source)
        if not self.quantises or not isinstance(before, ops.Rescale):
            return None
        if (op.low != lowest("int8")).any() or (op.high != highest("int8")).any():
            return None
        return self.sums.to_bytes(before.source, np.ldexp(1.0, -before.shift))

    def _clamped(self, op: ops.Clamp, offset: int) -> tuple[str, str, bool] | None:
        """What rounds down to the clamped value plus an offset, its type, and whether it is not round yet."""
        source, before = op.source, self.operations.get(op.source)
        factor, rounds = np.ones(1), isinstance(before, ops.Rescale)
        if isinstance(before, ops.Rescale):
            source, factor = before.source, np.ldexp(1.0, -before.shift)
        sum_ = self.sums.write(source, factor, offset + (0.5 if rounds else 0.0))
        if sum_ is None:
            return None
        return clipped(self, sum_[0], op.low + offset, op.high + offset, sum_[1]), sum_[1], rounds

    @add.register
    def _(self, op: ops.Lookup) -> None:
        self._keep(op.name, self.carrier(op), self.table(op.name, 1.0, self.carrier(op)))

    @add.register
    def _(self, op: ops.Bank) -> None:
        self._keep(op.name, self.carrier(op), self.table(op.name, 1.0, self.carrier(op)))

    def table(self, name: str, factor: float, dtype: str) -> str:
        """The entries of a table or of a bank, times a power of two."""
        op = self.operations[name]
        if isinstance(op, ops.Lookup):
            return self._gathered(op, op.values * factor, dtype)
        assert isinstance(op, ops.Bank)
        row, edges = self.source(op.row, self.carrier(op)), self.number(op.edges, self.carrier(op))
        at = self.operations.get(op.source)
        if isinstance(at, ops.Const) and self.program.sizes[op.row] == 1:
            values = op.values[:, at.values - op.low]
            if (np.abs(np.diff(values, axis=0)).sum(0) + np.abs(values[0])).max() <= CARRIERS[dtype]:
                return self._stepped(row, edges, values * factor, dtype)
        compared = [self.node("Unsqueeze", [row, self.number([-1], "int64")]), edges]
        reached = self.cast(self.node("GreaterOrEqual", compared), "float32")  # OpenVINO miscounts whole numbers
        axes = self.number([-1], "int64")
        count = self.cast(self.node("ReduceSum", [reached, axes], keepdims=0), "int32")
        start = self.node("Mul", [count, self.number([op.values.shape[1]], "int32")])
        return self._gathered(op, op.values.ravel() * factor, dtype, start)

    def _stepped(self, row: str, edges: str, values: np.ndarray, dtype: str) -> str:
        """One of several rows of numbers: the first, and all rises up to it, which in any order are within the type."""
        reached = self.cast(self.node("GreaterOrEqual", [row, edges]), dtype)
        rises = self.node("MatMul", [reached, self.number(np.diff(values, axis=0), dtype)])
        return self.node("Add", [rises, self.number(values[:1], dtype)])

    def _gathered(self, op: ops.Lookup | ops.Bank, values: np.ndarray, dtype: str, start: str = "") -> str:
        """Entries of a table by `GatherElements` over one axis: ONNX Runtime's `Gather` copies them one by one."""
        index = self._index(op)
        if start:
            index = self.node("Add", [index, start])
        flat = self.node("Reshape", [index, self.number([-1], "int64")])
        entries = self.node("GatherElements", [self.number(values, dtype), flat])
        return self._reshape(entries, self.program.sizes[op.name])

    def _index(self, op: ops.Lookup | ops.Bank) -> str:
        """Where in a table a value is; that of a clamp is rounded down by the cast, as nothing is below 0 there."""
        clamp = self.operations.get(op.source)
        if isinstance(clamp, ops.Clamp) and (sum_ := self._clamped(clamp, -op.low)):
            return self.cast(sum_[0], "int32")
        return self.node("Sub", [self.source(op.source, "int32"), self.number([op.low], "int32")])

    @add.register
    def _(self, op: ops.Add) -> None:
        self._of_two(op, "Add")

    @add.register
    def _(self, op: ops.Sub) -> None:
        self._of_two(op, "Sub")

    @add.register
    def _(self, op: ops.Mul) -> None:
        self._of_two(op, "Mul")

    def _of_two(self, op: ops.OfTwo, kind: str) -> None:
        """A sum is written with what it shares with others; all else, and what no type holds so, by a node."""
        if op.name in self.sums.within and (sum_ := self.sums.write(op.name, np.ones(1), 0.0)):
            return self._keep(op.name, sum_[1], sum_[0])
        return self._keep(op.name, self.carrier(op), self.node(kind, self.sources(op)))

    @add.register
    def _(self, op: ops.Transpose) -> None:
        (x,) = self.sources(op)
        turned = self.node("Transpose", [self._reshape(x, *op.shape)], perm=[0, *(1 + axis for axis in op.axes)])
        self._keep(op.name, self.carrier(op), self._reshape(turned, self.program.sizes[op.name]))

    @add.register
    def _(self, op: ops.Windows) -> None:
        (x,), dtype = self.sources(op), self.carrier(op)
        (rows, columns, _), (h, w) = op.shape, op.kernel
        around = self.number([0, h // 2, w // 2, 0, 0, h // 2, w // 2, 0], "int64")
        picture = self.node("Pad", [self._reshape(x, *op.shape), around])
        axes, shifted = self.number([1, 2], "int64"), []
        for i in range(h):
            for j in range(w):
                ends = [self.number(end, "int64") for end in ([i, j], [i + rows, j + columns])]
                shifted.append(self.node("Slice", [picture, *ends, axes]))
        side_by_side = self.node("Concat", shifted, axis=3)
        self._keep(op.name, dtype, self._reshape(side_by_side, self.program.sizes[op.name]))

    @add.register
    def _(self, op: ops.Join) -> None:
        size = {name: self.program.sizes[name] for name in op.inputs}
        parts = [self._batched(x, size[name]) for x, name in zip(self.sources(op), op.inputs)]
        seen = [self._reshape(x, op.outer, size[name] // op.outer) for x, name in zip(parts, op.inputs)]
        whole = self._reshape(self.node("Concat", seen, axis=2), self.program.sizes[op.name])
        self._keep(op.name, self.carrier(op), whole)
