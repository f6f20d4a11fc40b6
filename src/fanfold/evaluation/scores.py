"""How good intervals and predicted variances are: coverage, width, calibration curves, scores, PIT.

Gneiting, Balabdaoui & Raftery (2007); Gneiting & Raftery (2007). Gaussian predictions `N(x_hat, var)` are of real
parameters; the calibration curve also takes complex ones, whose regions are discs.
"""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binom, chisquare
from torch import Tensor

from fanfold.core.table import Table
from fanfold.core.units import power
from fanfold.evaluation.interval import Interval
from fanfold.observation import Estimate

NOMINAL_LEVELS = tuple(i / 20 for i in range(1, 20))


class Share(NamedTuple):
    """A share, with its standard error over samples, whose entries may depend on each other.

    Example:
        >>> import fanfold as ff
        >>> ff.guard.Share(value=0.91, standard_error=0.01)
        Share(value=0.91, standard_error=0.01)
    """

    value: float
    standard_error: float  # infinite of a single sample


def coverage(interval: Interval, x: Tensor) -> Share:
    """How often the intervals hold x `(samples, ...)`: over entries, or over samples where these are held at once."""
    return share(interval.covers(x))


def share(inside: Tensor) -> Share:
    """The share of entries `(samples, ...)` that are true."""
    if not inside.numel():
        raise ValueError(f"there is nothing to take a share of: {tuple(inside.shape)}; pass some samples.")
    inside = inside.reshape(len(inside), -1)
    each = inside.sum(-1).double() / inside.shape[-1]
    return Share(each.mean().item(), each.std().item() / len(each) ** 0.5 if len(each) > 1 else math.inf)


def coverage_by_size(inside: Tensor, size: Tensor, parts: int = 3) -> list[Share]:
    """Coverage within parts of equal counts of a size, such as terciles of what is predicted.

    Args:
        inside: Whether each entry or sample is covered, `(samples, ...)`.
        size: The size of each entry or sample, `(samples, ...)`; the parts are those of all entries together.
        parts: The number of parts, 3 for terciles.
    """
    return coverage_by_part(inside, equal_parts(size, parts), parts)


