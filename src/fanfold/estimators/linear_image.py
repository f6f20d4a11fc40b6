"""Linear images of a scene: the matched filter, and LMMSE for white scenes without a matrix being formed."""

from fanfold.observation import Estimate, Observation
from fanfold.units import power


def back_projection(obs: Observation) -> Estimate:
    """The matched filter `Aᴴ y`, scaled by the least squares of each sample."""
    assert obs.A is not None
    x = obs.A.H @ obs.y
    y_hat = obs.A @ x
    scale = (y_hat.conj() * obs.y).sum(-1, keepdim=True) / power(y_hat).sum(-1, keepdim=True)
    return Estimate(x * scale)


def white_lmmse(obs: Observation, signal_var: float) -> Estimate:
    """LMMSE for independent voxels of one variance, by the singular values: `V d v / (d² v + noise_var) Uᴴ y`."""
    assert obs.A is not None
    assert obs.noise_var is not None
    U, d, V = obs.A.svd()
    return Estimate(V @ (d * signal_var / (d**2 * signal_var + obs.noise_var) * (U.H @ obs.y)))
