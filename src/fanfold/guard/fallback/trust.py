"""How far a network is trusted beside its baseline, from differences of their losses, one call after the other.

Weights: exponential weights with fixed share, Herbster & Warmuth (1998), section 5, updated before they are used.
Evidence: a bet against "the network's loss is no larger", Waudby-Smith & Ramdas (2024), started at every call with
weights that sum to one, as in Shin, Ramdas & Rinaldo (2024); Ville (1939) bounds how often it ever grows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fanfold.core.settings import Checked

STAKES = (0.1, 0.4, 0.9)  # shares of the evidence that are bet at a call: for faint, middling and plain differences
ENOUGH = 1e12  # evidence beyond which more is not counted
LEAST_RATE = 0.1  # at which a hundred of the largest differences in one direction change sides for sure


class Trust(NamedTuple):
    """What is remembered from call to call; a new one comes from `Trusting.start`.

    Example:
        >>> from fanfold.guard.fallback import Trusting
        >>> Trusting().start(scale=1.0).network
        0.5
    """

    network: float  # weight of the network, between 0 and 1; the baseline has the rest
    scale: float  # mean size of a difference so far, that of the losses
    evidence: tuple[float, ...]  # of each stake, that the network's loss is the larger one
    highest: float  # of all evidence so far, at any call
    judged: int  # how many differences it is from
    favour: tuple[float, ...]  # of each stake, since the alarm, that the network's loss is the smaller one
    since: int = 0  # how many differences these are from

    @property
    def against(self) -> float:
        """The evidence that the network's loss is the larger one; where it is not, this has a mean of at most 1."""
        return sum(self.evidence) + 1 / (self.judged + 1)

    @property
    def benign(self) -> float:
        """The evidence since the alarm that the network's loss is the smaller one; else it has a mean of at most 1."""
        return sum(self.favour) + 1 / (self.since + 1)

    def anew(self) -> "Trust":
        """The same trust, with all evidence to come: what follows an alarm, or its end."""
        none = (0.0,) * len(self.evidence)
        return self._replace(evidence=none, judged=0, favour=none, since=0)


@dataclass(frozen=True)
class Trusting(Checked):
    """The rule by which trust moves with each difference `d = loss(network) - loss(baseline)`.

    A difference counts as `u`, its ratio to `clip` mean sizes of those before it, within ±1. With the weight w of the
    network after the call, which answers it, for T calls and any choice of one of the two that changes k times,

        `Σ w u ≤ Σ u [the network is chosen] + regret(T, k)`,

    whatever the differences are: the updated weights lose no more than the mix does, and that holds this bound.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> from fanfold.guard.fallback import Trusting
        >>> rule = Trusting()
        >>> trust = rule.start(scale=1.0)
        >>> for _ in range(10):
        ...     trust = rule.after(trust, 1.0)
        >>> trust.network < 0.01, round(rule.regret(1000, 1), 2)
        (True, 0.55)
    """

    rate: float = 16.0  # by how much a difference moves the logarithm of the odds
    share: float = 1e-3  # of the weights, that is levelled after each call, so that either can come back
    clip: float = 4.0  # mean sizes, beyond which a difference counts no more
    memory: float = 0.95  # of the mean size, that is kept from call to call
    first: float = 0.5  # weight of the network before the first difference

    def __post_init__(self):
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; pass a positive number.")
        for name in ("share", "memory", "first"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; pass a number between 0 and 1.")

    @classmethod
    def of(cls, differences: Sequence[float], **settings: float) -> "Trusting":
        """The rule for differences like these, from draws that the network is for; other fields as given.

        Its rate is that of the likelihood ratio of two Gaussian laws, of plus and of minus their median, at most the
        default: where single differences say little, trust moves slowly.
        """
        d = np.asarray(differences, dtype=np.float64)
        low, middle, high = np.quantile(d, [0.16, 0.5, 0.84])  # a deviation to each side, whatever the few largest are
        size = np.abs(d).mean()
        ratio = 2 * abs(middle) * size * 4 / max((high - low) ** 2, 1e-9 * size**2, np.finfo(float).tiny)
        rule = cls(**settings)
        return (
            rule if "rate" in settings else replace(rule, rate=float(np.clip(rule.clip * ratio, LEAST_RATE, cls.rate)))
        )

    def start(self, scale: float) -> Trust:
        """The first weights, and the mean size of a difference on calibration draws.

        Raises:
            ValueError: If the scale is negative or not finite.
        """
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale is {scale}; pass the mean size of a difference, finite and not negative.")
        return Trust(self.first, scale, (0.0,) * len(STAKES), 1.0, 0, (0.0,) * len(STAKES))

    def after(self, trust: Trust, difference: float) -> Trust:
        """The trust after one more difference; one that is not a number is the largest against the network."""
        u = self.counted(trust, difference)
        before = (1 - self.share) * trust.network + self.share / 2
        odds = math.log(before / (1 - before)) - self.rate * u
        network = 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds))
        size = min(abs(difference), self.clip * trust.scale) if trust.scale and math.isfinite(difference) else 0.0
        evidence, favour = _bet(trust.evidence, trust.judged, u), _bet(trust.favour, trust.since, -u)
        scale = self.memory * trust.scale + (1 - self.memory) * size if size else trust.scale
        after = Trust(network, scale, evidence, trust.highest, trust.judged + 1, favour, trust.since + 1)
        return after._replace(highest=max(trust.highest, after.against))

    def counted(self, trust: Trust, difference: float) -> float:
        """The difference as it counts, within ±1."""
        if math.isnan(difference):
            return 1.0
        if not trust.scale:
            return float((difference > 0) - (difference < 0))
        return max(-1.0, min(1.0, difference / (self.clip * trust.scale)))

    def regret(self, calls: int, changes: int) -> float:
        """The bound on what is lost against the best choice with so many changes, in counted differences."""
        stay = (calls - 1 - changes) * -math.log1p(-self.share / 2)
        return (-math.log(min(self.first, 1 - self.first)) + changes * math.log(2 / self.share) + stay) / self.rate


def _bet(evidence: Sequence[float], calls: int, u: float) -> tuple[float, ...]:
    """The evidence of each stake after one more call; bets begin at every call, with weights that sum to one."""
    start = 1 / ((calls + 1) * (calls + 2)) / len(STAKES)
    return tuple(min((e + start) * (1 + stake * u), ENOUGH) for e, stake in zip(evidence, STAKES))
