"""What a guarded estimator reads off each sample of a batch."""

import torch
from torch import Tensor

from fanfold.observation import Estimate, Observation


def as_rows(obs: Observation) -> Observation:
    """The observation with one leading axis."""
    m, var = obs.y.shape[-1], obs.noise_var
    if var is not None:
        var = var.expand(*obs.y.shape[:-1], 1).reshape(-1, 1)
    return Observation.unchecked(obs.y.reshape(-1, m), obs.A, var)


def saturation(y: Tensor) -> Tensor:
    """The share of entries, real and imaginary parts, at a sample's largest magnitude: `(batch,)`."""
    size = torch.view_as_real(y).flatten(1).abs() if y.is_complex() else y.abs()
    return (size == size.amax(-1, keepdim=True)).double().mean(-1)


def unit(baseline: Estimate) -> Tensor | float:
    """The deviation of a sample that the baseline claims, `√Σ var`, `(batch,)`; 1 where it claims none."""
    return 1.0 if baseline.var is None else baseline.var.expand(baseline.x.shape).flatten(1).sum(-1).sqrt()


def trailing(samples: Tensor, like: Tensor) -> Tensor:
    """One number of each sample `(batch,)`, with as many axes as an estimate."""
    return samples.reshape(-1, *[1] * (like.ndim - 1))
