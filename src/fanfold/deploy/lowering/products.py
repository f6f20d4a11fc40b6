"""Products with constant matrices, each as one real product with a real matrix that is laid out beforehand.

Operators, weights and Fourier transforms are such matrices.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.core.complex_pairs import from_left, from_right
from fanfold.deploy.lowering.pairs import ComplexParts, Constant, Spread
from fanfold.deploy.lowering.rules import matrix_product

aten = torch.ops.aten
# computes a constant once, under a tag, and gives what stands for it
Keep = Callable[[Callable[[], Tensor], str], Tensor]
PRODUCTS: dict[Any, Callable[..., Any]] = {}  # operation: what takes `keep` before its arguments


def _product(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def entered(function: Callable[..., Any]) -> Callable[..., Any]:
        PRODUCTS.update(dict.fromkeys(targets, function))
        return function

    return entered


def opened(value: Any, keep: Keep, tag: str = "value") -> Any:
    """A constant, or a matrix that is the same for a batch, as tensors that stand for it in the program."""
    if isinstance(value, Spread):
        return opened(value.matrix, keep, tag)
    if not isinstance(value, Constant):
        return value
    z = value.value
    if z.is_complex():
        parts_of = ComplexParts.of_complex
        return ComplexParts(keep(lambda: parts_of(z).re, tag + "_re"), keep(lambda: parts_of(z).im, tag + "_im"))
    return keep(lambda: z.contiguous(), tag)


@_product(aten.mm.default, aten.bmm.default, aten.matmul.default)
def product(keep: Keep, a: Any, b: Any) -> Any:
    """The product of two matrices, or of a batch of them, of which one may be constant."""
    left, right = _matrix(a), _matrix(b)
    if left is not None and right is None:
        return _from_left(keep, left, opened(b, keep, "b"), one=isinstance(a, Spread))
    if right is not None:
        return _from_right(keep, opened(a, keep, "a"), right, one=isinstance(b, Spread))
    a, b = opened(a, keep, "a"), opened(b, keep, "b")
    return matrix_product(a, b) if isinstance(a, ComplexParts) else a @ b


def _matrix(value: Any) -> Tensor | None:
    """The constant matrix, or batch of them, of a factor."""
    constant = value.matrix if isinstance(value, Spread) else value
    return constant.value if isinstance(constant, Constant) and constant.value.ndim >= 2 else None


def _from_right(keep: Keep, a: Any, M: Tensor, *, one: bool = False, turned: bool = False) -> Any:
    """`a M`, of rows a, or `a Mᵀ` where it is `turned`; `one` matrix for a batch has no axis for it."""

    def kept(real: Callable[[Tensor], Tensor]) -> Tensor:
        return keep(lambda: real(M.mT if turned else M.reshape(M.shape[-2:]) if one else M), "right")

    if not M.is_complex():
        return a @ kept(Tensor.contiguous)
    b, both = M.shape[-2 if turned else -1], torch.cat(list(a), -1) @ kept(_block_from_right)
    return ComplexParts(both[..., :b], both[..., b:])


def _from_left(keep: Keep, M: Tensor, b: Any, *, one: bool = False) -> Any:
    """`M b`, of columns b; `one` matrix for a batch has no axis for it."""

    def kept(real: Callable[[Tensor], Tensor]) -> Tensor:
        return keep(lambda: real(M.reshape(M.shape[-2:]) if one else M), "left")

    if not M.is_complex():
        return kept(Tensor.contiguous) @ b
    if b.re.ndim == 1:
        return _from_right(keep, b, M, one=one, turned=True)
    m, both = M.shape[-2], kept(lambda M: from_left(ComplexParts.of_complex(M))) @ torch.cat(list(b), -2)
    return ComplexParts(both[..., :m, :], both[..., m:, :])


def _block_from_right(M: Tensor) -> Tensor:
    """The real matrix `(..., 2 a, 2 b)` of complex M `(..., a, b)`."""
    return from_right(ComplexParts.of_complex(M))


@_product(aten.linear.default)
def _(keep: Keep, x: Any, weight: Any, bias: Any = None) -> Any:
    x = opened(x, keep, "x")
    if bias is None and isinstance(weight, Constant) and weight.value.is_complex():
        return _from_right(keep, x, weight.value, turned=True)
    weight, bias = opened(weight, keep, "weight"), opened(bias, keep, "bias")
    if not isinstance(x, ComplexParts):
        return torch.nn.functional.linear(x, weight, bias)
    y = matrix_product(x, weight.each(lambda part: part.mT))
    return y if bias is None else ComplexParts(y.re + bias.re, y.im + bias.im)


@_product(aten.expand.default)
def _(keep: Keep, value: Any, shape: Any, **_: Any) -> Any:
    """One matrix for a batch stays one."""
    constant = value.matrix if isinstance(value, Spread) else value
    if isinstance(constant, Constant):
        z = constant.value
        if len(shape) == 3 and z.ndim >= 2 and z.numel() == math.prod(z.shape[-2:]):
            rows, columns = (size if asked == -1 else asked for size, asked in zip(z.shape[-2:], shape[1:]))
            if (rows, columns) == tuple(z.shape[-2:]):
                return Spread(constant, shape)
    return _of_each_part(opened(value, keep), lambda part: part.expand(shape))


@_product(aten.view.default, aten._unsafe_view.default, aten.reshape.default)
def _(keep: Keep, value: Any, shape: Any) -> Any:
    if isinstance(value, Spread):
        if len(shape) == 3 and tuple(shape[1:]) == tuple(value.matrix.value.shape[-2:]):
            return value
        value = spread_out(value, keep)
    return _of_each_part(opened(value, keep), lambda part: part.reshape(shape))


def spread_out(value: Spread, keep: Keep) -> Any:
    """A matrix for a batch, copied for each after all."""
    return _of_each_part(opened(value.matrix, keep), lambda part: part.expand(value.shape))


def _of_each_part(value: Any, linear: Callable[[Tensor], Tensor]) -> Any:
    return value.each(linear) if isinstance(value, ComplexParts) else linear(value)


# Fourier transforms, along one axis after the other


@_product(aten._fft_c2c.default)
def _(keep: Keep, z: Any, axes: Any, normalisation: int, forward: bool) -> ComplexParts:
    z = opened(z, keep)
    for axis in axes:
        z = _transformed(keep, z, axis, normalisation, forward=forward)
    return z


@_product(aten._fft_r2c.default)
def _(keep: Keep, x: Any, axes: Any, normalisation: int, onesided: bool) -> ComplexParts:
    x = opened(x, keep)
    *first, last = axes
    z = _transformed(keep, ComplexParts.of_real(x), last, normalisation, forward=True)
    if onesided:
        z = z.each(lambda part: part.narrow(last, 0, x.shape[last] // 2 + 1))
    for axis in first:
        z = _transformed(keep, z, axis, normalisation, forward=True)
    return z


@_product(aten._fft_c2r.default)
def _(keep: Keep, z: Any, axes: Any, normalisation: int, length: int) -> Tensor:
    z = opened(z, keep)
    *first, last = axes
    for axis in first:
        z = _transformed(keep, z, axis, normalisation, forward=False)

    def back() -> Tensor:
        """Twice what all frequencies give but the first and, of an even length, the last, which have no mirror."""
        rows = length // 2 + 1
        twice = torch.full((rows, 1), 2.0, dtype=torch.float64)
        twice[[0, -1] if length % 2 == 0 else [0]] = 1
        turns = _turns(length)[:rows]
        return (_scale(length, normalisation) * torch.cat([twice * turns.cos(), -twice * turns.sin()])).to(z.re.dtype)

    rows = torch.cat([part.movedim(last, -1) for part in z], -1) @ keep(back, "inverse")
    return rows.movedim(-1, last)


def _transformed(keep: Keep, z: ComplexParts, axis: int, normalisation: int, *, forward: bool) -> ComplexParts:
    """The discrete Fourier transform along one axis."""
    n = z.re.shape[axis]

    def matrix() -> Tensor:
        turned = torch.polar(torch.ones(n, n, dtype=torch.float64), (-1 if forward else 1) * _turns(n))
        return _block_from_right(_scale(n, normalisation) * turned).to(z.re.dtype)

    rows = torch.cat([part.movedim(axis, -1) for part in z], -1) @ keep(matrix, f"fourier{axis}")
    return ComplexParts(rows[..., :n].movedim(-1, axis), rows[..., n:].movedim(-1, axis))


def _turns(n: int) -> Tensor:
    return torch.outer(torch.arange(n), torch.arange(n)).remainder(n).double() * (2 * math.pi / n)


def _scale(n: int, normalisation: int) -> float:
    """By torch's numbers: 0 is none, 1 by the root of the size, 2 by the size."""
    return {0: 1.0, 1: n**-0.5, 2: 1 / n}[normalisation]
