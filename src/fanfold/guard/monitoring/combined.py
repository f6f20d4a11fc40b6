"""One score of several: the largest surprise, where the surprise of a score is minus the log of its tail.

Tippett (1931) takes the least of several p-values. Those of a few hundred draws end at the largest score seen; beyond
the 95 % quantile the tail goes on as an exponential in the logarithm of the score (Pickands, 1975), so that what is far
out has an order too. No law is trusted for it: the combined score is calibrated as any other.
"""

import torch
from torch import Tensor

from fanfold.guard.monitoring.distance import Learned

KNOTS = 200  # quantiles that a tail is kept by, below where it is exponential
TAIL = 0.05  # share of the draws from which the exponential part is learned


def learn_surprise(scores: Tensor) -> dict[str, Tensor]:
    """The tail of a score, from draws that it did not learn from, `(draws,)`."""
    ordered = _log(scores).sort().values
    ordered = ordered[torch.isfinite(ordered)]
    levels = torch.linspace(0, 1 - TAIL, KNOTS, dtype=torch.float64)
    places = (levels * (len(ordered) - 1)).round().long()
    start = ordered[places[-1]]
    excess = (ordered[places[-1] :] - start).mean().clamp_min(1e-6)
    return {"knots": ordered[places], "start": start, "excess": excess}


def surprise(scores: Tensor, learned: Learned) -> Tensor:
    """`-log P(score or more)`, `(count,)`."""
    s, knots = _log(scores), learned["knots"]
    above = (knots < s[:, None]).sum(-1).clamp(1, KNOTS - 1)  # counted, as a search has no program elsewhere
    low, high = knots[above - 1], knots[above]
    share = ((s - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    level = (above - 1 + share) * (1 - TAIL) / (KNOTS - 1)
    beyond = torch.where(s > learned["start"], (s - learned["start"]) / learned["excess"], 0.0)
    return -torch.log1p(-level) + beyond


def _log(scores: Tensor) -> Tensor:
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
