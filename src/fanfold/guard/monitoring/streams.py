"""Alarms over time against a fixed set of calibration draws: a test martingale that is right for ever, and CUSUM.

Ville (1939); Vovk, Nouretdinov & Gammerman (2003), power bets; Shin, Ramdas & Rinaldo (2023), starts at every call;
arXiv 2602.13848 (2026), a fixed reference set. Page (1954), CUSUM; Brook & Evans (1972), its run length by a chain.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from fanfold.guard.monitoring.conditional import EVERY_RANK, band, check_level, lifted

BETS = (0.05, 0.2, 0.4, 0.6, 0.8)  # exponents ε of the bets ε p^(ε - 1): all fall in p, so larger p only lose
MOST_WEALTH = 1e100  # beyond which nothing is decided
CUSUM_BET = 0.25  # exponent of the one bet whose logarithm CUSUM adds up
CHAIN_STATES = 240  # of the Markov chain that CUSUM's run length is computed from
MOST_THRESHOLD = 200.0  # of CUSUM, in nats
LONGEST = 1e9  # calls between alarms, beyond which the chain is singular to rounding


@dataclass(frozen=True)
class MartingaleWatch:
    """The state of a conformal test martingale over a stream of calls, or over several streams side by side.

    It alarms for good once a bet against the calibration draws has won `1 / alarm`. The bets are a mixture over
    exponents ε of `ε p^(ε - 1)` and over the call at which they begin, so that a long quiet past costs little. Given
    the calibration draws, p-values are first made conservative; the bets fall in p, hence the wealth is a
    supermartingale and, with the confidence of the band, alarms come in at most a share `alarm` of streams, ever.

    Attributes:
        count: How many calibration draws p-values are from.
        confidence: Of the band over calibration sets.
        alarm: The rate of streams that ever alarm falsely.
        calls: How many p-values there have been.
        wealth: Of each bet that has begun, `(*streams, bets)`.
        largest: The largest total wealth so far, `(*streams)`.

    Example:
        >>> from fanfold.guard.monitoring import MartingaleWatch
        >>> state = MartingaleWatch.start(count=2000, alarm=0.01)
        >>> for p in (0.3, 0.8, 0.0005, 0.0005, 0.0005, 0.0005):
        ...     state = state.update(p)
        >>> state.calls, bool(state.alarmed)
        (6, True)
    """

    count: int
    confidence: float
    alarm: float
    calls: int
    wealth: Tensor
    largest: Tensor

    @classmethod
    def start(
        cls, count: int, alarm: float = 0.01, confidence: float = 0.95, streams: tuple[int, ...] = ()
    ) -> "MartingaleWatch":
        """The state before the first call.

        Args:
            count: How many calibration draws p-values are from.
            alarm: The rate of false alarms, for ever.
            confidence: The probability over calibration sets with which this is promised.
            streams: The shape of streams side by side; one stream if empty.

        Raises:
            ValueError: If a rate is not between 0 and 1, or there are too few draws to win any bet.
        """
        check_level("alarm", alarm)
        least = band(count, confidence)[1][0]
        if not max(bet * least ** (bet - 1) for bet in BETS) > 1:
            raise ValueError(
                f"p-values of {count} calibration draws are never surely below {least:.2g}, on which no bet wins: "
                f"calibrate on at least {10 * EVERY_RANK} draws."
            )
        wealth = torch.zeros(*streams, len(BETS), dtype=torch.float64)
        return cls(count, confidence, alarm, 0, wealth, torch.ones(streams, dtype=torch.float64))

    @property
    def alarmed(self) -> Tensor:
        """Whether each stream has alarmed, `(*streams)`, boolean; a single stream's is true or false by itself."""
        return self.largest >= 1 / self.alarm

    @property
    def evidence(self) -> Tensor:
        """The wealth as `log10`, `(*streams)`: what odds the calibration draws have lost at most."""
        return self.largest.log10()

    def update(self, p: float | Tensor) -> Self:
        """The state after one more call of each stream.

        Args:
            p: The p-value of the call, as `Monitor.p_values` gives it, `(*streams)`; an estimate's `(1,)` is taken too.

        Raises:
            ValueError: If p is of another shape or no probability.
        """
        conservative = lifted(_one_call(p, self.largest), self.count, self.confidence)
        bets = torch.tensor(BETS, dtype=torch.float64, device=conservative.device)
        factors = bets * conservative[..., None] ** (bets - 1)
        begun = _reserve(self.calls) - _reserve(self.calls + 1)
        wealth = ((self.wealth + begun) * factors).clamp_max(MOST_WEALTH)
        total = wealth.mean(-1) + _reserve(self.calls + 1)
        return replace(self, calls=self.calls + 1, wealth=wealth, largest=torch.maximum(self.largest, total))

    def after(self, p: Tensor) -> Self:
        """The state after several calls one after the other, `p` of `(calls, *streams)`."""
        return _after(self, p)


