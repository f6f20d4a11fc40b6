"""What pairs tell of a receiver that is not what it was: a gain a measurement, its noise, and an error of A.

Gains are least squares, drawn to their mean by how much they surely differ: Efron & Morris (1973). The error of A is
ridge regression of what A leaves unexplained on x, its weight chosen by leaving one out: Golub, Heath & Wahba (1979).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.precision import double
from fanfold.core.units import power
from fanfold.estimators import ErrorLeft, ReceiverModel
from fanfold.observation import Observation

MOST_ENTRIES = 2**20  # of an error of A
RIDGES = torch.logspace(-4, 2, 13, dtype=torch.float64).tolist()  # over the mean energy of x
LEAST_EXPLAINED = 0.02  # of what A leaves unexplained, below which an error of A is not worth a second call


def receivers_of(x: Tensor, obs: Observation) -> Iterator[tuple[str, ReceiverModel]]:
    """What may be changed of the receiver, from the least to the most: noise variance, gains, an error of A.

    Of `y = diag(g) A x + w` each g is m-th of what pairs tell, and N pairs tell it to a deviation of `1/√(N SNR)`. An
    error of A without structure has n numbers for each measurement, of which N pairs see the directions of their x
    alone: at most a share `N / n` of what it adds to new measurements is explained.

    Args:
        x: The signals, `(samples, n)`.
        obs: Their observation, `(samples, m)`, with the operator that is believed in; without one there is nothing.
    """
    A = obs.A
    if A is None or A.varies or obs.y.ndim != 2 or x.ndim != 2 or len(x) < 2:  # one pair tells no noise
        return
    kind = double(obs.y.dtype)
    y, z = obs.y.to(kind), (A @ x.to(A.dtype)).to(kind)
    claimed = None if obs.noise_var is None else obs.noise_var.double().mean().item()
    ones = torch.ones_like(obs.y[0])
    if claimed:
        yield "noise variance", ReceiverModel(ones, _over(power(y - z).mean(), claimed))
    gains = fitted_gains(y, z)
    left = y / gains - z
    residual = power(left).mean() * len(x) / (len(x) - 1)
    yield "gains", ReceiverModel(gains.to(ones.dtype), _over(residual, claimed))
    energy = power(y / gains).mean()
    fitted = fitted_error(x.to(kind), left) if A.m * A.n <= MOST_ENTRIES and energy > 0 else None
    if fitted is not None:
        share = (power(left).mean() - fitted.noise_var) / energy
        not_told = ErrorLeft(fitted.directions.to(A.dtype), fitted.entry_var, share.item())
        noise = _over(fitted.noise_var, claimed)
        yield "gains and operator", ReceiverModel(gains.to(ones.dtype), noise, fitted.error.to(A.dtype), not_told)


class OperatorError(NamedTuple):
    """What pairs tell of an error of A; made by `fitted_error`.

    Example:
        >>> import torch
        >>> from fanfold.guard.recalibration import fitted_error
        >>> x, E = torch.eye(4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
        >>> fitted_error(x.repeat(5, 1), (x @ E.mT).repeat(5, 1)).error.round(decimals=2)
        tensor([[1., 1., 1., 1.],
                [1., 1., 1., 1.]], dtype=torch.float64)
    """

    error: Tensor  # (m, n)
    left: Tensor  # variance of what it leaves of new draws, with their noise
    noise_var: Tensor  # of the noise alone
    directions: Tensor  # (k, n), each times the root of the share of E that is told along it
    entry_var: float  # of the entries of E


def fitted_gains(y: Tensor, z: Tensor) -> Tensor:
    """The gain of each measurement, `(m,)`, by which to divide; 1 where that would do more harm than good.

    Args:
        y: What was measured, `(samples, m)`.
        z: What would have been measured without noise by gains of one.
    """
    energy = power(z).sum(0)
    seen = energy > 0
    energy = torch.where(seen, energy, 1.0)
    each = (z.conj() * y).sum(0) / energy
    noise = (power(y - each * z).sum(0) / (len(y) - 1)).mean()
    mean = (each * energy * seen).sum() / (energy * seen).sum().clamp_min(torch.finfo(energy.dtype).tiny)
    uncertain = noise / energy
    spread = (power(each - mean)[seen].mean() - uncertain[seen].mean()).clamp_min(0) if seen.any() else 0 * noise
    gains = mean + (spread / (spread + uncertain).clamp_min(torch.finfo(energy.dtype).tiny)) * (each - mean)
    as_it_is = power(gains - 1) * energy / len(y) + noise
    worth = seen & (power(gains) > 0) & (noise <= as_it_is * power(gains))
    return torch.where(worth, gains, torch.ones_like(gains))


def fitted_error(x: Tensor, left: Tensor) -> OperatorError | None:
    """An error E of the operator, `(m, n)`, and how well it is known; None where it explains little.

    With h the share of itself in the fit of a pair, what the other pairs leave of it has the variance of the noise over
    `1 - h`: the rest is what they do not know of E.

    Args:
        x: The signals, `(samples, n)`.
        left: What is unexplained of their measurements, `(samples, m)`.
    """
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    seen, energy = u.mH @ left, s.square()
    best, chosen = power(left).mean() * (1 - LEAST_EXPLAINED), None
    for ridge in RIDGES if energy.sum() > 0 else ():
        load = ridge * energy.sum() / len(x)
        kept = energy / (energy + load)
        others = 1 - power(u) @ kept
        missed = (left - (u * kept) @ seen) / others[:, None]  # what the others leave of each
        without = power(missed).mean()
        if without < best:
            noise = (others[:, None] * power(missed)).mean()
            error = ((vh.mH * (s / (energy + load))) @ seen).mT
            directions = kept.sqrt()[:, None] * vh
            best, chosen = without, OperatorError(error, without, noise, directions, (noise / load).item())
    return chosen


def _over(variance: Tensor, claimed: float | None) -> float:
    """A factor on the claimed variance, which stays as it is where none is claimed, or nothing is left."""
    factor = variance.item() / claimed if claimed else 1.0
    return factor if 0 < factor < float("inf") else 1.0
