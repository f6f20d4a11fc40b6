"""Rows for what moves entries or looks at them otherwise: views cost nothing, the rest is a copy."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from fanfold.deploy.codegen.kernels import Memory, Strided, broadcast_strides, dense_strides
from fanfold.deploy.codegen.nests import Pending, lean, loops, place
from fanfold.deploy.codegen.scalars import Line
from fanfold.deploy.codegen.writer import Operand, Writer, name_of, row

SAME_ORDER = ("view", "unsqueeze", "squeeze", "expand", "alias", "detach", "_unsafe_view", "reshape", "lift_fresh_copy")


@row(*SAME_ORDER, "permute", "transpose", "t", "select", "slice", "diagonal", "split_with_sizes", "split", "unbind")
def looked_at(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Other strides over the same memory, by the rules of torch itself."""
    value, out = args[0], node.meta["val"]
    if isinstance(value, Pending) and isinstance(out, Tensor) and lean(out.shape) == lean(value.shape):
        ordered = name_of(node) in SAME_ORDER
        if ordered or len(lean(out.shape)) <= 1:
            value.uses[0] += len(node.users)
            return value.of_shape(out.shape)
    view = writer.view(value)
    try:
        return _by_torch(view, node, args, kwargs)
    except (RuntimeError, ValueError):  # no strides say it
        return _by_torch(writer.copied(view), node, args, kwargs)


