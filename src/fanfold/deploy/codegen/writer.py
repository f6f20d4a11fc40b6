"""From a traced program to calls: each node of its graph is a row of a registry that adds calls and says its value.

Values are constants, which are computed at once and never in C, views of memory, or names in an open nest.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from fanfold.deploy.codegen.functions import without_calls
from fanfold.deploy.codegen.kernels import (
    C_TYPES,
    CallList,
    Memory,
    Number,
    Strided,
    broadcast_strides,
    dense_strides,
    is_dense,
)
from fanfold.deploy.codegen.nests import Nest, Pending, lean, loops, merged, place
from fanfold.deploy.codegen.scalars import LINES, WHOLE, Line, number, suffix

Operand = Tensor | Strided | Pending | float | int | bool
Row = Callable[["Writer", fx.Node, tuple[Any, ...], dict[str, Any]], Any]
ROWS: dict[str, Row] = {}  # aten operation, such as "mm": what writes it
NO_EFFECT = ("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size")
MOST_FOLDED = 2**26  # entries of a constant


def row(*names: str) -> Callable[[Row], Row]:
    """Enter a function in the registry, for these aten operations."""

    def enter(function: Row) -> Row:
        for name in names:
            assert name not in ROWS, name
            ROWS[name] = function
        return function

    return enter


class Writer:
    """Turns nodes into calls.

    Args:
        calls: Where the calls go.
    """

    def __init__(self, calls: CallList):
        self.calls = calls
        self._nests: dict[tuple[int, ...], Nest] = {}

    # Values

    def view(self, value: Operand, dtype: torch.dtype = torch.float32) -> Strided:
        """The value in memory; a nest that holds it closes."""
        if isinstance(value, Strided):
            return value
        if isinstance(value, Pending):
            if value.nest.open:
                self._close(value.nest)
            written = value.views[0]
            strides = iter(s for n, s in zip(written.shape, written.strides) if n != 1)
            return written.reshaped(value.shape, [0 if n == 1 else next(strides) for n in value.shape])
        return self._constant_view(value if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype))

    def _constant_view(self, values: Tensor) -> Strided:
        """A constant in memory, without the entries that are there again and again by a stride of zero."""
        core = values
        for d, stride in enumerate(values.stride()):
            if stride == 0 and values.shape[d] > 1:
                core = core.narrow(d, 0, 1)
        core = core.contiguous()
        strides = tuple(0 if n == 1 else s for n, s in zip(core.shape, core.stride()))
        return Strided(self.calls.constant(core), tuple(values.shape), strides)

    def dense(self, value: Operand) -> Strided:
        """The value in memory, row after row without gaps."""
        view = self.view(value)
        return view if is_dense(view) else self.copied(view)

    def copied(self, view: Strided) -> Strided:
        """A dense copy."""
        out = self.new(view.shape, view.dtype)
        self.copy(view, out)
        return out

    def new(self, shape: Sequence[int], dtype: torch.dtype) -> Strided:
        """Dense memory that is not written yet."""
        shape = tuple(shape)
        return Strided(Memory("work", dtype, max(1, math.prod(shape))), shape, dense_strides(shape))

    def copy(self, source: Strided, target: Strided) -> None:
        """Write a view, broadcast if need be, into memory of the same shape."""
        strides = broadcast_strides(source, len(target.shape))
        groups = merged([(n, (s, t)) for n, s, t in zip(target.shape, strides, target.strides) if n != 1])
        line = f"w0[{place(t for _, (_, t) in groups)}] = r0[{place(s for _, (s, _) in groups)}];"
        self.calls.add(loops([n for n, _ in groups], [line]), [source], [target])

    def fill(self, target: Strided, value: float) -> None:
        """Write one number everywhere."""
        groups = merged([(n, (t,)) for n, t in zip(target.shape, target.strides) if n != 1])
        line = f"w0[{place(t for _, (t,) in groups)}] = {number(value, target.dtype)};"
        self.calls.add(loops([n for n, _ in groups], [line]), [], [target])

    # Entry by entry

    def let(
        self,
        line: Line,
        operands: Sequence[Operand],
        shape: Sequence[int],
        dtype: torch.dtype,
        users: int,
        computing: torch.dtype | None = None,
    ) -> Pending:
        """The value of an operation entry by entry, in the nest of its shape."""
        for operand in operands:
            if isinstance(operand, Pending) and operand.nest.open and lean(operand.shape) != lean(shape):
                self._close(operand.nest)
        nest = self._nest(lean(shape))
        if computing is None:
            computing = promoted(operands) if line.answers else dtype
        names = [
            self._named(nest, operand, shape, torch.bool if line.chooses and not i else computing)
            for i, operand in enumerate(operands)
        ]
        text = without_calls(line.text.format(*names, f=suffix(computing)))
        return nest.let(text, dtype, shape, users)

    def _named(self, nest: Nest, operand: Operand, shape: Sequence[int], dtype: torch.dtype) -> str:
        if isinstance(operand, bool | int | float):
            return number(operand, dtype)
        if isinstance(operand, Tensor) and (one := self._number_of(operand)) is not None:
            return cast(nest.number(one), one.dtype, dtype) if math.isfinite(one.value) else number(one.value, dtype)
        if isinstance(operand, Pending) and operand.nest is nest:
            return cast(operand.name, operand.dtype, dtype)
        view = self.view(operand)
        return cast(nest.load(view, shape), view.dtype, dtype)

    def _number_of(self, values: Tensor) -> Number | None:
        """The one number that a constant holds everywhere, if it does."""
        if not values.numel():
            return None
        first = values[(0,) * values.ndim]
        same = bool(((values == first) | (values.isnan() & first.isnan())).all())
        return Number(first.item(), values.dtype) if same else None

    def _nest(self, shape: tuple[int, ...]) -> Nest:
        if shape not in self._nests:
            self._nests[shape] = Nest(shape, self.calls)
        return self._nests[shape]

    def _close(self, nest: Nest) -> None:
        nest.close()
        if self._nests.get(nest.shape) is nest:
            del self._nests[nest.shape]

    # The graph

    def run(self, nodes: Iterable[fx.Node], values: dict[fx.Node, Any]) -> None:
        """Write all calls of a graph.

        Raises:
            ValueError: If an operation is not in the registry, or cannot be written for these operands.
        """
        for node in nodes:
            if node.op != "call_function" or name_of(node) in NO_EFFECT:
                continue
            args = fx.node.map_arg(node.args, lambda n: values[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
            values[node] = self._value(node, args, kwargs)
            for source in node.all_input_nodes:
                for value in values[source] if isinstance(values[source], tuple | list) else [values[source]]:
                    if isinstance(value, Pending):
                        value.uses[0] -= 1

    def _value(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_of(node)
        if name == "getitem":
            return args[0][args[1]]
        constant = not any(isinstance(leaf, Strided | Pending) for leaf in tree_leaves((args, kwargs)))
        if constant and "generator" not in str(node.target) and small(node):
            return node.target(*args, **kwargs)  # pyrefly: ignore
        if name in ROWS:
            return ROWS[name](self, node, args, kwargs)
        if name in LINES or name in WHOLE:
            return self._by_line(node, name, args)
        raise ValueError(
            f"the operation {node.target} has no C; export the estimator to ONNX instead, or write it with other "
            "operations."
        )

    def _by_line(self, node: fx.Node, name: str, args: tuple[Any, ...]) -> Pending:
        out = node.meta["val"]
        line = LINES.get(name, Line(""))
        computing = promoted(args) if line.answers else out.dtype
        if not computing.is_floating_point and name in WHOLE:
            line = Line(WHOLE[name], line.answers, line.chooses)
            if name == "bitwise_not" and computing == torch.bool:
                line = Line("!{0}")
        return self.let(line, args, out.shape, out.dtype, len(node.users), computing)


def name_of(node: fx.Node) -> str:
    """The name of a node's operation, without namespace and overload."""
    return short_name(node.target)


