"""The finite-sample quantile of conformal prediction. Vovk, Gammerman & Shafer (2005); Lei et al. (2018), section 2.

Of n + 1 exchangeable scores, the last one is among the k smallest with a probability of at least `k / (n + 1)`.
"""

import math
from functools import lru_cache

import torch
from scipy.stats import beta
from torch import Tensor


def rank(count: int, coverage: float) -> int:
    """The rank `⌈(n + 1) coverage⌉`: the score of that rank, of n, is at least the next one with this probability.

    Raises:
        ValueError: If so few draws cannot promise this coverage.
    """
    _check(coverage)
    k = math.ceil(round((count + 1) * coverage, 9))  # 10 · 0.9 is 9, not 9.000000000000001
    if k > count:
        raise ValueError(
            f"coverage {coverage:g} takes at least {fewest(coverage)} calibration draws and there are {count}: "
            "pass more samples, fewer groups or less coverage."
        )
    return k


def fewest(coverage: float) -> int:
    """The least number of draws with which this coverage can be promised, `⌈coverage / (1 - coverage)⌉`."""
    _check(coverage)
    return math.ceil(round(coverage / (1 - coverage), 9))


def conformal_quantile(scores: Tensor, coverage: float) -> Tensor:
    """The score of rank `⌈(n + 1) coverage⌉` along the first axis: `(n, ...)` -> `(...)`.

    Raises:
        ValueError: If there are too few scores.
    """
    return scores.kthvalue(rank(len(scores), coverage), dim=0).values


def group_quantiles(scores: Tensor, labels: Tensor, groups: int, coverage: float) -> Tensor:
    """The `conformal_quantile` within each group: scores and labels `(n, ...)` -> `(groups, ...)`.

    Raises:
        ValueError: If a group has too few scores.
    """
    quantiles = []
    for group in range(groups):
        members = labels == group
        counts = members.sum(0)
        if counts.min() < fewest(coverage):
            raise ValueError(
                f"coverage {coverage:g} takes at least {fewest(coverage)} calibration draws in each group, and group "
                f"{group} of {groups} has {int(counts.min())}: pass more samples or fewer groups, and one where the "
                "number that groups are made by is nearly always the same."
            )
        ranks = torch.tensor([rank(c, coverage) for c in counts.flatten().tolist()]).reshape(counts.shape)
        ordered = torch.where(members, scores, math.inf).sort(0).values
        quantiles.append(ordered.gather(0, ranks[None] - 1)[0])
    return torch.stack(quantiles)


def average_quantile(scores: Tensor, coverage: float) -> Tensor:
    """The least threshold that holds this share of a sample's entries on average: `(n, d)` -> `()`.

    Conformal risk control of the share that is missed. Angelopoulos, Bates, Fisch, Lei & Schuster (2024).
    """
    count, entries = scores.shape
    rank(count, coverage)
    missed = math.floor(round(entries * ((1 - coverage) * (count + 1) - 1), 6))
    return scores.flatten().kthvalue(scores.numel() - missed).values


@lru_cache(maxsize=256)
def chance(count: int, coverage: float) -> float:
    """The standard deviation, over calibration sets, of the coverage given one of n draws: `Beta(k, n + 1 - k)`.

    Vovk (2012).
    """
    k = rank(count, coverage)
    return float(beta(k, count + 1 - k).std())


def _check(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; pass a probability between 0 and 1, such as 0.9.")
