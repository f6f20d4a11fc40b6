"""One kernel for all products: some rows and some columns at a time, whose sums stay in registers.

The sums are vectors as gcc and clang have them, or else loops. The kernel reads the right factor once, panel by
panel of columns side by side; a constant factor is packed into such panels when the program is made, so that its memory
is read in one stream. A convolution is the same product: its rows are places and its inner axes run over the window.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.deploy.codegen.kernels import Strided
from fanfold.deploy.codegen.nests import loops, merged, place
from fanfold.deploy.codegen.writer import Writer

WIDE = 128  # columns of a panel where there is one row: eight registers of AVX-512, twice eight of AVX
NARROW = 32  # where there are more
LANES = 16  # columns in one vector
MOST_ROWS = {1: 6, 2: 4}  # rows at a time, by vectors in a row
FEW = 8  # columns below which the factors change places


class Axis(NamedTuple):
    """A loop: how often, and the step in the left factor and in the output."""

    count: int
    left: int
    out: int = 0
    right: int = 0


def panels(columns: int, rows: int) -> list[tuple[int, int, int]]:
    """First column, width and number of panels of equal width, for so many rows."""
    width = WIDE if rows == 1 else NARROW
    whole, rest = divmod(columns, width)
    return [(0, width, whole)] * bool(whole) + [(whole * width, rest, 1)] * bool(rest)


def packed(right: Tensor, rows: int) -> Tensor:
    """Matrices `(batch, inner, columns)` panel by panel, row after row in each, with zeros up to whole vectors."""
    parts = []
    for first, width, count in panels(right.shape[-1], rows):
        for p in range(count):
            start = first + p * width
            panel = right[..., start : start + width]
            parts.append(torch.nn.functional.pad(panel, (0, -width % LANES)).reshape(len(right), -1))
    return torch.cat(parts, -1).contiguous()


def product(
    writer: Writer,
    left: Strided,
    rows: list[Axis],
    inner: list[Axis],
    right: Strided | Tensor,
    columns: int,
    out: Strided,
    batch: list[Axis] | None = None,
    bias: Tensor | None = None,
) -> None:
    """Add `out[b, i, j] = bias[j] + Σ_k left[b, i, k] right[b, k, j]`.

    Args:
        writer: Where the call goes.
        left: The left factor, at its first entry.
        rows: The loops over rows, of which the last is computed some at a time.
        inner: The loops over what is summed; `right` is the step in a right factor that is no constant.
        right: A constant `(batch, inner, columns)`, or memory whose columns are side by side.
        columns: How many there are.
        out: The output, whose columns are side by side.
        batch: The loops over matrices.
        bias: A constant for each column.
    """
    batch, inner, rows = batch or [], _joined(inner), list(rows)
    depth = math.prod(axis.count for axis in inner)
    total_rows = math.prod(axis.count for axis in rows)
    reads: list[Any] = [left]
    if isinstance(right, Tensor):
        matrix = packed(right, total_rows)
        reads.append((writer.calls.constant(matrix), 0))
        step = matrix.shape[1] if len(right) > 1 else 0
        batch = [
            Axis(a.count, a.left, a.out, step * math.prod(b.count for b in batch[k + 1 :])) for k, a in enumerate(batch)
        ]
    else:
        reads.append(right)
    if bias is not None:
        reads.append((writer.calls.constant(bias), 0))
    lines: list[str] = []
    for first, width, count in panels(columns, total_rows):
        lines += _panels(first, width, count, rows, inner, isinstance(right, Tensor), depth, bias is not None)
    before = [
        f"const float *left = r0 + {place(a.left for a in batch)};",
        f"const float *right = r1 + {place(a.right for a in batch)};",
        f"float *out = w0 + {place(a.out for a in batch)};",
    ]
    times = math.prod(axis.count for axis in batch)
    body = loops([a.count for a in batch], [*before, *lines])
    if out.dtype == torch.float64:
        body = body.replace("float", "double").replace("lanes ", "dlanes ").replace("COPY(", "DCOPY(")
        body = body.replace("ADD(", "DADD(")
    writer.calls.add(body, reads, [out], products=times * total_rows * depth * columns)


def _joined(axes: list[Axis]) -> list[Axis]:
    """The loops over what is summed, neighbours joined where both factors go on as in one."""
    joined = merged([(axis.count, (axis.left, axis.right)) for axis in axes if axis.count != 1])
    return [Axis(count, left, 0, right) for count, (left, right) in joined] or [Axis(1, 1)]


def _panels(
    first: int, width: int, count: int, rows: list[Axis], inner: list[Axis], constant: bool, depth: int, bias: bool
) -> list[str]:
    """The panels of one width: a loop over them, loops over rows, and the sums of some rows and columns."""
    outer, last = rows[:-1], rows[-1]
    lanes = -(-width // LANES)
    lines = [f"for (int p = 0; p < {count}; p++) {{"]
    start = f"{first} + p * {width}"
    lines.append(f"    const float *panel = right + {f'({start}) * {depth}' if constant else start};")
    indent = "    "
    for g, axis in enumerate(outer):
        lines.append(f"{indent}for (int o{g} = 0; o{g} < {axis.count}; o{g}++) {{")
        indent += "    "
    base_left = " + ".join([f"o{g} * {a.left}" for g, a in enumerate(outer)] or ["0"])
    base_out = " + ".join([f"o{g} * {a.out}" for g, a in enumerate(outer)] + [start])
    for begin, end, together in _blocks(last.count, MOST_ROWS.get(lanes, 1)):
        lines.append(f"{indent}for (int i = {begin}; i < {end}; i += {together}) {{")
        stride = lanes * LANES if constant else None
        tile = _Tile(together, last, inner, base_left, base_out, start, stride, bias)
        whole = tile.lines(0, width)
        if together * lanes > 6:  # half as many registers where there are half as many
            half = lanes // 2 * LANES
            lines += ["#if defined(__AVX512F__)", *(f"{indent}    {line}" for line in whole), "#else"]
            for low, high in ((0, half), (half, width)):
                lines += [f"{indent}    {line}" for line in ["{", *("    " + x for x in tile.lines(low, high)), "}"]]
            lines.append("#endif")
        else:
            lines += [f"{indent}    {line}" for line in whole]
        lines.append(f"{indent}}}")
    for _ in outer:
        indent = indent[:-4]
        lines.append(f"{indent}}}")
    lines.append("}")
    return lines


def _blocks(count: int, most: int) -> list[tuple[int, int, int]]:
    """Begin, end and step of loops over rows, in blocks of at most so many and of nearly equal size."""
    blocks = -(-count // most)
    few = count // blocks
    larger = (count - blocks * few) * (few + 1)
    return [(b, e, step) for b, e, step in ((0, larger, few + 1), (larger, count, few)) if e > b]


class _Tile(NamedTuple):
    """The sums of some rows and some columns, each row's in vectors that stay in registers."""

    together: int  # rows
    last: Axis
    inner: list[Axis]
    base_left: str
    base_out: str
    column: str
    stride: int | None  # from row to row of a panel of a constant
    bias: bool

    def lines(self, low: int, high: int) -> list[str]:
        """The text for columns `low … high - 1` of the panel."""
        rows = range(self.together)
        parts = [(at, min(LANES, high - at)) for at in range(low, high, LANES)]  # first column and how many
        lines = [f"lanes s{r}_{at};" for r in rows for at, _ in parts]
        for r in rows:
            for at, many in parts:
                clear = f"CLEAR(s{r}_{at});"
                lines.append(f"{clear} COPY(&s{r}_{at}, r2 + {self.column} + {at}, {many});" if self.bias else clear)
        lines += [f"const float *a{r} = left + {self.base_left} + (i + {r}) * {self.last.left};" for r in rows]
        if self.stride is not None:
            lines.append(f"const float *b = panel + {low};")
        indent = ""
        for g, axis in enumerate(self.inner):
            lines.append(f"{indent}for (int k{g} = 0; k{g} < {axis.count}; k{g}++) {{")
            indent += "    "
        if self.stride is None:
            along = " + ".join(f"k{g} * {axis.right}" for g, axis in enumerate(self.inner))
            lines.append(f"{indent}const float *b = panel + {low} + {along};")
        at_left = " + ".join(f"k{g} * {axis.left}" for g, axis in enumerate(self.inner))
        lines += [f"{indent}const float x{r} = a{r}[{at_left}];" for r in rows]
        for at, many in parts:
            whole = LANES if self.stride is not None else many  # a packed constant has zeros behind its last column
            clear = "" if whole == LANES else f" CLEAR(y{at});"
            lines.append(f"{indent}lanes y{at};{clear} COPY(&y{at}, b + {at - low}, {whole});")
            lines += [f"{indent}ADD(s{r}_{at}, x{r}, y{at});" for r in rows]
        if self.stride is not None:
            lines.append(f"{indent}b += {self.stride};")
        for _ in self.inner:
            indent = indent[:-4]
            lines.append(f"{indent}}}")
        lines += [
            f"COPY(out + ({self.base_out}) + (i + {r}) * {self.last.out} + {at}, &s{r}_{at}, {many});"
            for r in rows
            for at, many in parts
        ]
        return lines