def equal_parts(size: Tensor, parts: int) -> Tensor:
    """The number of the part that each size falls into; parts have equal counts, from the smallest sizes on."""
    values = size.flatten().cpu().numpy()
    edges = [len(values) * i // parts for i in range(parts + 1)]
    order = np.argpartition(values, edges[1:-1])  # all is not sorted: there may be many millions
    part = np.empty(len(values), np.uint8)
    for i, (first, last) in enumerate(itertools.pairwise(edges)):
        part[order[first:last]] = i
    return torch.from_numpy(part).reshape(size.shape).to(size.device)


def coverage_by_part(inside: Tensor, part: Tensor, parts: int) -> list[Share]:
    """Coverage within parts that are numbered from 0, `(samples, ...)` both; NaN where one is empty."""
    inside, part, shares = inside.reshape(len(inside), -1), part.reshape(len(part), -1), []
    for i in range(parts):
        members = part == i
        count, held = members.sum(-1).double(), (members & inside).sum(-1).double()
        value = held.sum() / count.sum()
        spread = (held - value * count).square().sum().sqrt() / count.sum()  # entries of a sample are one draw
        shares.append(Share(value.item(), spread.item()))
    return shares


def calibration_curve(estimate: Estimate, x: Tensor, levels: Sequence[float] = NOMINAL_LEVELS) -> Table:
    """The coverage of Gaussian intervals `x_hat ± z √var` against what they promise.

    Complex entries are taken as circular: discs of radius `√(-var log(1 - level))`.

    Returns:
        Rows with `nominal`, `measured`, and the 95 % band `low … high` in which a calibrated coverage lies: binomial,
        for as many draws as there are samples.
    """
    var = _variance(estimate)
    ratio = power(x - estimate.x) / var.clamp_min(torch.finfo(var.dtype).tiny)
    count, rows = len(x), []
    for level in levels:
        limit = -math.log1p(-level) if x.is_complex() else NormalDist().inv_cdf((1 + level) / 2) ** 2
        low, high = binom.interval(0.95, count, level)
        measured = (ratio <= limit).sum().item() / ratio.numel()
        rows.append({"nominal": level, "measured": measured, "low": low / count, "high": high / count})
    return Table(rows)


def normalised_square(estimate: Estimate, x: Tensor) -> tuple[float, float]:
    """The ratio `Σ|x - x_hat|² / Σ var` and its standard error over samples: 1 where the variance is the error."""
    error = power(x - estimate.x).double().flatten(1).sum(-1)
    var = _variance(estimate).double().expand(x.shape).flatten(1).sum(-1)
    if not var.any():  # exact answers that say so are right, others infinitely too sure
        return (math.inf, math.inf) if error.any() else (1.0, 0.0)
    ratio = error.sum() / var.sum()
    spread = (error - ratio * var).std().item() if len(x) > 1 else math.inf
    return ratio.item(), spread / (len(x) ** 0.5 * var.mean().item())


def mean_normalised_square(estimate: Estimate, x: Tensor) -> tuple[float, float]:
    """The mean of `|x - x_hat|² / var` over entries and samples, and its standard error over samples.

    Like `normalised_square`, it is 1 where the variance is right, but each entry counts alike: a few samples whose
    variance is far too small may decide it, and the standard error tells.
    """
    error, var = power(x - estimate.x).double(), _variance(estimate).double().expand(x.shape)
    ratio = torch.where((error == 0) & (var == 0), 1.0, error / var).flatten(1).mean(-1)
    known = len(x) > 1 and bool(ratio.isfinite().all())
    return ratio.mean().item(), ratio.std().item() / len(x) ** 0.5 if known else math.inf


def error_by_variance(estimate: Estimate, x: Tensor, bins: int = 12) -> Table:
    """Root mean squared errors `made` against the roots of the variances `said`, in bins of equal counts of these."""
    error, var = power(x - estimate.x).double().flatten(), _variance(estimate).double().expand(x.shape).flatten()
    parts = var.argsort().tensor_split(min(bins, len(var)))
    roots = [(var[rows].mean().clamp_min(0).sqrt().item(), error[rows].mean().sqrt().item()) for rows in parts]
    return Table([{"said": said, "made": made} for said, made in roots])


def interval_score(interval: Interval, x: Tensor) -> Tensor:
    """The width plus `2 / alpha` times the distance of x outside, `(..., n)`; less is better.

    Gneiting & Raftery (2007), eq. 43. It is proper for the central interval of each entry.

    Raises:
        ValueError: If x is complex: a disc has no such score.
    """
    if interval.low is None or interval.high is None:
        raise ValueError("the interval score is of real parameters; a disc has none.")
    alpha = 1 - interval.coverage
    outside = (interval.low - x).clamp_min(0) + (x - interval.high).clamp_min(0)
    return interval.high - interval.low + 2 / alpha * outside


def gaussian_crps(estimate: Estimate, x: Tensor) -> Tensor:
    """The continuous ranked probability score of `N(x_hat, var)`, in the unit of x, `(..., n)`; less is better.

    It is `σ (z (2 Φ(z) - 1) + 2 φ(z) - 1 / √π)` with `z = (x - x_hat) / σ`. Gneiting et al. (2005), eq. 5.
    """
    z, sigma = _standardised(estimate, x)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return sigma * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def pit(estimate: Estimate, x: Tensor) -> Tensor:
    """The probability integral transform `Φ((x - x_hat) / √var)`, `(..., n)`: uniform if `N(x_hat, var)` is right."""
    return torch.special.ndtr(_standardised(estimate, x)[0])


class Histogram(NamedTuple):
    """A histogram of numbers that should be uniform; made by `uniform_histogram`.

    Example:
        >>> import fanfold as ff, torch
        >>> histogram = ff.guard.uniform_histogram(torch.linspace(0.0, 1.0, 1000), bins=4)
        >>> histogram.counts.tolist(), round(histogram.p_value, 3)
        ([250, 250, 250, 250], 1.0)
    """

    counts: Tensor  # (bins,)
    low: float  # lower end of the 95 % band of each count
    high: float  # upper end
    p_value: float  # of Pearson's chi-square test


def uniform_histogram(u: Tensor, bins: int = 20) -> Histogram:
    """The histogram of independent numbers in [0, 1], `(N,)`, that should be uniform.

    Raises:
        ValueError: If u has more axes than one.
    """
    if u.ndim != 1:
        raise ValueError(f"u is {tuple(u.shape)}; pass one entry of each sample, (samples,): others depend on it.")
    counts = torch.bincount((u * bins).long().clamp(0, bins - 1), minlength=bins)
    low, high = binom.interval(0.95, len(u), 1 / bins)
    return Histogram(counts, float(low), float(high), float(chisquare(counts.numpy()).pvalue))


def _standardised(estimate: Estimate, x: Tensor) -> tuple[Tensor, Tensor]:
    if x.is_complex():
        raise ValueError("this measure is of real parameters; x is complex: take real and imaginary parts.")
    sigma = _variance(estimate).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return (x - estimate.x) / sigma, sigma


def _variance(estimate: Estimate) -> Tensor:
    if estimate.var is None:
        raise ValueError("this measure needs a variance; this estimate has var None.")
    return estimate.var
