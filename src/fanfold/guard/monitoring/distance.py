"""How far numbers lie from those of calibration. Mahalanobis (1936).

Of many numbers the distance hardly varies: draws lie on a shell, and one within it is as strange as one without.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

FLOOR = 1e-3  # standard deviation, of a logarithm or a standardised feature, below which it is rounding that varies
FEWEST_PER_NUMBER = 5  # draws, for each of the numbers whose covariance is learned from them
COMPONENTS = 48  # principal ones, of numbers that are too many
SWEEPS = 3  # of subspace iteration, after which components are the principal ones to a few per cent

SHELL = 16  # numbers from which on distances below the usual ones are strange too
EDGES = (0.05, 0.5, 0.95)  # quantiles of the distance that say how thick the shell is

Learned = Mapping[str, Tensor]


def learn_distance(values: Tensor) -> dict[str, Tensor]:
    """The centre and the whitening of numbers `(draws, d)`, and of too many numbers the directions that matter.

    The centre is the median, which a few failed draws do not move. Where there are fewer than five draws for each
    number, the numbers are turned to their principal components, with the energy of the rest as one number more.
    """
    mean, learned = values.median(0).values, {}
    if values.shape[1] * FEWEST_PER_NUMBER > len(values):
        learned = {"mean": mean, "components": components(values - mean, min(COMPONENTS, len(values) // 10))}
        values = _reduced(values, learned)
    centre = values.median(0).values
    deviations = values - values.mean(0)
    covariance = deviations.mT @ deviations / max(1, len(values) - 1)
    covariance += (FLOOR**2 + 1e-9 * covariance.diagonal().mean()) * torch.eye(len(covariance)).to(covariance)
    learned |= {"centre": centre, "whitening": torch.linalg.cholesky(torch.linalg.inv(covariance))}
    if len(centre) >= SHELL:
        levels = torch.tensor(EDGES, dtype=values.dtype, device=values.device)
        learned["shell"] = torch.quantile(_log(_radius(values, learned)), levels)
    return learned


def distance(values: Tensor, learned: Learned) -> Tensor:
    """How far numbers are from those that `learn_distance` saw, `(batch, d)` -> `(batch,)`.

    Of less than sixteen numbers it is the Mahalanobis distance, in standard deviations. Of more it is how far the
    logarithm of that is from its median, in distances from there to its 5 or 95 % quantile.
    """
    if "components" in learned:
        values = _reduced(values, learned)
    radius = _radius(values, learned)
    if "shell" not in learned:
        return radius
    low, middle, high = learned["shell"].unbind()
    off = _log(radius) - middle
    return torch.where(off > 0, off / (high - middle).clamp_min(FLOOR), -off / (middle - low).clamp_min(FLOOR))


def _radius(values: Tensor, learned: Learned) -> Tensor:
    return torch.linalg.vector_norm((values - learned["centre"]) @ learned["whitening"], dim=-1)


def _log(radius: Tensor) -> Tensor:
    return radius.clamp_min(torch.finfo(radius.dtype).tiny).log()


def components(deviations: Tensor, count: int) -> Tensor:
    """The first principal directions of deviations from a mean, `(draws, d)` -> `(d, count)`.

    Halko, Martinsson & Tropp (2011), algorithm 4.4.
    """
    start = torch.randn(deviations.shape[1], max(1, count), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(deviations)).Q
    for _ in range(SWEEPS):
        basis = torch.linalg.qr(deviations.mT @ (deviations @ basis)).Q
    return basis


def _reduced(values: Tensor, learned: Learned) -> Tensor:
    deviations = values - learned["mean"]
    along = deviations @ learned["components"]
    rest = deviations.square().sum(-1, keepdim=True) - along.square().sum(-1, keepdim=True)
    return torch.cat([along, rest.clamp_min(torch.finfo(rest.dtype).tiny).log()], -1)
