"""Linear images of a scene: the matched filter, and LMMSE for white scenes without a matrix being formed."""

import torch

from fanfold.core.units import power
from fanfold.observation import Estimate, Observation


def back_projection(obs: Observation) -> Estimate:
    """The matched filter `Aᴴ y`, scaled by the least squares of each sample."""
    assert obs.A is not None
    x = obs.A.H @ obs.y
    y_hat = obs.A @ x
    tiny = torch.finfo(obs.y.dtype).tiny  # of silence
    scale = (y_hat.conj() * obs.y).sum(-1, keepdim=True) / power(y_hat).sum(-1, keepdim=True).clamp_min(tiny)
    return Estimate(x * scale)


def white_lmmse(obs: Observation, signal_var: float) -> Estimate:
    """LMMSE for independent voxels of one variance, by the singular values: `V d v / (d² v + noise_var) Uᴴ y`."""
    assert obs.A is not None
    assert obs.noise_var is not None
    U, d, V = obs.A.svd()
    loaded = (d**2 * signal_var + obs.noise_var).clamp_min(torch.finfo(d.dtype).tiny)  # a direction that nothing sees
    return Estimate(V @ (d * signal_var / loaded * (U.H @ obs.y)))