@dataclass(frozen=True)
class CusumWatch:
    """The state of CUSUM on p-values: sums of `log ε p^(ε - 1)` that never fall below zero, for quick detection.

    An alarm begins the sum anew. Its threshold makes the mean time between false alarms at least what is asked for,
    given the calibration draws with the confidence of the band: it is computed for the worst law within the band.

    Attributes:
        count: How many calibration draws p-values are from.
        confidence: Of the band over calibration sets.
        threshold: The sum that alarms, in nats.
        calls: How many p-values there have been.
        sums: `(*streams)`.
        alarmed: Whether the last call alarmed, `(*streams)`.
        alarms: How many alarms there have been, `(*streams)`.

    Example:
        >>> from fanfold.guard.monitoring import CusumWatch
        >>> state = CusumWatch.start(count=2000, between=1000)
        >>> for p in (0.3, 0.8, 0.0005, 0.0005, 0.0005):
        ...     state = state.update(p)
        >>> int(state.alarms)
        1
    """

    count: int
    confidence: float
    threshold: float
    calls: int
    sums: Tensor
    alarmed: Tensor
    alarms: Tensor

    @classmethod
    def start(
        cls, count: int, between: float = 1000, confidence: float = 0.95, streams: tuple[int, ...] = ()
    ) -> "CusumWatch":
        """The state before the first call.

        Args:
            count: How many calibration draws p-values are from.
            between: The least mean number of calls between false alarms.
            confidence: The probability over calibration sets with which this is promised.
            streams: The shape of streams side by side; one stream if empty.

        Raises:
            ValueError: If so few calibration draws cannot bear so long a time, or it is below one call.
        """
        threshold = cusum_threshold(count, between, confidence)
        zeros = torch.zeros(streams, dtype=torch.float64)
        return cls(count, confidence, threshold, 0, zeros, zeros.bool(), zeros.long())

    def update(self, p: float | Tensor) -> Self:
        """The state after one more call of each stream; p as for `MartingaleWatch.update`."""
        step = _cusum_step(lifted(_one_call(p, self.sums), self.count, self.confidence))
        sums = (self.sums + step).clamp_min(0)
        alarmed = sums >= self.threshold
        return replace(
            self,
            calls=self.calls + 1,
            sums=torch.where(alarmed, 0.0, sums),
            alarmed=alarmed,
            alarms=self.alarms + alarmed,
        )

    def after(self, p: Tensor) -> Self:
        """The state after several calls one after the other, `p` of `(calls, *streams)`."""
        return _after(self, p)


@lru_cache(maxsize=64)
def cusum_threshold(count: int, between: float, confidence: float = 0.95) -> float:
    """The least sum whose crossings are, in the mean, at least `between` calls apart.

    Raises:
        ValueError: If so few calibration draws cannot bear so long a time, or it is below one call.
    """
    if not 1 <= between <= LONGEST:
        raise ValueError(f"between is {between}; pass the mean calls between false alarms, from 1 to {LONGEST:g}.")
    least = float(band(count, confidence)[1][0])
    if not _cusum_step(torch.tensor(least)) > 0:
        raise ValueError(
            f"p-values of {count} calibration draws are never surely below {least:.2g}, which alarms nobody: calibrate "
            f"on at least {10 * EVERY_RANK} draws."
        )
    low, high = 0.0, MOST_THRESHOLD
    while high - low > 1e-3 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if _run_length(middle, count, confidence) >= between else (middle, high)
    return high


def share_in_windows(p: Tensor, alarm: float, window: int) -> Tensor:
    """The share of p-values up to `alarm` in each run of so many calls, `(calls, ...)` -> `(calls - window + 1, ...)`.

    For the eye, and for what comes back from an alarm: no promise goes with it.

    Raises:
        ValueError: If the window is longer than the stream, or holds no call.

    Example:
        >>> import torch
        >>> from fanfold.guard.monitoring import share_in_windows
        >>> share_in_windows(torch.tensor([0.5, 0.01, 0.02, 0.7]), alarm=0.05, window=2).tolist()
        [0.5, 1.0, 0.5]
    """
    check_level("alarm", alarm)
    if not 1 <= window <= len(p):
        raise ValueError(f"the window is {window} calls and the stream has {len(p)}: pass one from 1 to {len(p)}.")
    small = (p <= alarm).double().cumsum(0)
    before = torch.cat([torch.zeros_like(small[:1]), small[:-window]])
    return (small[window - 1 :] - before) / window


def _run_length(threshold: float, count: int, confidence: float) -> float:
    """The mean number of calls to the first crossing, where p-values are as small as the band lets them be.

    Sums are rounded up to a grid, so that the time is not overstated.
    """
    bounds = torch.cat([band(count, confidence)[1], torch.ones(1, dtype=torch.float64)]).clamp_max(1.0)
    chances = torch.diff(bounds, prepend=torch.zeros(1, dtype=torch.float64))
    width = threshold / CHAIN_STATES
    at = torch.arange(CHAIN_STATES, dtype=torch.float64) * width
    after = ((at[:, None] + _cusum_step(bounds)) / width).ceil().clamp(0, CHAIN_STATES).long()
    moves = torch.zeros(CHAIN_STATES, CHAIN_STATES + 1, dtype=torch.float64)
    moves.scatter_add_(1, after, chances.expand_as(after))
    stay = torch.eye(CHAIN_STATES, dtype=torch.float64) - moves[:, :-1]
    times, bad = torch.linalg.solve_ex(stay, torch.ones(CHAIN_STATES, 1, dtype=torch.float64))
    length = times[0].item()
    return math.inf if bad or not length > 0 else length  # the chain hardly ever leaves, beyond rounding


def _cusum_step(p: Tensor) -> Tensor:
    return math.log(CUSUM_BET) + (CUSUM_BET - 1) * p.log()


def _reserve(calls: int) -> float:
    """The share of the wealth whose bets have not begun after so many calls: it falls as slowly as sums allow."""
    return 1 / (1 + math.log1p(calls))


def _one_call(p: float | Tensor, like: Tensor) -> Tensor:
    values = torch.as_tensor(p, dtype=torch.float64).to(like.device)
    if values.numel() == 1 and like.ndim == 0:
        values = values.reshape(())
    if values.shape != like.shape:
        raise ValueError(
            f"p is {tuple(values.shape)} and the streams are {tuple(like.shape)}: pass the p-value of one call of each "
            "stream, or several calls, one after the other, to `after`."
        )
    return values


def _after(state, p: Tensor):
    for call in p:
        state = state.update(call)
    return state
