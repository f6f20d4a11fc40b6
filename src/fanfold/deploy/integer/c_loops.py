"""The loops of an integer program in C, in a little over 300 lines, since all kinds of them share constants.

These are matrix products, entry-by-entry operations in one loop, and transpositions.

Products are row by row with constant trip counts, rows padded with zeros to whole vectors, so that compilers make
vector code of them: words of 16 bits as they are, and bytes, where a processor multiplies unsigned by signed ones, as
the value plus 128, whose share a constant takes away again. Where sums need 48 bits, the upper and lower bytes of x are
summed in 32 apart, or blocks are, as is proved to fit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.c_text import C_TYPES, constant, indented, literal, narrowest
from fanfold.deploy.integer.intervals import rounding
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.deploy.integer.ranges import BYTE

VECTOR_BYTES = 64  # of the widest vectors of today
INT32 = (1 << 31) - 1
OFFSET = 128  # makes a signed byte an unsigned one
SYMBOLS = {"ADD": "+", "SUB": "-", "MUL": "*"}
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
        if last and isinstance(op, ENTRYWISE) and isinstance(last.operations[-1], ENTRYWISE) and last.size == size:
            groups[-1] = Group((*last.operations, op), size)
        else:
            groups.append(Group((op,), size))
    return groups


class Loops:
    """Writes the loops of a program: constants beside them, and lines of a function's body.

    Args:
        program: The program.
        place: The C array in which a value lies.

    Example:
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_loops import Loops, groups_of
        >>> draft = Draft("minus")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.sub(y, y, name="x_hat"), (4,))
        >>> program = draft.finish()
        >>> print(Loops(program, lambda name: name).lines(groups_of(program)[0], {"x_hat"})[1].strip())
        const int32_t v_x_hat = (int32_t)y[i] - (int32_t)y[i];
    """

    def __init__(self, program: IntegerProgram, place: Callable[[str], str]):
        self.program, self.place = program, place
        self.rows = {row.operation: row for row in program.proof.rows}
        self.constants: list[str] = []
        self.named: dict[tuple, str] = {}  # constants by their content
        self.needs: set[str] = set()  # names of helper functions
        self.padded_bytes = 0  # of the largest value that is copied and padded
        self.numbers = {op.name: op for op in program.operations if isinstance(op, ops.Const)}
        self.arrays = {op.name: self._constant(f"k_{op.name}", op.values) for op in self.numbers.values()}

    def lines(self, group: Group, stored: set[str]) -> list[str]:
        """The loop of a group; of its values those are stored that are needed elsewhere."""
        first = group.operations[0]
        if isinstance(first, ops.MatMul):
            return self._product(first)
        if isinstance(first, ops.Transpose):
            return self._transposed(first)
        return self._entrywise(group, stored)

    def whole(self, name: str) -> str:
        """The C array of a value, or of a constant."""
        return self.arrays.get(name) or self.place(name)

    def _constant(self, name: str, values: np.ndarray, ctype: str = "") -> str:
        """The name of a constant array of these numbers: an older one where they are the same."""
        ctype = ctype or narrowest(values)
        key = (ctype, *ops.content(values))
        if key not in self.named:
            self.named[key] = name
            self.constants.append(constant(ctype, name, values))
        return self.named[key]

    # Entry by entry

    def _entrywise(self, group: Group, stored: set[str]) -> list[str]:
        within = {op.name for op in group.operations}
        before, body = [], []
        for op in group.operations:
            if isinstance(op, ops.Bank):
                before += self._bank_row(op, group, within)
            wide = self._wide(op)
            ctype = "int64_t" if wide else "int32_t"
            sources = [self._entry(name, wide, group.size, within) for name in op.inputs]
            body.append(f"const {ctype} v_{op.name} = {self._expression(op, wide, sources)};")
            if op.name in stored:
                body.append(f"{self.place(op.name)}[i] = ({C_TYPES[self.program.dtypes[op.name]]})v_{op.name};")
        return [*before, f"for (i = 0; i < {group.size}; i++) {{", *indented(body), "}"]

    def _wide(self, op: ops.Operation) -> bool:
        """Whether it is computed in 64 bits."""
        return self.rows[op.name].limit > INT32

    def _entry(self, name: str, wide: bool, size: int, within: set[str]) -> str:
        """An entry of a value, in the type to compute in."""
        if name in within:
            whole = f"v_{name}"
        else:
            whole = f"{self.whole(name)}[{'i' if self.program.sizes[name] == size else 0}]"
        return f"({'int64_t' if wide else 'int32_t'}){whole}"

    def _numbers(self, name: str, values: np.ndarray, wide: bool) -> str:
        """Numbers of an operation at entry i: a literal where they are all the same."""
        if (values == values[0]).all():
            return literal(int(values[0]), wide)
        return f"{self._constant(name, values)}[i]"

    def _expression(self, op: ops.Operation, wide: bool, sources: Sequence[str]) -> str:
        x = sources[0]
        if isinstance(op, ops.Rescale):
            return self._rescaled(op, wide, x)
        if isinstance(op, ops.Clamp):
            low, high = (self._numbers(f"{end}_{op.name}", vars(op)[end], wide) for end in ("low", "high"))
            self.needs.add(f"clamp{64 if wide else 32}")
            return f"clamp{64 if wide else 32}({x}, {low}, {high})"
        if isinstance(op, ops.Lookup):
            return f"{self._constant(f't_{op.name}', op.values)}[{x} - {literal(op.low, wide)}]"
        if isinstance(op, ops.Bank):
            row = self._picked(op, wide, sources[1])
            return f"{self._constant(f't_{op.name}', op.values)}[{row}][{x} - {literal(op.low, wide)}]"
        return f"{x} {SYMBOLS[op.kind]} {sources[1]}"

    def _rescaled(self, op: ops.Rescale, wide: bool, x: str) -> str:
        bits, (right, left) = 64 if wide else 32, (np.maximum(op.shift, 0), np.maximum(-op.shift, 0))
        if right.any():
            self.needs.add(f"down{bits}")
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
        self.needs.add("count_reached")
        return f"count_reached({picking}, {self._constant(f'edges_{op.name}', op.edges, 'int64_t')}, {op.edges.size})"

    def _picked(self, op: ops.Bank, wide: bool, picking: str) -> str:
        if self.program.sizes[op.row] != self.program.sizes[op.name]:
            return f"row_{op.name}"
        return self._row_of(op, picking)

    # Transpositions and products

    def _transposed(self, op: ops.Transpose) -> list[str]:
        strides = [int(np.prod(op.shape[axis + 1 :], dtype=np.int64)) for axis in op.axes]
        indices = [f"a{k}" for k in range(len(strides))]
        sum_of = " + ".join(f"{index} * {stride}" for index, stride in zip(indices, strides))
        lines = [f"{self.place(op.name)}[i++] = {self.whole(op.source)}[{sum_of}];"]
        for index, axis in reversed([*zip(indices, op.axes)]):
            lines = [f"for (int32_t {index} = 0; {index} < {op.shape[axis]}; {index}++) {{", *indented(lines), "}"]
        return ["i = 0;", *lines]

    def _product(self, op: ops.MatMul) -> list[str]:
        weights = self._weights(op)
        if op.inner > 1:
            return self._along_rows(op, weights)
        rows, columns = op.weights.shape
        padded, of_bytes = self._padded(op), self._of_bytes(op)
        self.padded_bytes = max(self.padded_bytes, padded * 2)
        x, out = self.whole(op.source), self.place(op.name)
        at = (f"o * {columns} + ", f"o * {rows} + ") if op.outer > 1 else ("", "")
        value, shift, start = "int16_t", "", "0"
        if of_bytes:
            self.needs.add("bytes")
            offsets = self._constant(f"offset_{op.name}", -OFFSET * op.weights.sum(1, dtype=np.int64), "int32_t")
            value, shift, start = "byte_t", " + BYTE_OFFSET", f"BYTE_OFFSET ? {offsets}[r] : 0"
        declared = [f"{value} x[{padded}];"]
        filled = [
            f"for (i = 0; i < {columns}; i++) x[i] = ({value})({x}[{at[0]}i]{shift});",
            f"for (; i < {padded}; i++) x[i] = 0;",
        ]
        if self._halved(op):
            self.padded_bytes = max(self.padded_bytes, padded * 4)
            declared.append(f"{value} high[{padded}];")
            filled.append(
                f"for (i = 0; i < {padded}; i++) {{ high[i] = (int16_t)((x[i] - (x[i] & 255)) / 256); x[i] &= 255; }}"
            )
        lines = [
            *filled,
            f"for (r = 0; r < {rows}; r++) {{",
            f"    {C_TYPES[op.dtype]} s = {start};",
            *indented(self._row_sum(op, weights, padded)),
            f"    {out}[{at[1]}r] = s;",
            "}",
        ]
        if op.outer > 1:
            lines = [f"for (int32_t o = 0; o < {op.outer}; o++) {{", *indented(lines), "}"]
        return ["{", *indented([*declared, "int32_t r;", *lines]), "}"]

    def _row_sum(self, op: ops.MatMul, weights: str, padded: int) -> list[str]:
        term, in_block = (f"(int32_t){weights}[r][{at}] * (int32_t)x[{at}]" for at in ("i", "b + i"))
        if self.rows[op.name].bound <= INT32:
            return [f"for (i = 0; i < {padded}; i++) s += {term};"]
        if self._halved(op):
            return [
                "int32_t top = 0, low = 0;",
                f"for (i = 0; i < {padded}; i++) top += (int32_t){weights}[r][i] * (int32_t)high[i];",
                f"for (i = 0; i < {padded}; i++) low += {term};",
                "s = (int64_t)top * 256 + low;",
            ]
        block = exact_block(op.weights, self.program.proof.ranges[op.source].magnitude, padded)
        if block == 1:
            return [f"for (i = 0; i < {padded}; i++) s += (int64_t)({term});"]
        return [
            f"for (int32_t b = 0; b < {padded}; b += {block}) {{",
            "    int32_t part = 0;",
            f"    for (i = 0; i < {block}; i++) part += {in_block};",
            "    s += part;",
            "}",
        ]

    def _halved(self, op: ops.MatMul) -> bool:
        """Whether a sum of 48 bits is two of 32, of the upper and the lower bytes of x: each is proved to fit."""
        largest = int(np.abs(op.weights.astype(np.int64)).sum(1).max())
        return self.rows[op.name].bound > INT32 and BYTE * largest <= INT32

    def _of_bytes(self, op: ops.MatMul) -> bool:
        """Whether bytes may be multiplied as unsigned times signed: neither sums nor the constant leave 32 bits."""
        largest = int(np.abs(op.weights.astype(np.int64)).sum(1).max())
        of_bytes = op.weights.dtype == np.int8 and self.program.dtypes[op.source] == "int8"
        return of_bytes and (OFFSET + BYTE) * largest <= INT32

    def _padded(self, op: ops.MatMul) -> int:
        columns, entry = op.weights.shape[1], 1 if self._of_bytes(op) else 2
        whole = VECTOR_BYTES // entry
        return columns if columns < whole else -(-columns // whole) * whole

    def _weights(self, op: ops.MatMul) -> str:
        columns = op.weights.shape[1]
        padded = self._padded(op) if op.inner == 1 else columns
        weights = np.pad(op.weights, ((0, 0), (0, padded - columns)))
        return self._constant(f"w_{op.name}", weights, C_TYPES[op.weights.dtype.name])

    def _along_rows(self, op: ops.MatMul, weights: str) -> list[str]:
        """The product along an axis that is not the last: whole rows of the value are added."""
        rows, columns = op.weights.shape
        x, out, ctype = self.whole(op.source), self.place(op.name), C_TYPES[op.dtype]
        term = f"({ctype}){weights}[r][c] * ({ctype}){x}[(o * {columns} + c) * {op.inner} + i]"
        return [
            f"for (int32_t o = 0; o < {op.outer}; o++) {{",
            f"    for (int32_t r = 0; r < {rows}; r++) {{",
            f"        {ctype} *row = {out} + (o * {rows} + r) * {op.inner};",
            f"        for (i = 0; i < {op.inner}; i++) row[i] = 0;",
            f"        for (int32_t c = 0; c < {columns}; c++) {{",
            f"            for (i = 0; i < {op.inner}; i++) row[i] += {term};",
            "        }",
            "    }",
            "}",
        ]


def exact_block(weights: np.ndarray, magnitude: int, padded: int) -> int:
    """The largest power of two, dividing the padded columns, of which so many terms are proved to fit 32 bits."""
    size = np.pad(np.abs(weights.astype(np.int64)), ((0, 0), (0, padded - weights.shape[1])))
    block = 1
    while padded % (2 * block) == 0:
        if int(size.reshape(len(size), -1, 2 * block).sum(-1).max()) * magnitude > INT32:
            break
        block *= 2
    return block
