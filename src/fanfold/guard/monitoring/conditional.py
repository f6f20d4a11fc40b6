"""What conformal p-values promise once the calibration draws are there. Vovk (2012); Bates et al. (2023), section 3.

Of n scores, the chance to exceed the k-th largest is a draw of `Beta(k, n + 1 - k)`. A single rate
follows from it; for all rates at once there is a band of equal local levels (Aldor-Noiman et al., 2013; Moscovich,
Nadler & Spiegelman, 2016), here on a grid of ranks, by simulation of uniform order statistics.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.special import betainc, betaincinv
from scipy.stats import beta
from torch import Tensor

EVERY_RANK = 24  # up to which each rank has a bound of its own
RATIO = 1.05  # of neighbouring ranks of the grid beyond
SIMULATIONS = 4000  # that tell the local level


def rank_of(count: int, alarm: float) -> int:
    """How many of so many scores may be as large: p-values are at most `alarm` up to this rank; 0 if they never are."""
    return math.floor(round(alarm * (count + 1), 9))


def rate_given(count: int, alarm: float, confidence: float) -> tuple[float, float]:
    """The range of the rate of p-values up to `alarm`, given the calibration draws, with this confidence.

    Raises:
        ValueError: If p-values of so few draws never come as low.
    """
    check_level("alarm", alarm)
    check_level("confidence", confidence)
    k = rank_of(count, alarm)
    if not k:
        raise ValueError(
            f"{count} draws give no p-value below 1/{count + 1}, and alarm is {alarm:g}: calibrate on at least "
            f"{math.ceil(round(1 / alarm, 9)) - 1} draws."
        )
    law = beta(k, count + 1 - k)
    return float(law.ppf((1 - confidence) / 2)), float(law.ppf((1 + confidence) / 2))


@lru_cache(maxsize=64)
def draws_needed(alarm: float, confidence: float = 0.95, tolerance: float = 0.5) -> int:
    """The least number of calibration draws whose false alarms are near the rate that is set, given these draws.

    Args:
        alarm: The rate of false alarms α.
        confidence: The probability over calibration sets.
        tolerance: The share τ by which the rate may be off: it is within `α (1 ± τ)`.

    Returns:
        The least n with `P(|Beta(k, n + 1 - k) - α| ≤ τ α) ≥ confidence` at `k = α (n + 1)`.

    Raises:
        ValueError: If a number is not between 0 and 1.

    Example:
        >>> from fanfold.guard.monitoring import draws_needed
        >>> [draws_needed(alarm) for alarm in (0.05, 0.01, 0.001)]
        [299, 1499, 14999]
    """
    for name, value in (("alarm", alarm), ("confidence", confidence), ("tolerance", tolerance)):
        check_level(name, value)
    k = 1
    while True:
        count = math.ceil(round(k / alarm, 9)) - 1
        law = beta(k, count + 1 - k)
        if law.cdf(min(1.0, alarm * (1 + tolerance))) - law.cdf(alarm * (1 - tolerance)) >= confidence:
            return count
        k += 1


def ranks_of_grid(count: int) -> np.ndarray:
    """The ranks that have bounds of their own: all small ones, then in geometric progression, and the last."""
    ranks, k = [], 1
    while k < count:
        ranks.append(k)
        k = k + 1 if k < EVERY_RANK else max(k + 1, math.ceil(k * RATIO))
    return np.array([*ranks, count])


@lru_cache(maxsize=16)
def band(count: int, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
    """Upper bounds of the chance to exceed the k-th largest of so many scores, all at once with this confidence.

    Returns:
        The ranks of the grid and the bound at each, `(grid,)` each.

    Raises:
        ValueError: If there are no draws, or the confidence is none, or more than simulations tell.
    """
    check_level("confidence", confidence)
    wrong = 1 - confidence
    # two standard deviations of the simulation below the level that it says
    place = math.floor(SIMULATIONS * wrong - 2 * math.sqrt(SIMULATIONS * wrong * confidence))
    if place < 0:
        raise ValueError(
            f"confidence is {confidence}, and {SIMULATIONS} simulations tell no band of more than 0.999; pass that."
        )
    if count < 1:
        raise ValueError(f"there are {count} scores; a band takes at least 1.")
    ranks = ranks_of_grid(count)
    gaps = np.diff(np.concatenate([[0], ranks, [count + 1]])).astype(float)
    parts = np.random.default_rng(0).standard_gamma(gaps, size=(SIMULATIONS, len(gaps)))
    uniform = np.cumsum(parts, 1)[:, :-1] / parts.sum(1, keepdims=True)  # order statistics at these ranks
    least = np.sort((1 - betainc(ranks, count + 1 - ranks, uniform)).min(1))
    bounds = betaincinv(ranks, count + 1 - ranks, 1 - least[place])
    return torch.from_numpy(ranks), torch.from_numpy(np.maximum.accumulate(bounds))


def lifted(p: Tensor, count: int, confidence: float = 0.95) -> Tensor:
    """Conformal p-values of so many draws made valid given these draws: `P(p ≤ t) ≤ t` for all t at once.

    Args:
        p: `rank / (count + 1)`, of any shape.
        count: How many calibration scores they are from.
        confidence: The probability, over calibration sets, that this holds.

    Returns:
        p-values of the same shape, larger than those.

    Raises:
        ValueError: If a p-value is not in [0, 1].
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a p-value is not between 0 and 1; pass what Monitor.p_values gives.")
    ranks, bounds = band(count, confidence)
    rank = (p.double() * (count + 1)).sub(1e-6).ceil().clamp_min(1).long().cpu()
    place = torch.searchsorted(ranks, rank)
    return torch.cat([bounds, torch.ones(1, dtype=bounds.dtype)])[place].to(p.device)


def check_level(name: str, value: float) -> None:
    """Refuse what is no probability strictly between 0 and 1.

    Raises:
        ValueError: If it is none.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; pass a number between 0 and 1.")
