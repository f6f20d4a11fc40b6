"""The support oracle: the posterior mean for someone who is told which unknowns are zero. Candès & Tao (2007)."""

import torch
from torch import Tensor

from fanfold.observation import Observation


def support_oracle(x: Tensor, obs: Observation, var: float = 1.0) -> Tensor:
    """`E[x | y, support]` for non-zeros of variance `var`, real or complex.

    Args:
        x: The true signals `(samples, n)`; only their supports are used.
        obs: What was observed, with a positive noise variance and an operator.
        var: `E|x|²` of a non-zero.

    Returns:
        Estimates `(samples, n)`, in double precision inside.
    """
    assert obs.A is not None
    assert obs.noise_var is not None
    precise = torch.complex128 if x.is_complex() else torch.float64
    A, y = obs.A.matrix().to(precise), obs.y.to(precise)
    support = x != 0
    most = max(1, int(support.sum(-1).max()))
    order = support.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :most]
    inside = support.gather(-1, order).to(precise)
    columns = A.mT[order] * inside[..., None]  # (samples, most, m); rows beyond the support are zero
    gram = columns.conj() @ columns.mT
    loading = torch.eye(most, dtype=precise, device=x.device) * (obs.noise_var.double() / var).reshape(-1, 1, 1)
    values = torch.linalg.solve(gram + loading, (columns.conj() @ y[..., None])).squeeze(-1)
    return torch.zeros_like(x, dtype=precise).scatter(-1, order, values * inside).to(x.dtype)