def _by_torch(view: Strided, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    plain = torch.empty(view.memory.size, dtype=view.dtype, device="meta")
    stand_in = plain.as_strided(view.shape, view.strides, view.offset)
    out = node.target(stand_in, *args[1:], **kwargs)  # pyrefly: ignore
    if isinstance(out, Tensor):
        return view.reshaped(out.shape, out.stride(), int(out.storage_offset()))
    return [view.reshaped(t.shape, t.stride(), int(t.storage_offset())) for t in out]


@row("clone", "contiguous")
def itself(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value itself: nothing is written in place."""
    value = args[0]
    if isinstance(value, Pending):
        value.uses[0] += len(node.users)
        return value.of_shape(value.shape)
    return value


@row("_to_copy")
def converted(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value in another type."""
    out = node.meta["val"]
    if args[0].dtype == out.dtype:
        return itself(writer, node, args, kwargs)
    return writer.let(Line("{0}"), args[:1], out.shape, out.dtype, len(node.users))


@row("full_like", "zeros_like", "ones_like", "empty_like", "new_full", "new_zeros", "new_ones", "new_empty")
def constant(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A constant that has only its shape of an input."""
    out, name = node.meta["val"], str(node.target)
    value = args[-1] if "full" in name else 1 if "ones" in name else 0
    return torch.full((1,) * out.ndim, value, dtype=out.dtype).expand(out.shape)


@row("cat")
def joined(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """One after the other along an axis."""
    out = node.meta["val"]
    target = writer.new(out.shape, out.dtype)
    d = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    at = 0
    for part in args[0]:
        if part.dtype != out.dtype:
            part = writer.let(Line("{0}"), [part], part.shape, out.dtype, 1)
        if not math.prod(part.shape):
            continue
        shape = tuple(part.shape)
        writer.copy(writer.view(part), target.reshaped(shape, target.strides, target.offset + at * target.strides[d]))
        at += shape[d]
    return target


@row("constant_pad_nd")
def padded(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """A frame of one number around a tensor; where the frame is negative, the tensor is cut."""
    view, out = writer.view(args[0]), node.meta["val"]
    target = writer.new(out.shape, out.dtype)
    writer.fill(target, args[2] if len(args) > 2 else 0.0)
    frame = [(0, 0)] * (out.ndim - len(args[1]) // 2)
    frame += [(args[1][i], args[1][i + 1]) for i in range(len(args[1]) - 2, -1, -2)]
    shape, start, into = [], view.offset, 0
    for d, (low, high) in enumerate(frame):
        shape.append(view.shape[d] + min(low, 0) + min(high, 0))
        start += max(-low, 0) * view.strides[d]
        into += max(low, 0) * target.strides[d]
    writer.copy(view.reshaped(shape, view.strides, start), target.reshaped(shape, target.strides, into))
    return target


@row("slice_scatter", "select_scatter")
def laid_over(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """A tensor with a part of it replaced."""
    out = writer.copied(writer.view(args[0]))
    plain = torch.empty(out.memory.size, device="meta").as_strided(out.shape, out.strides)
    of = torch.ops.aten.slice.Tensor if "slice" in str(node.target) else torch.ops.aten.select.int
    part = of(plain, *args[2:])
    writer.copy(writer.view(args[1]), out.reshaped(part.shape, part.stride(), int(part.storage_offset())))
    return out


@row("repeat")
def repeated(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """A tensor again and again along its axes."""
    view, out = writer.view(args[0]), node.meta["val"]
    missing = out.ndim - len(view.shape)
    sizes, strides = (1,) * missing + view.shape, (0,) * missing + view.strides
    shape = [n for pair in zip(args[1], sizes) for n in pair]
    twice = view.reshaped(shape, [s for stride in strides for s in (0, stride)])
    return writer.copied(twice).reshaped(out.shape, dense_strides(out.shape))


@row("flip")
def reversed_along(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Backwards along some axes."""
    view = writer.view(args[0])
    axes = {d % len(view.shape) for d in args[1]}
    strides = [-s if d in axes else s for d, s in enumerate(view.strides)]
    start = view.offset + sum((view.shape[d] - 1) * view.strides[d] for d in axes)
    return writer.copied(view.reshaped(view.shape, strides, start))


@row("index")
def picked(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Entries at indices, which must be constants."""
    view, indices = writer.view(args[0]), args[1]
    if not all(index is None or isinstance(index, Tensor) for index in indices):
        return _picked_by_values(writer, node, view, indices)
    numbers = torch.arange(math.prod(view.shape)).reshape(view.shape)
    return _taken(writer, writer.dense(view), numbers[tuple(slice(None) if i is None else i for i in indices)])


def _taken(writer: Writer, view: Strided, numbers: Tensor) -> Strided:
    """The entries of a dense view that have these numbers."""
    out = writer.new(numbers.shape, view.dtype)
    table = writer.calls.constant(numbers.to(torch.int64))
    body = loops([out.memory.size], ["w0[i0] = r0[r1[i0]];"])
    writer.calls.add(body, [view, (table, 0)], [out])
    return out


def _picked_by_values(writer: Writer, node: fx.Node, view: Strided, indices: list[Operand | None]) -> Strided:
    """Entries at indices that are computed, along neighbouring axes."""
    axes = [d for d, index in enumerate(indices) if index is not None]
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise ValueError(f"{node.target} takes indices along axes {axes}; only neighbouring axes have C.")
    out, first = node.meta["val"], axes[0]
    tables = [writer.view(index) for index in indices if index is not None]
    shape = torch.broadcast_shapes(*(table.shape for table in tables))
    target, many = writer.new(out.shape, out.dtype), len(shape)
    lines, terms = [], [f"i{d} * {view.strides[d]}" for d in range(first)]
    for k, (d, table) in enumerate(zip(axes, tables)):
        strides = broadcast_strides(table, many)
        at = " + ".join(f"i{first + g} * {s}" for g, s in enumerate(strides) if s) or "0"
        lines.append(f"const int64_t k{k} = r{k + 1}[{at}];")
        terms.append(f"(k{k} < 0 ? k{k} + {view.shape[d]} : k{k}) * {view.strides[d]}")
    terms += [f"i{d + many - len(axes)} * {view.strides[d]}" for d in range(axes[-1] + 1, len(view.shape))]
    lines.append(f"w0[{place(target.strides)}] = r0[{' + '.join(terms)}];")
    writer.calls.add(loops(out.shape, lines), [view, *tables], [target])
    return target


@row("index_put")
def put(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """A tensor with other entries at indices, which must be constants; the last of several for one place stays."""
    base, indices, values, *accumulate = args
    if (accumulate and accumulate[0]) or not all(index is None or isinstance(index, Tensor) for index in indices):
        raise ValueError(f"{node.target} adds entries, or has indices that are computed; neither has C.")
    out = writer.copied(writer.view(base))
    numbers = torch.arange(math.prod(out.shape)).reshape(out.shape)
    numbers = numbers[tuple(slice(None) if i is None else i for i in indices)]
    view = writer.view(values)
    view = writer.dense(view.reshaped(numbers.shape, broadcast_strides(view, numbers.ndim)))
    body = loops([numbers.numel()], ["w0[r1[i0]] = r0[i0];"])
    writer.calls.add(body, [view, (writer.calls.constant(numbers.to(torch.int64)), 0)], [out])
    return out


@row("index_select")
def selected(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Entries at indices along one axis."""
    d = args[1] % len(args[0].shape)
    return picked(writer, node, (args[0], [*([None] * d), args[2]]), kwargs)


@row("gather")
def gathered(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Along one axis, the entries at indices that differ from place to place."""
    view, table, out = writer.view(args[0]), writer.view(args[2], torch.int64), node.meta["val"]
    d, target = args[1] % max(1, out.ndim), writer.new(out.shape, out.dtype)
    terms = [f"k * {s}" if g == d else f"i{g} * {s}" for g, s in enumerate(view.strides)]
    lines = [
        f"const int64_t k = r1[{place(table.strides)}];",
        f"w0[{place(target.strides)}] = r0[{' + '.join(terms)}];",
    ]
    writer.calls.add(loops(out.shape, lines), [view, table], [target])
    return target


@row("cumsum")
def running(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Sums of all entries up to each."""
    out = node.meta["val"]
    source = writer.copied(writer.view(args[0]))
    target, d = writer.new(out.shape, out.dtype), args[1] % max(1, out.ndim)
    others = [n for g, n in enumerate(out.shape) if g != d]
    strides = [s for g, s in enumerate(target.strides) if g != d]
    step, at = target.strides[d], place(strides)
    lines = [
        f"{target.memory.c_type} sum = 0;",
        f"for (int k = 0; k < {out.shape[d]}; k++) {{",
        f"    sum += r0[{at} + k * {step}];",
        f"    w0[{at} + k * {step}] = sum;",
        "}",
    ]
    writer.calls.add(loops(others, lines), [source], [target])
    return target


@row("sort", "topk")
def ordered(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Strided, Strided]:
    """Values in order and their places; equal ones keep theirs. Bottom-up merging, in memory of the workspace."""
    view = writer.view(args[0])
    rest = list(args[1:])
    if "stable" in str(node.target):  # sort.stable(self, *, stable, dim, descending)
        rest = [kwargs.get("dim", -1), kwargs.get("descending", False)]
    count = rest.pop(0) if "topk" in str(node.target) else None
    d = (rest[0] if rest else -1) % len(view.shape)
    falling = (rest[1] if len(rest) > 1 else count is not None) or False
    last = [g for g in range(len(view.shape)) if g != d] + [d]
    source = view.reshaped([view.shape[g] for g in last], [view.strides[g] for g in last])
    values = writer.copied(source)
    n, rows_ = source.shape[-1], math.prod(source.shape[:-1])
    sorted_values, places = writer.new(source.shape, view.dtype), writer.new(source.shape, torch.int64)
    other = (Memory("work", view.dtype, n), 0), (Memory("work", torch.int64, n), 0)
    body = SORT.format(n=n, rows=rows_, kind=view.memory.c_type, sign="<" if falling else ">")
    writer.calls.add(body, [values], [sorted_values, places, *other])
    back = [last.index(g) for g in range(len(last))]
    shape = [view.shape[g] if g != d or count is None else count for g in range(len(last))]
    dense = dense_strides(source.shape)
    strides = [dense[g] for g in back]
    return sorted_values.reshaped(shape, strides), places.reshaped(shape, strides)


SORT = """\
    for (int row = 0; row < {rows}; row++) {{
        {kind} *v = w0 + row * {n}, *u = w2;
        int64_t *at = w1 + row * {n}, *bt = w3;
        for (int i = 0; i < {n}; i++) {{
            v[i] = r0[row * {n} + i];
            at[i] = i;
        }}
        for (int width = 1; width < {n}; width *= 2) {{
            for (int start = 0; start < {n}; start += 2 * width) {{
                const int middle = start + width < {n} ? start + width : {n};
                const int end = start + 2 * width < {n} ? start + 2 * width : {n};
                int a = start, b = middle;
                for (int k = start; k < end; k++) {{
                    const int second = a >= middle || (b < end && v[a] {sign} v[b]);
                    const int from = second ? b++ : a++;
                    u[k] = v[from];
                    bt[k] = at[from];
                }}
            }}
            for (int i = 0; i < {n}; i++) {{
                v[i] = u[i];
                at[i] = bt[i];
            }}
        }}
    }}"""
