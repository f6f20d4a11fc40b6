"""Rows for products of matrices, vectors and batches of them."""

from typing import Any

from torch import Tensor, fx

from fanfold.deploy.codegen.kernels import Strided
from fanfold.deploy.codegen.nests import Pending
from fanfold.deploy.codegen.scalars import Line
from fanfold.deploy.codegen.tiles import FEW, NARROW, Axis, product
from fanfold.deploy.codegen.writer import Operand, Writer, row


def matrices(writer: Writer, left: Operand, right: Operand, shape: Any, bias: Tensor | None = None) -> Strided:
    """The products of matrices `(batch, i, k)` and `(batch, k, j)`."""
    if all(isinstance(o, Tensor) for o in (left, right)):
        left = writer.view(left)
    m, n = shape[-2:]
    constant_left = isinstance(left, Tensor)
    if bias is None and n < m and (n < FEW or (constant_left and n < NARROW)):  # (left right)ᵀ = rightᵀ leftᵀ
        turned = matrices(writer, flipped(writer, right), flipped(writer, left), (*shape[:-2], n, m))
        return swapped(turned)
    a = writer.view(left)
    out = writer.new(shape, a.dtype)
    batch = shape[0]
    k, k_step = a.shape[-1], a.strides[-1]
    if isinstance(right, Tensor):
        b: Strided | Tensor = right if batch > 1 else right[:1]
        if batch > 1 and right.stride(0) == 0:
            b = right[:1]
        step = 0
    else:
        b = writer.view(right)
        if b.strides[-1] != 1 and b.shape[-1] != 1:
            b = writer.copied(b)
        step = b.strides[0] if b.shape[0] > 1 else 0
    inner = [Axis(k, k_step, 0, 0 if isinstance(b, Tensor) else b.strides[-2])]
    axes = [Axis(batch, a.strides[0] if a.shape[0] > 1 else 0, out.strides[0], step)] if batch > 1 else []
    rows = [Axis(m, a.strides[-2], out.strides[-2])]
    if isinstance(b, Tensor) and len(b) == 1 and batch > 1:  # one constant for all: they are more rows
        rows, axes = [Axis(batch, axes[0].left, axes[0].out), *rows], []
        if a.strides[0] == m * a.strides[-2]:
            rows = [Axis(batch * m, a.strides[-2], out.strides[-2])]
    product(writer, a, rows, inner, b, n, out, axes, bias)
    return out


def flipped(writer: Writer, value: Operand) -> Operand:
    """The transposed matrices."""
    return value.transpose(-2, -1) if isinstance(value, Tensor) else swapped(writer.view(value))


def swapped(view: Strided) -> Strided:
    """The transposed matrices in memory, at no cost."""
    shape, strides = list(view.shape), list(view.strides)
    shape[-2:], strides[-2:] = shape[:-3:-1], strides[:-3:-1]
    return view.reshaped(shape, strides)


def _framed(writer: Writer, value: Operand, where: int) -> Operand:
    """The value with one more dimension of one entry."""
    if isinstance(value, Tensor):
        return value.unsqueeze(where)
    view = writer.view(value)
    shape, strides = list(view.shape), list(view.strides)
    where %= len(shape) + 1
    shape.insert(where, 1)
    strides.insert(where, 0)
    return view.reshaped(shape, strides)


@row("mm", "bmm", "mv", "dot")
def multiplied(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided:
    """Products of matrices and vectors."""
    left, right = args[0], args[1]
    kinds = len(left.shape), len(right.shape)
    if kinds[0] == 1:
        left = _framed(writer, left, 0)
    if kinds[1] == 1:
        right = _framed(writer, right, -1)
    if kinds[0] < 3:
        left, right = _framed(writer, left, 0), _framed(writer, right, 0)
    out = matrices(writer, left, right, (left.shape[0], left.shape[-2], right.shape[-1]))
    shape, strides = list(out.shape), list(out.strides)
    if kinds[1] == 1:
        shape.pop(-1), strides.pop(-1)
    if kinds[0] == 1:
        shape.pop(1), strides.pop(1)
    if kinds[0] < 3:
        shape.pop(0), strides.pop(0)
    return out.reshaped(shape, strides)


@row("addmm")
def affine(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Strided | Pending:
    """A product of matrices and a sum; a constant row starts the sums."""
    bias, left, right = args
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    out = node.meta["val"]
    framed = _framed(writer, left, 0), _framed(writer, right, 0)
    row_bias = isinstance(bias, Tensor) and isinstance(right, Tensor) and beta == alpha == 1 and out.shape[-1] >= FEW
    if row_bias:
        whole = bias.expand(out.shape)
        if (whole == whole[:1]).all():
            total = matrices(writer, *framed, (1, *out.shape), bias=whole[0].contiguous())
            return total.reshaped(out.shape, total.strides[1:])
    total = matrices(writer, *framed, (1, *out.shape))
    total = total.reshaped(out.shape, total.strides[1:])
    text = Line("{0} * {1} + {2} * {3}") if (beta, alpha) != (1, 1) else Line("{0} + {1}")
    operands = [float(beta), bias, float(alpha), total] if (beta, alpha) != (1, 1) else [bias, total]
    return writer.let(text, operands, out.shape, out.dtype, len(node.users))
