"""Rows for layers that take off a mean and divide by a deviation: of groups of channels, or of the last axes."""

import math
from collections.abc import Sequence
from typing import Any

from torch import fx

from fanfold.deploy.codegen.kernels import Strided
from fanfold.deploy.codegen.nests import Pending
from fanfold.deploy.codegen.reductions import reduced
from fanfold.deploy.codegen.scalars import Line
from fanfold.deploy.codegen.writer import Operand, Writer, row


def centred(writer: Writer, view: Strided, axes: Sequence[int]) -> tuple[Strided, Strided]:
    """What is left when the mean over some axes is taken off, and the variance over them."""
    count = float(math.prod(view.shape[d] for d in axes))
    shape = [1 if d in axes else n for d, n in enumerate(view.shape)]
    total = reduced(writer, "sum", view, list(axes), shape, view.dtype)
    rest = writer.view(writer.let(Line("{0} - {1} / {2}"), [view, total, count], view.shape, view.dtype, 1))
    squares = writer.let(Line("{0} * {0}"), [rest], view.shape, view.dtype, 1)
    spread = reduced(writer, "sum", squares, list(axes), shape, view.dtype)
    return rest, writer.view(writer.let(Line("{0} / {1}"), [spread, count], shape, view.dtype, 1))


def _normed(
    writer: Writer, view: Strided, axes: Sequence[int], eps: float, factors: Sequence[Operand | None], users: int
) -> Pending:
    """`(x - mean) / sqrt(var + eps)`, times a weight and plus a bias where there are such."""
    rest, var = centred(writer, view, axes)
    weight, bias = factors
    text = "{0} / sqrt{f}({1} + {2})"
    operands: list[Operand] = [rest, var, eps]
    for sign, factor in (("*", weight), ("+", bias)):
        if factor is not None:
            text += f" {sign} {{{len(operands)}}}"
            operands.append(factor)
    return writer.let(Line(text), operands, view.shape, view.dtype, users)


@row("native_group_norm")
def of_groups(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Of groups of channels: input, weight, bias, sizes, the number of groups, and what is added to the variance."""
    image, weight, bias, _, channels, _, groups, eps = args
    view = writer.view(image)
    shape = (view.shape[0], groups, channels // groups, *view.shape[2:])
    one = view.strides[1]
    split = view.reshaped(shape, (view.strides[0], one * shape[2], one, *view.strides[2:]))
    parts = [_of_channels(writer, factor, shape) for factor in (weight, bias)]
    normed = writer.view(_normed(writer, split, range(2, len(shape)), eps, parts, 1))
    strides = (normed.strides[0], _channel_stride(normed), *normed.strides[3:])
    if channels // groups > 1 and groups > 1 and normed.strides[1] != normed.strides[2] * shape[2]:
        normed = writer.copied(normed)
        strides = (normed.strides[0], normed.strides[2], *normed.strides[3:])
    return normed.reshaped(view.shape, strides), None, None


def _channel_stride(view: Strided) -> int:
    return view.strides[2] if view.shape[2] > 1 else view.strides[1]


def _of_channels(writer: Writer, factor: Operand | None, shape: Sequence[int]) -> Operand | None:
    """A number for each channel, as groups of channels."""
    if factor is None:
        return None
    view = writer.dense(factor)
    return view.reshaped((1, *shape[1:3], *(1,) * (len(shape) - 3)), (0, shape[2], 1, *(0,) * (len(shape) - 3)))


@row("native_layer_norm")
def of_last_axes(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Of the last axes: input, their shape, weight, bias, and what is added to the variance."""
    value, last, weight, bias, eps = args
    view = writer.view(value)
    axes = range(len(view.shape) - len(last), len(view.shape))
    return writer.view(_normed(writer, view, axes, eps, (weight, bias), 1)), None, None
