"""What a guarded estimator reads off each sample of a batch."""

import torch
from torch import Tensor

from fanfold.core.precision import double
from fanfold.observation import Estimate, Observation


def as_rows(obs: Observation, axes: int) -> Observation:
    """The observation with one leading axis, where one sample of y has so many axes."""
    event, var = obs.y.shape[obs.y.ndim - axes :], obs.noise_var
    if var is not None:
        var = var.expand(*obs.y.shape[:-1], 1).reshape(-1, *event[:-1], 1)
    return Observation.unchecked(obs.y.reshape(-1, *event), obs.A, var)


def saturation(y: Tensor) -> Tensor:
    """The share of entries, real and imaginary parts, at a sample's largest magnitude: `(batch,)`."""
    size = (torch.view_as_real(y) if y.is_complex() else y).flatten(1).abs()
    return (size == size.amax(-1, keepdim=True)).double().mean(-1)


def finite(values: Tensor) -> Tensor:
    """Which samples are numbers throughout: `(batch,)`."""
    return torch.isfinite(values).flatten(1).all(-1)


def distance(gap: Tensor) -> Tensor:
    """The Euclidean norm of each sample, in double precision, whose squares neither overflow nor vanish: `(batch,)`."""
    return torch.linalg.vector_norm(gap.flatten(1), dim=-1, dtype=double(gap.dtype))


def unit(baseline: Estimate) -> Tensor | float:
    """The deviation of a sample that the baseline claims, `√Σ var`, `(batch,)`; 1 where it claims none.

    A variance that is negative or not a number claims nothing: it leaves no room around the baseline.
    """
    if baseline.var is None:
        return 1.0
    var = baseline.var.expand(baseline.x.shape).flatten(1).double()
    return var.clamp_min(0).sum(-1).nan_to_num(nan=0.0, posinf=torch.inf).sqrt()


def trailing(samples: Tensor, like: Tensor) -> Tensor:
    """One number of each sample `(batch,)`, with as many axes as an estimate."""
    return samples.reshape(-1, *[1] * (like.ndim - 1))
