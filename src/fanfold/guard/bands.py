"""The band that an estimator itself puts around its estimate, before calibration, and the scale that it grows by."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.units import power
from fanfold.estimators.base import Quantiled
from fanfold.guard.answers import deviation, widened
from fanfold.observation import Estimate, Estimator, Observation

Scale = Literal["constant", "variance", "magnitude", "quantiles"]
MAX_MAGNITUDE_BINS = 20  # of the predicted magnitude, for the scale "magnitude"; fewer on few draws


@dataclass(frozen=True)
class Band:
    """The band `[lower - q scale, upper + q scale]` around x, for the q that calibration finds; all `(..., n)`.

    Example:
        >>> import torch
        >>> from fanfold.guard.bands import Band
        >>> zero, one = torch.zeros(3), torch.ones(3)
        >>> Band(zero, zero, zero, scale=2 * one).scores(one)
        tensor([0.5000, 0.5000, 0.5000])
    """

    x: Tensor  # the estimate
    lower: Tensor  # lower end before calibration
    upper: Tensor  # upper end before calibration
    scale: Tensor  # what q multiplies

    def scores(self, x: Tensor) -> Tensor:
        """The least q with which the band holds x, for each entry."""
        if x.is_complex():
            return (x - self.x).abs() / self.scale
        return torch.maximum(self.lower - x, x - self.upper) / self.scale


def band(obs: Observation, estimate: Estimate, estimator: Estimator, scale: Scale, learned: dict[str, Tensor]) -> Band:
    """The band of an estimate.

    Args:
        obs: The observation.
        estimate: The estimate that was made from it.
        estimator: The estimator, which is asked for its quantiles where these are the band.
        scale: "constant", "variance" `√var`, "magnitude" (learned, by the size of the estimate), or "quantiles": the
            outermost ones are the band and their distance is the scale.
        learned: The numbers that `learn` gave.

    Raises:
        ValueError: If the estimator does not give what the scale takes.
    """
    x = estimate.x
    if scale == "quantiles":
        lower, upper = outer_quantiles(estimator, obs, x)
        return Band(x, lower, upper, not_too_small(upper - lower) if "unit" in learned else torch.ones_like(lower))
    if scale == "variance":
        if estimate.var is None:
            raise ValueError("scale='variance' needs an estimator with var; this one has none: pass scale='magnitude'.")
        return Band(x, x, x, not_too_small(deviation(estimate)).expand(x.shape))
    if scale == "magnitude":
        return Band(x, x, x, look_up(x.abs(), learned))
    unit = learned.get("unit", torch.ones((), dtype=x.real.dtype, device=x.device))
    return Band(x, x, x, unit.expand(x.shape))


def learn(x: Tensor, estimate: Estimate, scale: Scale, *, joint: bool) -> dict[str, Tensor]:
    """The numbers of a scale that come from draws: root mean square errors, overall or by predicted magnitude.

    Where entries are held at once, their errors must be in the same unit.
    """
    error = power(x - estimate.x)
    if scale == "magnitude":
        return learn_bins(error, estimate.x.abs())
    return {"unit": not_too_small(error.mean(0).sqrt())} if joint and scale in ("constant", "quantiles") else {}


def learn_bins(error: Tensor, size: Tensor) -> dict[str, Tensor]:
    """The root mean squares of errors in bins of equal counts of a size: both `(samples, ...)` -> `(bins, ...)`."""
    parts = size.argsort(0).tensor_split(min(MAX_MAGNITUDE_BINS, max(1, len(size) // 20)))
    roots = torch.stack([error.gather(0, rows).mean(0).sqrt() for rows in parts])
    edges = [size.gather(0, rows[:1])[0] for rows in parts[1:]]
    least = error.mean(0).sqrt() * 1e-3  # a bin whose errors all happened to be nil
    return {"roots": not_too_small(torch.maximum(roots, least)), "edges": torch.stack(edges) if edges else size[:0]}


def look_up(size: Tensor, learned: dict[str, Tensor]) -> Tensor:
    """The root of the bin that each entry `(..., *event)` falls into."""
    return pick(learned["roots"], bin_of(size, learned["edges"]))


def bin_of(size: Tensor, edges: Tensor) -> Tensor:
    """The number of the bin of each size `(..., *event)`: how many of the edges `(edges, *event)` it reaches."""
    return sum((size >= edge).long() for edge in edges) + torch.zeros_like(size, dtype=torch.long)


def pick(table: Tensor, row: Tensor) -> Tensor:
    """The entries `table[row]`: table `(rows, *event)`, row `(..., *event)`."""
    flat = table.flatten(1) if table.ndim > 1 else table[:, None]
    rows = row.reshape(-1, flat.shape[1])
    return flat.gather(0, rows).reshape(row.shape)


def outer_quantiles(estimator: Estimator, obs: Observation, x: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest quantile `(..., n)` that a network was trained for."""
    if x.is_complex() or not offers(estimator, Quantiled):
        raise ValueError("scale='quantiles' needs a real parameter and a network with loss='pinball'.")
    q = widened(estimator.quantiles(obs))
    if q.shape[-2] < 2:
        raise ValueError(f"scale='quantiles' needs at least two levels; the network has {q.shape[-2]}.")
    return q[..., 0, :], q[..., -1, :]


def not_too_small(scale: Tensor) -> Tensor:
    """The scale, nowhere so small that a score overflows."""
    return scale.clamp_min(math.sqrt(torch.finfo(scale.dtype).tiny))
