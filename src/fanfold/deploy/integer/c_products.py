"""The loops of an integer program's matrix products in C.

They go row by row with constant trip counts, rows padded with zeros to whole vectors, so that compilers make vector
code of them: words of 16 bits as they are, and bytes, where a processor multiplies unsigned by signed ones, as the
value plus 128, whose share a constant takes away again. Where sums need 48 bits, the upper and lower bytes of x are
summed in 32 apart, or blocks are, as is proved to fit.
"""

import math

import numpy as np

from fanfold.deploy.generated import indented
from fanfold.deploy.integer.c_lanes import LaneProducts
from fanfold.deploy.integer.c_text import C_TYPES
from fanfold.deploy.integer.c_values import IN_LANES, WITHOUT_LANES, CValues
from fanfold.deploy.integer.operations import MatMul, Windows, highest
from fanfold.deploy.integer.ranges import BYTE, OFFSET

VECTOR_BYTES = 64  # of the widest vectors of today
REGISTER_BYTES = 512  # of x, up to which compilers keep it in registers while the weights pass by
SHORT, LONG = (4, 1), (2, 4)  # places and rows of weights whose sums go together: x is read once, or weights are
INT32 = highest("int32")


class ProductLoops:
    """Writes the products of a program.

    Args:
        values: Where values and constants lie.

    Attributes:
        padded_bytes: Of the largest value that is copied and padded.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.integer.c_products import ProductLoops
        >>> from fanfold.deploy.integer.c_values import CValues
        >>> draft = Draft("sum")
        >>> draft.output(draft.matmul(draft.input("y", (2,), "int16"), np.ones((1, 2), np.int8), name="x_hat"), (1,))
        >>> program = draft.finish()
        >>> products = ProductLoops(CValues(program, lambda name: name))
        >>> products.lines(program.operations[0])[1].strip(), products.padded_bytes
        ('int16_t x0[2];', 4)
    """

    def __init__(self, values: CValues):
        self.values, self.padded_bytes, self.lanes = values, 0, LaneProducts(values)

    def lines(self, op: MatMul, windows: Windows | None = None) -> list[str]:
        """The loop of one product, of a value or of the windows of one, which then are made one at a time."""
        if not self.lanes.takes(op):
            return self._lines(op, self._weights(op), windows)
        of_bytes = self._of_bytes(op)
        packed, starts = self.lanes.packed(op, windows, of_bytes=of_bytes)
        in_lanes, weights = self.values.either(f"w_{op.name}", packed, self._padded_weights(op))
        start = self.values.constant(f"starts_{op.name}", starts, "int32_t", IN_LANES) if of_bytes else None
        lines = self.lanes.lines(op, windows, in_lanes, start)
        self.padded_bytes = max(self.padded_bytes, self.lanes.copied_bytes)
        return [IN_LANES, *lines, "#else", *self._lines(op, weights, windows), "#endif"]

    def _lines(self, op: MatMul, weights: str, windows: Windows | None) -> list[str]:
        if not self._by_rows(op):
            return self._along_rows(op, weights)
        rows, columns = op.weights.shape
        padded, of_bytes, (together, at_once) = self._padded(op), self._of_bytes(op), self._together(op)
        self.padded_bytes = max(self.padded_bytes, padded * 2 * together)
        out, at = self.values.place(op.name), f"(o + {{k}}) * {rows} + " if op.outer > 1 else ""
        value, shift, start = "int16_t", "", "0"
        if of_bytes:
            self.values.needs.add("bytes")
            starts, lanes = -OFFSET * op.weights.sum(1, dtype=np.int64), self.lanes.takes(op)
            offsets = self.values.constant(f"offset_{op.name}", starts, "int32_t", WITHOUT_LANES if lanes else "")
            value, shift, start = "byte_t", " + BYTE_OFFSET", f"BYTE_OFFSET ? {offsets}[r + {{row}}] : 0"
        declared = [f"{value} x{k}[{padded}];" for k in range(together)]
        filled = []
        for k in range(together):
            place = f"(o + {k})" if together > 1 else "o" if op.outer > 1 else "0"
            x = f"x{k}"
            filled += (
                self._window(windows, x, value, shift, place) if windows else self._copied(op, x, value, shift, place)
            )
            filled.append(f"for (i = {columns}; i < {padded}; i++) {x}[i] = 0;")
        if self._halved(op):
            self.padded_bytes = max(self.padded_bytes, padded * 4)
            declared.append(f"{value} high[{padded}];")
            filled.append(
                f"for (i = 0; i < {padded}; i++) "
                "{ high[i] = (int16_t)((x0[i] - (x0[i] & 255)) / 256); x0[i] &= 255; }"
            )
        cells = [(row, k) for row in range(at_once) for k in range(together)]
        sums = ", ".join(f"s{row}{k} = {start.format(row=row)}" for row, k in cells)
        lines = [
            *filled,
            f"for (r = 0; r < {rows}; r += {at_once}) {{",
            f"    {C_TYPES[op.dtype]} {sums};",
            *indented(self._row_sum(op, weights, padded, cells)),
            *(f"    {out}[{at.format(k=k)}r + {row}] = s{row}{k};" for row, k in cells),
            "}",
        ]
        if op.outer > 1:
            lines = [f"for (int32_t o = 0; o < {op.outer}; o += {together}) {{", *indented(lines), "}"]
        return ["{", *indented([*declared, "int32_t r;", *lines]), "}"]

    def _together(self, op: MatMul) -> tuple[int, int]:
        """Of how many places and of how many rows the sums go together."""
        if self.values.rows[op.name].bound > INT32:
            return 1, 1
        short = self._padded(op) * (1 if self._of_bytes(op) else 2) <= REGISTER_BYTES
        places, rows = SHORT if short else LONG
        return math.gcd(places, op.outer), math.gcd(rows, len(op.weights))

    def windows(self, op: Windows) -> list[str]:
        """The loop of windows that are stored."""
        out, ctype = self.values.place(op.name), C_TYPES[self.values.program.dtypes[op.name]]
        filled = self._window(op, f"({out} + o * {op.window})", ctype, "", "o")
        return [f"for (int32_t o = 0; o < {op.shape[0] * op.shape[1]}; o++) {{", *indented(filled), "}"]

    def _copied(self, op: MatMul, target: str, value: str, shift: str, place: str) -> list[str]:
        columns = op.weights.shape[1]
        entry = f"{self.values.whole(op.source)}[{f'{place} * {columns} + ' if op.outer > 1 else ''}i]"
        return [f"for (i = 0; i < {columns}; i++) {target}[i] = ({value})({entry}{shift});"]

    def _window(self, op: Windows, target: str, value: str, shift: str, place: str) -> list[str]:
        """The entries of the window around a place, in order; zero where it leaves the picture."""
        (rows, columns, channels), (h, w) = op.shape, op.kernel
        x = self.values.whole(op.source)
        return [
            f"for (int32_t k = 0; k < {h * w}; k++) {{",
            f"    const int32_t p = {place} / {columns} + k / {w} - {h // 2};",
            f"    const int32_t q = {place} % {columns} + k % {w} - {w // 2};",
            f"    {value} *to = {target} + k * {channels};",
            f"    if (p < 0 || p >= {rows} || q < 0 || q >= {columns}) {{",
            f"        for (i = 0; i < {channels}; i++) to[i] = ({value})(0{shift});",
            "        continue;",
            "    }",
            f"    const int32_t at = (p * {columns} + q) * {channels};",
            f"    for (i = 0; i < {channels}; i++) to[i] = ({value})({x}[at + i]{shift});",
            "}",
        ]

    def _by_rows(self, op: MatMul) -> bool:
        """Whether each row of weights is a sum over neighbours in memory, of words at most."""
        return op.inner == 1 and self.values.program.dtypes[op.source] in ("int8", "int16")

    def _row_sum(self, op: MatMul, weights: str, padded: int, cells: list[tuple[int, int]]) -> list[str]:
        term, in_block = (f"(int32_t){weights}[r][{at}] * (int32_t)x0[{at}]" for at in ("i", "b + i"))
        if self.values.rows[op.name].bound <= INT32:
            each = [f"s{row}{k} += (int32_t){weights}[r + {row}][i] * (int32_t)x{k}[i];" for row, k in cells]
            return [f"for (i = 0; i < {padded}; i++) {{", *indented(each), "}"]
        if self._halved(op):
            return [
                "int32_t top = 0, low = 0;",
                f"for (i = 0; i < {padded}; i++) top += (int32_t){weights}[r][i] * (int32_t)high[i];",
                f"for (i = 0; i < {padded}; i++) low += {term};",
                "s00 = (int64_t)top * 256 + low;",
            ]
        block = exact_block(op.weights, self.values.program.proof.ranges[op.source].magnitude, padded)
        if block == 1:
            return [f"for (i = 0; i < {padded}; i++) s00 += (int64_t)({term});"]
        return [
            f"for (int32_t b = 0; b < {padded}; b += {block}) {{",
            "    int32_t part = 0;",
            f"    for (i = 0; i < {block}; i++) part += {in_block};",
            "    s00 += part;",
            "}",
        ]

    def _halved(self, op: MatMul) -> bool:
        """Whether a sum of 48 bits is two of 32, of the upper and the lower bytes of x: each is proved to fit."""
        return self.values.rows[op.name].bound > INT32 and BYTE * largest_row(op.weights) <= INT32

    def _of_bytes(self, op: MatMul) -> bool:
        """Whether bytes may be multiplied as unsigned times signed: neither sums nor the constant leave 32 bits."""
        return self.values.rows[op.name].pairs is not None and (OFFSET + BYTE) * largest_row(op.weights) <= INT32

    def _padded(self, op: MatMul) -> int:
        columns, entry = op.weights.shape[1], 1 if self._of_bytes(op) else 2
        whole = VECTOR_BYTES // entry
        return columns if columns < whole else -(-columns // whole) * whole

    def _weights(self, op: MatMul) -> str:
        return self.values.constant(f"w_{op.name}", self._padded_weights(op), C_TYPES[op.weights.dtype.name])

    def _padded_weights(self, op: MatMul) -> np.ndarray:
        columns = op.weights.shape[1]
        padded = self._padded(op) if self._by_rows(op) else columns
        return np.pad(op.weights, ((0, 0), (0, padded - columns)))

    def _along_rows(self, op: MatMul, weights: str) -> list[str]:
        """The product along an axis that is not the last: whole rows of the value are added."""
        rows, columns = op.weights.shape
        x, out, ctype = self.values.whole(op.source), self.values.place(op.name), C_TYPES[op.dtype]
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


def largest_row(weights: np.ndarray) -> int:
    """The largest sum of absolute values in a row of weights."""
    return int(np.abs(weights.astype(np.int64)).sum(1).max())


def exact_block(weights: np.ndarray, magnitude: int, padded: int) -> int:
    """The largest power of two, dividing the padded columns, of which so many terms are proved to fit 32 bits."""
    size = np.pad(np.abs(weights.astype(np.int64)), ((0, 0), (0, padded - weights.shape[1])))
    block = 1
    while padded % (2 * block) == 0:
        if int(size.reshape(len(size), -1, 2 * block).sum(-1).max()) * magnitude > INT32:
            break
        block *= 2
    return block
