"""Posterior moments of one bounded parameter by Gauss-Legendre cells that shrink where the density is sharp."""

from collections.abc import Callable

import torch
from torch import Tensor

NODES = 8  # of each cell
FAR = 0.092  # largest distance from a point of a cell to its nearest node, in widths
REACH = 4.0  # widest cell, in least widths of a peak: eight nodes err by less than 1e-6 of a Gaussian's mass there
NEGLIGIBLE_NATS = 32.0  # nats below the highest value at which mass is left out: 1e-14 of it

# log density at points, up to a constant for each sample: `(samples, points)` of points `(points,)` that all samples
# share, if rows is None, or `(cells, nodes)` of points `(cells, nodes)` that belong to the samples `rows`
LogDensity = Callable[[Tensor, Tensor | None], Tensor]


def posterior_moments(
    log_density: LogDensity, low: float, high: float, sharpness: Tensor, cells: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a density on `[low, high]`, for each sample, in double precision.

    Cells in which the density cannot come near its maximum are left out; the others are halved until none is wider
    than four standard deviations of the sharpest peak that there can be.

    Args:
        log_density: See `LogDensity`.
        low: Least value of the parameter.
        high: Largest value of the parameter.
        sharpness: `(samples,)`, bounds on `-(log density)''`.
        cells: Number of cells of equal width to start with; enough for the density of weak signals, which is not sharp
            anywhere.

    Returns:
        Mean and variance, `(samples,)` each.
    """
    x, weights = _nodes(sharpness)
    width = (high - low) / cells
    left = low + width * torch.arange(cells, dtype=torch.float64, device=sharpness.device)
    points = left[:, None] + width * x
    logs = log_density(points.flatten(), None).unflatten(-1, points.shape)  # (samples, cells, nodes)
    top = logs.amax((-2, -1))
    rows = torch.arange(len(sharpness), device=sharpness.device)[:, None].expand(-1, cells).reshape(-1)
    points, logs = points.expand(len(sharpness), -1, -1).flatten(0, 1), logs.flatten(0, 1)
    left = left.repeat(len(sharpness))
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    while True:
        done = width <= REACH / sharpness.sqrt()[rows]
        kept.append((rows[done], points[done], logs[done] + torch.log(width * weights)))
        slack = NEGLIGIBLE_NATS + 0.5 * sharpness[rows] * (FAR * width) ** 2
        split = ~done & (logs.amax(-1) >= top[rows] - slack)
        if not split.any():
            return _moments(kept, len(sharpness))
        width /= 2
        rows = rows[split].repeat_interleave(2)
        left = torch.stack([left[split], left[split] + width], -1).flatten()
        points = left[:, None] + width * x
        logs = log_density(points, rows)
        top = top.scatter_reduce(0, rows, logs.amax(-1), "amax")


def _nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]: from the eigenvectors of the Jacobi matrix (Golub & Welsch, 1969)."""
    k = torch.arange(1, NODES, dtype=torch.float64, device=like.device)
    beta = k / (4 * k.square() - 1).sqrt()
    x, V = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
    return (x + 1) / 2, V[0].square()


def _moments(kept: list[tuple[Tensor, Tensor, Tensor]], samples: int) -> tuple[Tensor, Tensor]:
    rows = torch.cat([r[:, None].expand_as(p).flatten() for r, p, _ in kept])
    points, logs = (torch.cat([part[i].flatten() for part in kept]) for i in (1, 2))
    top = logs.new_full((samples,), -torch.inf).scatter_reduce(0, rows, logs, "amax")
    mass = torch.exp(logs - top[rows])

    def total(values: Tensor) -> Tensor:
        return logs.new_zeros(samples).index_add(0, rows, values)

    mean = total(mass * points) / total(mass)
    return mean, total(mass * (points - mean[rows]).square()) / total(mass)
