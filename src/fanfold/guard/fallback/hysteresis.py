"""One path at a time: a switch with two thresholds, and a least stay with the baseline."""

from dataclasses import dataclass
from typing import NamedTuple

from fanfold.core.settings import Checked


class Standing(NamedTuple):
    """Which path answers, and for how long it must; the start has the network.

    Example:
        >>> from fanfold.guard.fallback import Standing
        >>> Standing().fallen
        False
    """

    fallen: bool = False  # whether the baseline answers
    remaining: int = 0  # calls before the network may come back


@dataclass(frozen=True)
class Hysteresis(Checked):
    """A rule that gives all weight to one path, and does not flap.

    The baseline answers alone from the call at which the network's weight falls to `leave`, for `stay` calls at least,
    and until the weight is `back` again. Leaving the network waits for nothing, since a collapse does not; so of any
    run of T calls at most `2 T / stay + 2` change the path.

    Raises:
        ValueError: If the thresholds are not `0 <= leave < back <= 1`, or the stay is no call.

    Example:
        >>> from fanfold.guard.fallback import Hysteresis, Standing
        >>> rule, standing = Hysteresis(leave=0.4, back=0.9, stay=2), Standing()
        >>> for weight in (0.5, 0.3, 0.95, 0.95):
        ...     standing = rule.after(standing, weight)
        ...     print(standing.fallen)
        False
        True
        True
        False
    """

    leave: float = 0.4  # weight of the network, at which the baseline answers from then on
    back: float = 0.9  # weight at which the network may answer again
    stay: int = 50  # calls that the baseline answers at least

    def __post_init__(self):
        if not 0 <= self.leave < self.back <= 1:
            raise ValueError(f"leave is {self.leave} and back is {self.back}; pass 0 <= leave < back <= 1.")
        if self.stay < 1:
            raise ValueError(f"stay is {self.stay}; pass how many calls the baseline answers at least, from 1 on.")

    def after(self, standing: Standing, network: float) -> Standing:
        """Which path answers a call, after its weights are there."""
        if not standing.fallen:
            return Standing(True, self.stay - 1) if network <= self.leave else Standing()
        if standing.remaining > 0 or network < self.back:
            return Standing(True, max(standing.remaining - 1, 0))
        return Standing()
