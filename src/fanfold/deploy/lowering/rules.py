"""How each operation on complex numbers is done with real ones; long, as each operation of a program is one row.

What is linear over the reals is done to both parts; the rest is arithmetic: `(a + jb)(c + jd) = ac - bd + j(ad + bc)`.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.core.complex_pairs import from_left, from_right
from fanfold.deploy.lowering.pairs import ComplexParts

aten = torch.ops.aten
Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}  # operation: what takes the same arguments, complex tensors being `ComplexParts`


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operations."""

    def entered(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return entered


def parts(value: Any) -> ComplexParts:
    """A value as complex parts; numbers become tensors without axes when they meet one."""
    return value if isinstance(value, ComplexParts) else ComplexParts.of_real(value)


# Linear over the reals: to both parts


def _apart(target: Any) -> Rule:
    def both(*args: Any, **kwargs: Any) -> Any:
        re, im = (target(*_of(args, k), **_of(kwargs, k)) for k in (0, 1))
        if isinstance(re, (list, tuple)):
            return type(re)(map(ComplexParts, re, im))
        return ComplexParts(re, im)

    return both


def _of(value: Any, part: int) -> Any:
    """One part of everything complex in the arguments; the imaginary part of what is real is zero."""
    if isinstance(value, ComplexParts):
        return value[part]
    if isinstance(value, dict):
        return {name: _of(v, part) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_of(v, part) for v in value)
    if part and isinstance(value, Tensor) and value.is_floating_point():
        return torch.zeros_like(value)
    return value


for _target in (
    *(aten.permute.default, aten.transpose.int, aten.t.default, aten.select.int, aten.slice.Tensor),
    aten.unsqueeze.default,
    *(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.clone.default, aten.alias.default),
    *(aten.contiguous.default, aten.detach.default, aten.detach_.default, aten.flatten.using_ints, aten.unflatten.int),
    *(aten.cat.default, aten.stack.default, aten.index.Tensor, aten.index_select.default, aten.gather.default),
    *(aten.repeat.default, aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim),
    *(aten.neg.default, aten.diagonal.default, aten.flip.default, aten.roll.default, aten.tril.default),
    *(aten.triu.default, aten.split_with_sizes.default, aten.split.Tensor, aten.unbind.int, aten.chunk.default),
    *(aten.slice_scatter.default, aten.select_scatter.default, aten.index_put.default, aten.cumsum.default),
    *(aten.where.self, aten.constant_pad_nd.default, aten.diag_embed.default, aten.numpy_T.default, aten.mT.default),
):
    RULES[_target] = _apart(_target)


@rule(operator.getitem)
def _(values, index):
    return values[index]


@rule(aten.sym_size.int)
def _(z, axis):
    return z.re.shape[axis]


@rule(aten.sym_numel.default)
def _(z):
    return z.re.numel()


# Made of reals, and back


@rule(aten.view_as_real.default)
def _(z):
    return z.joined()


@rule(aten.view_as_complex.default)
def _(pairs):
    return ComplexParts.of_pairs(pairs)


@rule(aten.complex.default)
def _(re, im):
    return ComplexParts(*torch.broadcast_tensors(re, im))


@rule(aten.polar.default)
def _(size, angle):
    return ComplexParts(size * angle.cos(), size * angle.sin())


@rule(aten.real.default)
def _(z):
    return z.re if isinstance(z, ComplexParts) else z


@rule(aten.imag.default)
def _(z):
    return z.im


@rule(aten._conj.default, aten.conj.default, aten._conj_physical.default, aten.conj_physical.default)
def _(z):
    return ComplexParts(z.re, -z.im)


@rule(aten.mH.default, aten.adjoint.default)
def _(z):
    return ComplexParts(z.re.mT, -z.im.mT)


@rule(aten.resolve_conj.default, aten.resolve_neg.default)
def _(z):
    return z


@rule(aten._to_copy.default, aten.to.dtype)
def _(z, dtype=None, *_positional, **_options):
    dtype = z.re.dtype if dtype is None else dtype
    if not dtype.is_complex:  # as torch does, with a warning, the imaginary part is dropped
        return parts(z).re.to(dtype)
    return parts(z).each(lambda part: part.to(dtype.to_real()))


@rule(aten.full.default)
def _(size, value, *, dtype=None, **options):
    real = None if dtype is None else dtype.to_real()
    re, im = (torch.full(size, v, dtype=real) for v in (complex(value).real, complex(value).imag))
    return ComplexParts(re, im)


@rule(aten.full_like.default)
def _(like, value, *, dtype=None, **_):
    dtype = None if dtype is None else dtype.to_real()
    re = like.re if isinstance(like, ComplexParts) else like
    return ComplexParts(*(torch.full_like(re, v, dtype=dtype) for v in (complex(value).real, complex(value).imag)))


@rule(aten.new_zeros.default, aten.zeros_like.default, aten.zeros.default)
def _(like, size=None, *, dtype=None, **_):
    if not isinstance(like, (ComplexParts, Tensor)):
        zeros = torch.zeros(like, dtype=None if dtype is None else dtype.to_real())
    else:
        re, dtype = like.re if isinstance(like, ComplexParts) else like, None if dtype is None else dtype.to_real()
        zeros = torch.zeros_like(re, dtype=dtype) if size is None else re.new_zeros(size, dtype=dtype)
    return ComplexParts(zeros, zeros)


@rule(aten.scalar_tensor.default)
def _(value, *, dtype=None, **_):
    real = None if dtype is None else dtype.to_real()
    return ComplexParts(*(torch.scalar_tensor(v, dtype=real) for v in (complex(value).real, complex(value).imag)))


# Arithmetic


@rule(aten.add.Tensor, aten.add.Scalar)
def _(a, b, *, alpha=1):
    return _sum(a, b, alpha)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def _(a, b, *, alpha=1):
    return _sum(a, b, -alpha)


@rule(aten.rsub.Scalar, aten.rsub.Tensor)
def _(a, b, alpha=1):
    return _sum(b, _product(a, alpha), -1)


def _sum(a, b, alpha):
    (a_re, a_im), (b_re, b_im) = _split(a), _split(b)
    re = a_re + b_re if alpha == 1 else a_re - b_re if alpha == -1 else a_re + alpha * b_re
    if a_im is None or b_im is None:
        im = a_im if b_im is None else b_im if alpha == 1 else alpha * b_im
        im = torch.zeros_like(re) if im is None else torch.as_tensor(im, dtype=re.dtype)
        im = im if im.shape == re.shape else im.expand(re.shape)
    else:
        im = a_im + b_im if alpha == 1 else a_im - b_im if alpha == -1 else a_im + alpha * b_im
    return ComplexParts(re, im)


def _split(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part, the latter None of what is real."""
    if isinstance(value, complex):
        return value.real, (value.imag or None)
    return value if isinstance(value, ComplexParts) else (value, None)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def _product(a, b):
    """The product, which takes two real ones where one factor is real."""
    (a_re, a_im), (b_re, b_im) = _split(a), _split(b)
    if a_im is None and b_im is None:
        return ComplexParts.of_real(a_re * b_re)
    if b_im is None:
        return ComplexParts(a_re * b_re, a_im * b_re)
    if a_im is None:
        return ComplexParts(a_re * b_re, a_re * b_im)
    return ComplexParts(a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re)


@rule(aten.div.Tensor, aten.div.Scalar)
def _quotient(a, b):
    """The quotient; a complex divisor is brought to ordinary size first, whose square might be no number."""
    if not isinstance(b, ComplexParts):
        if isinstance(b, complex):
            return _product(a, 1 / b)
        return a.each(lambda part: part / b)
    size = torch.maximum(b.re.abs(), b.im.abs())
    c, d = b.re / size, b.im / size
    square = (c * c + d * d) * size
    return _product(_product(a, ComplexParts(c, -d)), 1 / square)


@rule(aten.reciprocal.default)
def _reciprocal(z):
    return _quotient(torch.ones_like(z.re), z)


@rule(aten.square.default)
def _(z):
    return _product(z, z)


@rule(aten.pow.Tensor_Scalar)
def _(z, exponent):
    z = parts(z)
    if exponent == -1:
        return _reciprocal(z)
    if exponent == 0.5:
        return _root(z)
    if exponent in (1, 2, 3):
        return functools.reduce(_product, [z] * int(exponent))
    return _exponential(_product(_logarithm(z), exponent))


@rule(aten.abs.default)
def _size(z):
    """`|z|`, without squares of what is large or small."""
    a, b = z.re.abs(), z.im.abs()
    most = torch.maximum(a, b)
    least = torch.minimum(a, b) / most.clamp_min(torch.finfo(most.dtype).tiny)
    return most * (1 + least * least).sqrt()


@rule(aten.sgn.default)
def _(z):
    size = _size(z)
    return z.each(lambda part: torch.where(size > 0, part / torch.where(size > 0, size, 1), 0))


@rule(aten.exp.default)
def _exponential(z):
    size = z.re.exp()
    return ComplexParts(size * z.im.cos(), size * z.im.sin())


@rule(aten.log.default)
def _logarithm(z):
    return ComplexParts(_size(z).log(), torch.atan2(z.im, z.re))


@rule(aten.angle.default)
def _(z):
    return torch.atan2(z.im, z.re)


@rule(aten.sqrt.default)
def _root(z):
    """The root by its larger part, which no difference makes inexact: the product of both parts is `im / 2`."""
    large = ((_size(z) + z.re.abs()) / 2).sqrt()
    small = z.im.abs() / (2 * torch.where(large > 0, large, 1))
    im = torch.where(z.re < 0, large, small)
    return ComplexParts(torch.where(z.re < 0, small, large), torch.where(z.im < 0, -im, im))


@rule(aten.isfinite.default)
def _(z):
    return torch.isfinite(z.re) & torch.isfinite(z.im)


@rule(aten.isnan.default)
def _(z):
    return torch.isnan(z.re) | torch.isnan(z.im)


@rule(aten.eq.Tensor, aten.eq.Scalar)
def _equal(a, b):
    (a_re, a_im), (b_re, b_im) = _split(a), _split(b)
    return (a_re == b_re) & ((0 if a_im is None else a_im) == (0 if b_im is None else b_im))


@rule(aten.ne.Tensor, aten.ne.Scalar)
def _(a, b):
    return ~_equal(a, b)


@rule(aten.linalg_vector_norm.default)
def _(z, *args, dtype=None, **kwargs):
    return torch.linalg.vector_norm(_size(z), *args, dtype=None if dtype is None else dtype.to_real(), **kwargs)


# Products of matrices that both depend on the inputs; those with constant ones are in `lowering.products`


@rule(aten.mv.default, aten.dot.default)
def matrix_product(a: ComplexParts, b: ComplexParts) -> ComplexParts:
    """One real product of `(..., m, k)` and `(..., k, n)`, or four where either is a vector.

    Both are complex: torch multiplies no real matrix with a complex one.
    """
    if b.re.ndim < 2 or a.re.ndim < 2:
        return ComplexParts(a.re @ b.re - a.im @ b.im, a.re @ b.im + a.im @ b.re)
    width, product = b.re.shape[-1], torch.cat([a.re, a.im], -1) @ from_right(b)
    return ComplexParts(product[..., :width], product[..., width:])


@rule(aten.addmm.default, aten.baddbmm.default)
def _(c, a, b, *, beta=1, alpha=1):
    return _sum(_product(parts(c), beta), parts(matrix_product(a, b)), alpha)


@rule(aten.linalg_inv.default)
def _(z):
    n, inverse = z.re.shape[-1], torch.linalg.inv(from_left(z))
    return ComplexParts(inverse[..., :n, :n], inverse[..., n:, :n])


@rule(aten.linalg_solve.default)
def _(A, b, *, left=True):
    if not left:
        raise ValueError("linalg.solve(..., left=False) on complex numbers has no form in real ones; solve from left.")
    A, b = parts(A), parts(b)
    vector = b.re.ndim == A.re.ndim - 1
    columns = b.each(lambda part: part.unsqueeze(-1)) if vector else b
    solved = torch.linalg.inv(from_left(A)) @ torch.cat(list(columns), -2)
    n = A.re.shape[-1]
    x = ComplexParts(solved[..., :n, :], solved[..., n:, :])
    return x.each(lambda part: part.squeeze(-1)) if vector else x
