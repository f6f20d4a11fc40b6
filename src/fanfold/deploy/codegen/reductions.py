"""Rows for what makes one number of many: sums, means, extremes and their places."""

import math
from typing import Any

import torch
from torch import fx

from fanfold.deploy.codegen.kernels import Strided, dense_strides
from fanfold.deploy.codegen.nests import Pending, loops, merged, place
from fanfold.deploy.codegen.scalars import LARGER, SMALLER, Line
from fanfold.deploy.codegen.writer import Operand, Writer, cast, name_of, row

LANES = 16  # partial sums side by side, so that a compiler that keeps the order of sums has vectors to work with
LONG = 64  # entries from which lanes are worth while
STARTS = {"sum": "0", "prod": "1", "any": "0", "all": "1"}
STEPS = {
    "sum": "acc += {x};",
    "prod": "acc *= {x};",
    "any": "acc = acc || {x};",
    "all": "acc = acc && {x};",
    "amax": f"acc = {LARGER.format('acc', '{x}')};",
    "amin": f"acc = {SMALLER.format('acc', '{x}')};",
}


def axes_of(axes: Any, ndim: int) -> list[int]:
    """Axes as positive numbers; all of them where none are given."""
    if axes is None or axes == []:
        return list(range(ndim))
    return sorted(d % max(1, ndim) for d in ([axes] if isinstance(axes, int) else axes))


def reduced(writer: Writer, kind: str, value: Operand, axes: list[int], shape: Any, dtype: torch.dtype) -> Strided:
    """A reduction over axes, into an output of that shape."""
    view = writer.view(value)
    out = writer.new(shape, dtype)
    kept = _kept(view, axes)
    gone = merged([(n, (s,)) for d, (n, s) in enumerate(zip(view.shape, view.strides)) if d in axes and n != 1])
    gone.sort(key=lambda group: -group[1][0])
    start = place(s for _, (s, _) in kept)
    into = place(s for _, (_, s) in kept)
    c_type = "int" if dtype == torch.bool else out.memory.c_type
    if kind == "sum" and len(gone) == 1 and gone[0][1][0] == 1 and gone[0][0] >= LONG and dtype.is_floating_point:
        lines = _lanes(gone[0][0], start, into, c_type)
    else:
        lines = _plain(kind, gone, view, start, into, c_type, dtype)
    writer.calls.add(loops([n for n, _ in kept], lines), [view], [out])
    return out


