"""Rows for small systems of equations: inverses, solutions, factors, computed in double precision inside.

Gauss-Jordan elimination with partial pivots, and Cholesky's factor; Golub & Van Loan (2013), 3.4 and 4.2.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx

from fanfold.deploy.codegen.kernels import Memory, Strided
from fanfold.deploy.codegen.writer import Operand, Writer, name_of, row

SOLVE = """\
    for (int s = 0; s < {batch}; s++) {{
        for (int i = 0; i < {n}; i++) {{
            for (int j = 0; j < {n}; j++) w1[i * {w} + j] = r0[s * {n2} + i * {n} + j];
            for (int j = 0; j < {c}; j++) w1[i * {w} + {n} + j] = {right};
        }}
        for (int k = 0; k < {n}; k++) {{
            int pivot = k;
            for (int i = k + 1; i < {n}; i++)
                if (fabs(w1[i * {w} + k]) > fabs(w1[pivot * {w} + k])) pivot = i;
            for (int j = k; pivot != k && j < {w}; j++) {{
                const double x = w1[k * {w} + j];
                w1[k * {w} + j] = w1[pivot * {w} + j];
                w1[pivot * {w} + j] = x;
            }}
            const double scale = 1 / w1[k * {w} + k];
            for (int j = k; j < {w}; j++) w1[k * {w} + j] *= scale;
            for (int i = 0; i < {n}; i++) {{
                const double factor = w1[i * {w} + k];
                for (int j = k; i != k && j < {w}; j++) w1[i * {w} + j] -= factor * w1[k * {w} + j];
            }}
        }}
        for (int i = 0; i < {n}; i++)
            for (int j = 0; j < {c}; j++) w0[(s * {n} + i) * {c} + j] = ({kind})w1[i * {w} + {n} + j];
    }}"""
CHOLESKY = """\
    for (int s = 0; s < {batch}; s++) {{
        for (int i = 0; i < {n}; i++) {{
            for (int j = 0; j < {n}; j++) {{
                double x = j > i ? 0 : r0[s * {n2} + i * {n} + j];
                for (int k = 0; k < j && j <= i; k++) x -= w1[i * {n} + k] * w1[j * {n} + k];
                w1[i * {n} + j] = j > i ? 0 : j == i ? sqrt(x) : x / w1[j * {n} + j];
            }}
        }}
        for (int i = 0; i < {n2}; i++) w0[s * {n2} + {to}] = ({kind})w1[i];
    }}"""
TRIANGULAR = """\
    for (int s = 0; s < {batch}; s++) {{
        for (int j = 0; j < {c}; j++) {{
            for (int q = 0; q < {n}; q++) {{
                const int i = {row};
                double x = r1[(s * {n} + i) * {c} + j];
                for (int k = {low}; k < {high}; k++) x -= (double)r0[s * {n2} + i * {n} + k] * w1[k];
                w1[i] = {divided};
            }}
            for (int i = 0; i < {n}; i++) w0[(s * {n} + i) * {c} + j] = ({kind})w1[i];
        }}
    }}"""


def _workspace(size: int) -> tuple[Memory, int]:
    return Memory("work", torch.float64, size), 0


def _stack(writer: Writer, value: Operand) -> tuple[Strided, int, int]:
    view = writer.dense(value)
    return view, math.prod(view.shape[:-2]), view.shape[-1]


def solution(writer: Writer, matrix: Operand, right: Operand | None) -> Strided:
    """The solutions of systems; their inverses where there is no right side."""
    view, batch, n = _stack(writer, matrix)
    sides = [] if right is None else [writer.dense(right)]
    shape = sides[0].shape if sides else view.shape
    columns = shape[-1]
    text = "i == j" if right is None else f"r1[(s * {n} + i) * {columns} + j]"
    out = writer.new(shape, view.dtype)
    body = SOLVE.format(batch=batch, n=n, n2=n * n, c=columns, w=n + columns, right=text, kind=view.memory.c_type)
    writer.calls.add(
        body, [view, *sides], [out, _workspace(n * (n + columns))], products=batch * n * n * (n + columns) // 2
    )
    return out


@row("linalg_inv_ex", "linalg_inv", "inverse")
def inverse(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Inverses of matrices; one that has none gives infinities or NaN, which the program does not report."""
    out = solution(writer, args[0], None)
    return (out, torch.zeros((), dtype=torch.int32)) if isinstance(node.meta["val"], tuple | list) else out


@row("_linalg_solve_ex", "linalg_solve_ex", "linalg_solve")
def solved(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Solutions of systems of equations.

    Raises:
        ValueError: If the unknowns stand on the left.
    """
    val = node.meta["val"]
    out = val[0] if isinstance(val, tuple | list) else val
    matrix, right = args[0], args[1]
    if not kwargs.get("left", True):
        raise ValueError(f"{node.target} with left=False has no C; transpose both sides.")
    vector = len(right.shape) == len(matrix.shape) - 1
    view = writer.dense(right)
    if vector:
        view = view.reshaped((*view.shape, 1), (*view.strides, 1))
    result = solution(writer, matrix, view)
    result = result.reshaped(out.shape, result.strides[: out.ndim])
    return (result, *(None for _ in val[1:])) if isinstance(val, tuple | list) else result


@row("linalg_cholesky_ex", "cholesky", "linalg_cholesky")
def factored(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Cholesky's factors; where a matrix has none they are NaN."""
    view, batch, n = _stack(writer, args[0])
    upper = kwargs.get("upper", args[1] if len(args) > 1 else False)
    out = writer.new(view.shape, view.dtype)
    to = f"i % {n} * {n} + i / {n}" if upper else "i"
    body = CHOLESKY.format(batch=batch, n=n, n2=n * n, to=to, kind=view.memory.c_type)
    writer.calls.add(body, [view], [out, _workspace(n * n)], products=batch * n**3 // 6)
    return (out, torch.zeros((), dtype=torch.int32)) if isinstance(node.meta["val"], tuple | list) else out


@row("linalg_solve_triangular", "triangular_solve")
def substituted(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Solutions of triangular systems.

    Raises:
        ValueError: If the unknowns stand on the left.
    """
    old = name_of(node) == "triangular_solve"  # triangular_solve(right, matrix, upper, transpose, unit)
    matrix, right = (args[1], args[0]) if old else (args[0], args[1])
    upper = (args[2] if len(args) > 2 else True) if old else kwargs["upper"]
    if (old and len(args) > 3 and args[3]) or not kwargs.get("left", True):
        raise ValueError(f"{node.target} with left=False or transposed has no C; transpose both sides.")
    unit = kwargs.get("unitriangular", False) or (old and len(args) > 4 and args[4])
    if isinstance(matrix, Tensor):
        matrix = matrix.expand(*right.shape[:-2], *matrix.shape[-2:]).contiguous()
    view, batch, n = _stack(writer, matrix)
    sides = writer.dense(right)
    out = writer.new(sides.shape, sides.dtype)
    body = TRIANGULAR.format(
        batch=batch,
        n=n,
        n2=n * n,
        c=sides.shape[-1],
        kind=sides.memory.c_type,
        row=f"{n - 1} - q" if upper else "q",
        low="i + 1" if upper else "0",
        high=str(n) if upper else "i",
        divided="x" if unit else f"x / r0[s * {n * n} + i * {n} + i]",
    )
    writer.calls.add(body, [view, sides], [out, _workspace(n)], products=batch * n * n * sides.shape[-1] // 2)
    return (out, None) if isinstance(node.meta["val"], tuple | list) else out