def short_name(target: Any) -> str:
    """The name of an operation, without namespace and overload."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.partition("::")[2]
    return str(getattr(target, "__name__", target))


def small(node: fx.Node) -> bool:
    """Whether the result may be computed now and kept as a constant."""
    leaves = tree_leaves(node.meta.get("val"))
    return all(not isinstance(leaf, Tensor) or leaf.numel() <= MOST_FOLDED for leaf in leaves)


def promoted(operands: Sequence[Operand]) -> torch.dtype:
    """The type that operands are compared in: that of tensors with dimensions, unless a number is of a higher kind."""
    kinds = [(o.dtype, bool(len(o.shape))) for o in operands if isinstance(o, Tensor | Strided | Pending)]
    plain = [torch.empty((2,) if many else (), dtype=dtype) for dtype, many in kinds]
    numbers = [o for o in operands if isinstance(o, bool | int | float)]
    result = plain[0]
    for other in [*plain[1:], *numbers]:
        dtype = torch.result_type(result, other)
        result = torch.empty(result.shape if result.ndim or not isinstance(other, Tensor) else other.shape, dtype=dtype)
    return result.dtype


def cast(name: str, of: torch.dtype, to: torch.dtype) -> str:
    """A name as another type."""
    if of == to:
        return name
    return f"({name} != 0)" if to == torch.bool else f"({C_TYPES[to]}){name}"
