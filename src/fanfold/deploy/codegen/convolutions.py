"""Rows for convolutions and for pooling: products over the windows of an image whose channels are side by side."""

import math
from typing import Any

import torch
from torch import Tensor, fx

from fanfold.deploy.codegen.kernels import Strided, dense_strides
from fanfold.deploy.codegen.nests import loops, place
from fanfold.deploy.codegen.tiles import Axis, product
from fanfold.deploy.codegen.writer import Writer, row


@row("convolution")
def convolution(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """A convolution with constant weights, of one or two axes.

    Raises:
        ValueError: If it is transposed, or its weights are computed.
    """
    image, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed or not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise ValueError(
            f"{node.target} is transposed or its weights are computed; only convolutions with constant weights have C."
        )
    out = node.meta["val"]
    if out.ndim == 3:  # one axis is an image of one line
        weight, stride, padding, dilation = weight.unsqueeze(2), [1, *stride], [0, *padding], [1, *dilation]
    view = writer.view(image)
    if out.ndim == 3:
        view = view.reshaped((*view.shape[:2], 1, view.shape[2]), (*view.strides[:2], 0, view.strides[2]))
    samples, channels = view.shape[:2]
    framed = _channels_last(writer, view, padding)
    _, _, kh, kw = weight.shape
    shape = (samples, weight.shape[0], *(out.shape[2:] if out.ndim == 4 else (1, out.shape[2])))
    target = _image(writer, shape)
    each_in, each_out = channels // groups, weight.shape[0] // groups
    _, one, line, pixel = framed.strides
    for g in range(groups):
        part = weight[g * each_out : (g + 1) * each_out]
        matrix = part.permute(2, 3, 1, 0).reshape(1, kh * kw * each_in, each_out)
        into = target.reshaped(target.shape, target.strides, g * each_out)
        source = framed.reshaped(framed.shape, framed.strides, g * each_in)
        rows = [
            Axis(samples, framed.strides[0], target.strides[0]),
            Axis(shape[2], line * stride[0], target.strides[2]),
            Axis(shape[3], pixel * stride[1], target.strides[3]),
        ]
        rows = [axis for axis in rows[:2] if axis.count > 1] + rows[2:]
        inner = [Axis(kh, line * dilation[0]), Axis(kw, pixel * dilation[1]), Axis(each_in, one)]
        offset = None if bias is None else bias[g * each_out : (g + 1) * each_out].contiguous()
        product(writer, source, rows, inner, matrix, each_out, into, bias=offset)
    if out.ndim == 3:
        return target.reshaped(out.shape, (*target.strides[:2], target.strides[3]))
    return target


def _image(writer: Writer, shape: tuple[int, ...]) -> Strided:
    """New memory for an image `(samples, channels, height, width)` whose channels are side by side."""
    samples, channels, height, width = shape
    memory = writer.new((samples, height, width, channels), torch.float32)
    return memory.reshaped(shape, (height * width * channels, 1, width * channels, channels))


def _channels_last(writer: Writer, view: Strided, padding: list[int]) -> Strided:
    """The image with its channels side by side, in a frame of zeros."""
    samples, channels, height, width = view.shape
    last = view.strides[1] == 1 and view.strides[3] == channels and view.strides[2] == channels * width
    if last and not any(padding):
        return view
    top, left = padding
    framed = _image(writer, (samples, channels, height + 2 * top, width + 2 * left))
    if any(padding):
        writer.fill(framed.reshaped((framed.memory.size,), (1,)), 0.0)
    start = top * framed.strides[2] + left * framed.strides[3]
    order = (0, 2, 3, 1)
    writer.copy(
        view.reshaped([view.shape[d] for d in order], [view.strides[d] for d in order]),
        framed.reshaped([view.shape[d] for d in order], [framed.strides[d] for d in order], start),
    )
    return framed


@row("avg_pool2d", "avg_pool1d")
def averaged(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Means over windows without a frame.

    Raises:
        ValueError: If there is a frame, or the last windows are cut.
    """
    out, kernel = node.meta["val"], list(args[1])
    stride = list(args[2]) if len(args) > 2 and args[2] else kernel
    if len(args) > 3 and any(any(x) if isinstance(x, list) else x for x in args[3:5]):
        raise ValueError(f"{node.target} with padding or ceil_mode has no C; pool without them.")
    view, many = writer.view(args[0]), len(kernel)
    target = writer.new(out.shape, out.dtype)
    lead = out.ndim - many
    steps = [*view.strides[:lead], *(s * t for s, t in zip(view.strides[lead:], stride))]
    window = [f"for (int k{g} = 0; k{g} < {n}; k{g}++)" for g, n in enumerate(kernel)]
    at = " + ".join([place(steps), *(f"k{g} * {view.strides[lead + g]}" for g in range(many))])
    lines = [
        "float acc = 0;",
        *("    " * g + line for g, line in enumerate(window)),
        "    " * many + f"acc += r0[{at}];",
        f"w0[{place(dense_strides(out.shape))}] = acc / {math.prod(kernel)};",
    ]
    writer.calls.add(loops(out.shape, lines), [view], [target])
    return target
