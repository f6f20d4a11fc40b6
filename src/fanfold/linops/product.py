"""Products whose gradient is the adjoint: the way back through the steps of a product costs more, and holds them."""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def linear_map(x: Tensor, product: Map, adjoint: Map) -> Tensor:
    """`product(x)`, whose gradient to x, of any order, is `adjoint`; what they are made of gets none.

    While a graph is traced for export the product is taken step by step, as runtimes know no such function.
    """
    if not (x.requires_grad and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return product(x)
    return _LinearMap.apply(x, product, adjoint)


class _LinearMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, product: Map, adjoint: Map) -> Tensor:
        ctx.maps = adjoint, product
        return product(x)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return linear_map(grads[0], *ctx.maps), None, None
