"""The loops of an integer program in C: entry-by-entry operations in one loop, matrix products, and transpositions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fanfold.deploy.generated import indented
from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.c_lanes import table_of_bytes
from fanfold.deploy.integer.c_octaves import Octaves, octaves_of
from fanfold.deploy.integer.c_products import INT32, ProductLoops
from fanfold.deploy.integer.c_text import C_TYPES, literal
from fanfold.deploy.integer.c_values import CValues
from fanfold.deploy.integer.intervals import rounding
from fanfold.deploy.integer.program import IntegerProgram

SYMBOLS = {"ADD": "+", "SUB": "-", "MUL": "*"}
MANY = 8  # entries, from which vector code pays
ENTRYWISE = (ops.Rescale, ops.Clamp, ops.Lookup, ops.Bank, ops.OfTwo)


class Group(NamedTuple):
    """Entry-by-entry operations on values of one size, which are one loop; or one other operation.

    Example:
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_loops import groups_of
        >>> draft = Draft("soft")
        >>> y = draft.input("y", (4,), "int16")
        >>> draft.output(draft.sub(y, draft.clamp(y, -9, 9), name="x_hat"), (4,))
        >>> [len(group.operations) for group in groups_of(draft.finish())]
        [2]
    """

    operations: tuple[ops.Operation, ...]
    size: int


def groups_of(program: IntegerProgram) -> list[Group]:
    """The operations of a program in order, neighbours that are entry by entry and of one size together."""
    groups: list[Group] = []
    for op in program.operations:
        if isinstance(op, ops.Const):
            continue
        size = program.sizes[op.name]
        last = groups[-1] if groups else None
        if last and _in_one_loop(program, last, op):
            groups[-1] = Group((*last.operations, op), size)
        else:
            groups.append(Group((op,), size))
    return groups


def _in_one_loop(program: IntegerProgram, group: Group, op: ops.Operation) -> bool:
    """Whether an operation goes into the loop of those before it."""
    before = group.operations[-1]
    if isinstance(op, ops.MatMul):
        return _is_convolution(program, before, op)
    both = isinstance(op, ENTRYWISE) and isinstance(before, ENTRYWISE)
    if any(isinstance(part, ops.Lookup) for part in (op, before)) and group.size > MANY:
        return False  # reading tables entry by entry, compilers would make no vector code of the rest
    return both and group.size == program.sizes[op.name]


def _is_convolution(program: IntegerProgram, windows: ops.Operation, product: ops.MatMul) -> bool:
    """Whether a product is all that takes these windows, so that they need not be stored."""
    if not isinstance(windows, ops.Windows) or (product.weights.shape[1], product.inner) != (windows.window, 1):
        return False
    taken = [op for op in program.operations if windows.name in op.inputs]
    shown = any(port.name == windows.name for port in program.outputs)
    return taken == [product] and not shown and program.dtypes[windows.name] in ("int8", "int16")


class Loops:
    """Writes the loops of a program, as lines of a function's body.

    Args:
        values: Where values and constants lie.

    Example:
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_loops import Loops, groups_of
        >>> from fanfold.deploy.integer.c_values import CValues
        >>> draft = Draft("minus")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.sub(y, y, name="x_hat"), (4,))
        >>> program = draft.finish()
        >>> print(Loops(CValues(program, lambda name: name)).lines(groups_of(program)[0], {"x_hat"})[1].strip())
        const int32_t v_x_hat = (int32_t)y[i] - (int32_t)y[i];
    """

    def __init__(self, values: CValues):
        self.values, self.program, self.products = values, values.program, ProductLoops(values)
        self.octaves = octaves_of(values.program)

    def lines(self, group: Group, stored: set[str]) -> list[str]:
        """The loop of a group; of its values those are stored that are needed elsewhere."""
        first = group.operations[0]
        if isinstance(first, ops.MatMul):
            return self.products.lines(first)
        if isinstance(first, ops.Transpose):
            return self._transposed(first)
        if isinstance(first, ops.Windows):
            second = group.operations[-1]
            return (
                self.products.lines(second, first) if isinstance(second, ops.MatMul) else self.products.windows(first)
            )
        if isinstance(first, ops.Join):
            return self._joined(first)
        if isinstance(first, ops.Lookup) and self._of_bytes(first):
            return self._bytes_looked_up(first)
        return self._entrywise(group, stored)

    def _entrywise(self, group: Group, stored: set[str]) -> list[str]:
        within = {op.name for op in group.operations}
        octaves = {name: part for name, part in self.octaves.items() if name in within and part.within <= within}
        left_out = frozenset().union(*(part.within for part in octaves.values()))
        before, body = [], []
        for op in group.operations:
            if op.name in left_out:
                continue
            if isinstance(op, ops.Bank):
                before += self._bank_row(op, group, within)
            wide = self._wide(op)
            ctype = "int64_t" if wide else "int32_t"
            if op.name in octaves:
                expression = self._octaves_summed(octaves[op.name], group.size, within)
            else:
                sources = [self._entry(name, wide, group.size, within) for name in op.inputs]
                expression = self._expression(op, wide, sources)
            body.append(f"const {ctype} v_{op.name} = {expression};")
            if op.name in stored:
                body.append(f"{self.values.place(op.name)}[i] = ({C_TYPES[self.program.dtypes[op.name]]})v_{op.name};")
        return [*before, f"for (i = 0; i < {group.size}; i++) {{", *indented(body), "}"]

    def _octaves_summed(self, part: Octaves, size: int, within: set[str]) -> str:
        self.values.needs |= {"octaves", "clamp32", "down32"}
        x = self._entry(part.source, False, size, within)
        return f"octaves({x}, {part.first}, {part.last}, {part.digits})"

    def _of_bytes(self, op: ops.Lookup) -> bool:
        """Whether a table is of bytes, has bytes, and is read more than a few times."""
        dtypes = self.program.dtypes
        return dtypes[op.source] == dtypes[op.name] == "int8" and self.program.sizes[op.name] > MANY

    def _bytes_looked_up(self, op: ops.Lookup) -> list[str]:
        self.values.needs.add("bytes_looked_up")
        table = self.values.constant(f"t_{op.name}", table_of_bytes(op.values, op.low), "int8_t")
        x, out = self.values.whole(op.source), self.values.place(op.name)
        return [f"bytes_looked_up({x}, {out}, {table}, {self.program.sizes[op.name]});"]

    def _wide(self, op: ops.Operation) -> bool:
        """Whether it is computed in 64 bits."""
        return self.values.rows[op.name].limit > INT32

    def _entry(self, name: str, wide: bool, size: int, within: set[str]) -> str:
        """An entry of a value, in the type to compute in."""
        if name in within:
            whole = f"v_{name}"
        else:
            whole = f"{self.values.whole(name)}[{'i' if self.program.sizes[name] == size else 0}]"
        return f"({'int64_t' if wide else 'int32_t'}){whole}"

    def _numbers(self, name: str, values: np.ndarray, wide: bool) -> str:
        """Numbers of an operation at entry i: a literal where they are all the same."""
        if (values == values[0]).all():
            return literal(int(values[0]), wide)
        return f"{self.values.constant(name, values)}[i]"

    def _expression(self, op: ops.Operation, wide: bool, sources: Sequence[str]) -> str:
        x = sources[0]
        if isinstance(op, ops.Rescale):
            return self._rescaled(op, wide, x)
        if isinstance(op, ops.Clamp):
            low, high = (self._numbers(f"{end}_{op.name}", vars(op)[end], wide) for end in ("low", "high"))
            self.values.needs.add(f"clamp{64 if wide else 32}")
            return f"clamp{64 if wide else 32}({x}, {low}, {high})"
        if isinstance(op, ops.Lookup):
            return f"{self.values.constant(f't_{op.name}', op.values)}[{x} - {literal(op.low, wide)}]"
        if isinstance(op, ops.Bank):
            row = self._picked(op, wide, sources[1])
            return f"{self.values.constant(f't_{op.name}', op.values)}[{row}][{x} - {literal(op.low, wide)}]"
        return f"{x} {SYMBOLS[op.kind]} {sources[1]}"

    def _rescaled(self, op: ops.Rescale, wide: bool, x: str) -> str:
        bits, (right, left) = 64 if wide else 32, (np.maximum(op.shift, 0), np.maximum(-op.shift, 0))
        if right.any():
            self.values.needs.add(f"down{bits}")
            half = self._numbers(f"half_{op.name}", rounding(op.shift), wide)
            x = f"down{bits}({x} + {half}, {self._numbers(f'right_{op.name}', right, False)})"
        if left.any():
            x = f"{x} * {self._numbers(f'left_{op.name}', 1 << left, wide)}"
        return x

    def _bank_row(self, op: ops.Bank, group: Group, within: set[str]) -> list[str]:
        """The row of a bank, where one value picks it for all entries."""
        if op.row in within or self.program.sizes[op.row] == group.size:
            return []
        picking = self._entry(op.row, True, group.size, within)
        return [f"const int32_t row_{op.name} = {self._row_of(op, picking)};"]

    def _row_of(self, op: ops.Bank, picking: str) -> str:
        self.values.needs.add("count_reached")
        edges = self.values.constant(f"edges_{op.name}", op.edges, "int64_t")
        return f"count_reached({picking}, {edges}, {op.edges.size})"

    def _picked(self, op: ops.Bank, wide: bool, picking: str) -> str:
        if self.program.sizes[op.row] != self.program.sizes[op.name]:
            return f"row_{op.name}"
        return self._row_of(op, picking)

    def _transposed(self, op: ops.Transpose) -> list[str]:
        strides = [int(np.prod(op.shape[axis + 1 :], dtype=np.int64)) for axis in op.axes]
        indices = [f"a{k}" for k in range(len(strides))]
        sum_of = " + ".join(f"{index} * {stride}" for index, stride in zip(indices, strides))
        lines = [f"{self.values.place(op.name)}[i++] = {self.values.whole(op.source)}[{sum_of}];"]
        for index, axis in reversed([*zip(indices, op.axes)]):
            lines = [f"for (int32_t {index} = 0; {index} < {op.shape[axis]}; {index}++) {{", *indented(lines), "}"]
        return ["i = 0;", *lines]

    def _joined(self, op: ops.Join) -> list[str]:
        out, ctype = self.values.place(op.name), C_TYPES[op.dtype]
        columns = [self.program.sizes[name] // op.outer for name in op.inputs]
        lines = []
        for name, start, count in zip(op.inputs, (0, columns[0]), columns):
            place = f"{out}[o * {sum(columns)} + {start} + i]"
            entry = f"({ctype}){self.values.whole(name)}[o * {count} + i]"
            lines.append(f"for (i = 0; i < {count}; i++) {place} = {entry};")
        return [f"for (int32_t o = 0; o < {op.outer}; o++) {{", *indented(lines), "}"]
