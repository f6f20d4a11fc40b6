"""Inverses of covariances, `(..., m, m)`, Hermitian and positive definite."""

import torch
from torch import Tensor


def covariance_inverse(S: Tensor) -> Tensor:
    """The inverse by Cholesky factors, half the work of a general one; NaN where S is not positive definite."""
    if torch.compiler.is_compiling():  # runtimes know the general inverse alone
        return torch.linalg.inv(S)
    return _CholeskyInverse.apply(S)


class _CholeskyInverse(torch.autograd.Function):
    """The inverse P of S, whose derivative is `-P dS P`, which needs no factor. Petersen & Pedersen (2012), eq. 59."""

    @staticmethod
    def forward(ctx, S: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(S)
        P = torch.cholesky_inverse(factor)
        P = torch.where((failed > 0)[..., None, None], torch.full_like(P, torch.nan), P)
        ctx.save_for_backward(P)
        return P

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (of_P,), (P,) = grads, ctx.saved_tensors
        return -P @ of_P @ P  # P is its own adjoint