def _kept(view: Strided, axes: list[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The loops over all other axes, with their strides in the view and in a dense output."""
    kept = [d for d, n in enumerate(view.shape) if d not in axes and n != 1]
    dense = dense_strides([view.shape[d] for d in kept])
    return merged([(view.shape[d], (view.strides[d], stride)) for d, stride in zip(kept, dense)])


def _plain(kind: str, gone: list, view: Strided, start: str, into: str, c_type: str, dtype: torch.dtype) -> list[str]:
    terms = [start] + [f"k{g} * {s}" for g, (_, (s,)) in enumerate(gone)]
    x = cast(f"r0[{' + '.join(terms)}]", view.dtype, dtype)
    first = STARTS.get(kind, f"r0[{start}]")
    lines = [f"{c_type} acc = {first};"]
    lines += [f"{'    ' * g}for (int k{g} = 0; k{g} < {n}; k{g}++) {{" for g, (n, _) in enumerate(gone)]
    inner = "    " * len(gone)
    lines += [f"{inner}const {c_type} x = {x};", inner + STEPS[kind].format(x="x")]
    lines += ["    " * g + "}" for g in reversed(range(len(gone)))]
    return ["{", *("    " + line for line in lines), f"    w0[{into}] = acc;", "}"]


def _lanes(n: int, start: str, into: str, c_type: str) -> list[str]:
    whole = n // LANES * LANES
    return [
        "{",
        f"    const {c_type} *x = r0 + {start};",
        f"    {c_type} acc[{LANES}];",
        f"    for (int l = 0; l < {LANES}; l++) acc[l] = 0;",
        f"    for (int k = 0; k < {whole}; k += {LANES})",
        f"        for (int l = 0; l < {LANES}; l++) acc[l] += x[k + l];",
        *([f"    for (int k = {whole}; k < {n}; k++) acc[k - {whole}] += x[k];"] if whole < n else []),
        f"    for (int h = {LANES // 2}; h; h /= 2)",
        "        for (int l = 0; l < h; l++) acc[l] += acc[l + h];",
        f"    w0[{into}] = acc[0];",
        "}",
    ]


@row("sum", "prod", "any", "all", "amax", "amin")
def reduction(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Sums, products and extremes over some axes."""
    out, value = node.meta["val"], args[0]
    axes = axes_of(args[1] if len(args) > 1 else kwargs.get("dim"), len(value.shape))
    kind = name_of(node)
    if out.dtype != value.dtype and kind in ("sum", "prod"):
        value = writer.let(Line("{0}"), [value], value.shape, out.dtype, 1)
    elif out.dtype == torch.bool and value.dtype != torch.bool:
        value = writer.let(Line("{0} != 0", answers=True), [value], value.shape, torch.bool, 1)
    return reduced(writer, kind, value, axes, out.shape, out.dtype)


@row("mean")
def mean(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """Means over some axes."""
    out, value = node.meta["val"], args[0]
    axes = axes_of(args[1] if len(args) > 1 else kwargs.get("dim"), len(value.shape))
    total = reduced(writer, "sum", value, axes, out.shape, out.dtype)
    count = math.prod(value.shape[d] for d in axes)
    return writer.let(Line("{0} / {1}"), [total, float(count)], out.shape, out.dtype, len(node.users))


@row("var", "std")
def variance(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
    """Variances over some axes, by the squares of what is left when the mean is taken off."""
    out, value = node.meta["val"], args[0]
    axes = axes_of(args[1] if len(args) > 1 else kwargs.get("dim"), len(value.shape))
    correction = kwargs.get("correction", 1)
    count = math.prod(value.shape[d] for d in axes)
    view = writer.view(value)
    shape = [1 if d in axes else n for d, n in enumerate(view.shape)]
    total = reduced(writer, "sum", view, axes, shape, out.dtype)
    middle = writer.let(Line("{0} / {1}"), [total, float(count)], shape, out.dtype, 1)
    squares = writer.let(Line("({0} - {1}) * ({0} - {1})"), [view, writer.view(middle)], view.shape, out.dtype, 1)
    spread = reduced(writer, "sum", squares, axes, out.shape, out.dtype)
    root = "sqrt{f}({0} / {1})" if name_of(node) == "std" else "{0} / {1}"
    return writer.let(
        Line(root),
        [spread, float(max(count - (1 if correction is None else correction), 0))],
        out.shape,
        out.dtype,
        len(node.users),
    )


@row("argmax", "argmin", "max", "min")
def extreme(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Extremes along one axis and the first place of each, or of all entries."""
    name, view = name_of(node), writer.view(args[0])
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    if axis is None and not name.startswith("arg"):
        return reduced(writer, f"a{name}", view, axes_of(None, len(view.shape)), (), view.dtype)
    if axis is None:
        view = writer.dense(view)
        view, axis = view.reshaped((view.memory.size,), (1,)), 0
    d = axis % max(1, len(view.shape))
    out = node.meta["val"] if name.startswith("arg") else node.meta["val"][1]
    values, places = writer.new(out.shape, view.dtype), writer.new(out.shape, torch.int64)
    groups = _kept(view, [d])
    start, into = place(s for _, (s, _) in groups), place(s for _, (_, s) in groups)
    sign = ">" if "max" in name else "<"
    lines = [
        "{",
        f"    {view.memory.c_type} best = r0[{start}];",
        "    int64_t at = 0;",
        f"    for (int k = 1; k < {view.shape[d]}; k++) {{",
        f"        const {view.memory.c_type} x = r0[{start} + k * {view.strides[d]}];",
        f"        if (x {sign} best || (x != x && best == best)) {{",
        "            best = x;",
        "            at = k;",
        "        }",
        "    }",
        f"    w0[{into}] = best;",
        f"    w1[{into}] = at;",
        "}",
    ]
    writer.calls.add(loops([n for n, _ in groups], lines), [view], [values, places])
    return places if name.startswith("arg") else (values, places)
