"""The numbers of one estimator in one world: pairs, cost, drift, what was learned, coverage, gap to the limit."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.units import db, from_db, nmse_db, rms
from fanfold.deploy import multiply_accumulates
from fanfold.deploy.latency import time_backends
from fanfold.evaluation.scores import calibration_curve, coverage
from fanfold.experiments.comparison.supply import Size, Supply
from fanfold.experiments.comparison.worlds import Arena, Contender, Family
from fanfold.guard import conformal
from fanfold.guard.answers import answers
from fanfold.guard.shifts import Shift, shift_table, shifts
from fanfold.observation import Estimator, Observation
from fanfold.problems.draws import draw
from fanfold.report.learned import Deviating, learned_ratios

COVERAGE = 0.9
WITHIN_DB = 1.0  # of its own ceiling, of a number of pairs that is enough
FRESH_DRAWS = "fresh"


@dataclass(frozen=True)
class Drift:
    """What one shift does to an estimator.

    Example:
        >>> from fanfold.experiments.comparison.scorecards import Drift
        >>> Drift("gain, x3", risk_db=20.0, lost_db=29.0).risk
        100.0
    """

    shift: str
    risk_db: float  # its errors over those of the baseline under the same shift
    lost_db: float  # its NMSE there over its NMSE without a shift

    @property
    def risk(self) -> float:
        """The ratio itself."""
        return from_db(self.risk_db)


@dataclass(frozen=True)
class Learned:
    """What an estimator learned, in numbers.

    Example:
        >>> from fanfold.experiments.comparison.scorecards import Learned
        >>> Learned(numbers=200, named=50, moved=1.3).share
        0.25
    """

    numbers: int  # that are learned
    named: int  # of them those that deviate from a quantity of the algorithm, or are one of the model
    moved: float | None  # the factor by which the median of these has moved; None where nothing deviates

    @property
    def share(self) -> float:
        """The share that has a name."""
        return self.named / self.numbers if self.numbers else 1.0


@dataclass(frozen=True)
class Scorecard:
    """All that was measured of one estimator in one world."""

    world: str
    contender: Contender
    baseline: str
    limit: str
    curve: Mapping[int | None, float]  # NMSE in dB by number of pairs; None is fresh draws
    limit_db: float  # on the draws that errors are of
    baseline_db: float
    drifts: Sequence[Drift]
    products: float  # multiply-accumulates of a call
    microseconds: float | None  # the median of a call of one sample
    backend: str  # where that was
    learned: Learned
    said: float | None  # share of entries in its own 90 % intervals; None where it says no variance
    conformal: float  # the same of calibrated ones
    radius: float  # the mean radius of these over the root mean square of x
    seconds: float  # of the processor, for all of it

    @property
    def family(self) -> Family:
        """Model-based, end-to-end or unfolding."""
        return self.contender.family

    @property
    def reached_db(self) -> float:
        """Its ceiling: the NMSE in dB with pairs without limit."""
        return self.curve[None]

    @property
    def gap_db(self) -> float:
        """What its ceiling lacks to the limit."""
        return self.reached_db - self.limit_db

    @property
    def needed(self) -> int | None:
        """The fewest pairs from which on it stays within 1 dB of its ceiling; None if no count was enough."""
        return enough(self.curve)

    @property
    def mean_risk_db(self) -> float:
        """The mean risk over shifts, in dB: that of the geometric mean."""
        return statistics.fmean(drift.risk_db for drift in self.drifts)

    @property
    def mean_risk(self) -> float:
        """The geometric mean itself."""
        return from_db(self.mean_risk_db)

    @property
    def mean_lost_db(self) -> float:
        """What a shift costs on average, against no shift."""
        return statistics.fmean(drift.lost_db for drift in self.drifts)

    @property
    def worst(self) -> Drift:
        """The shift with the largest risk."""
        return max(self.drifts, key=lambda drift: drift.risk_db)

    @property
    def place(self) -> str:
        """The file of its record."""
        return f"runs/{self.world}-{self.family}.json".replace(" ", "-")

    def record(self, seed: int) -> dict[str, Any]:
        """All of it as plain data, with what it takes to measure it again."""
        kept = ("world", "baseline", "limit", "limit_db", "baseline_db", "backend", "said", "conformal", "radius")
        return {
            "command": f"fanfold reproduce comparison-table --seed {seed}",
            "family": self.family,
            "estimator": self.contender.name,
            "training": self.contender.training,
            **{name: vars(self)[name] for name in kept},
            "nmse_db by pairs": {FRESH_DRAWS if n is None else str(n): v for n, v in self.curve.items()},
            "pairs within 1 dB of its ceiling": self.needed,
            "multiply_accumulates": self.products,
            "median_us": self.microseconds,
            "shifts": [vars(drift) | {"risk": drift.risk} for drift in self.drifts],
            "learned": vars(self.learned) | {"share": self.learned.share},
            "processor seconds": round(self.seconds, 1),
        }


def enough(curve: Mapping[int | None, float]) -> int | None:
    """The fewest pairs from which on an error is within 1 dB of that with fresh draws; None if no count is.

    Args:
        curve: NMSE in dB by number of pairs, None for fresh draws.

    Example:
        >>> from fanfold.experiments.comparison.scorecards import enough
        >>> enough({0: -3.0, 10: -9.5, 100: -8.0, 1000: -9.9, None: -10.0})
        1000
    """
    least = None
    for count in sorted((n for n in curve if n is not None), reverse=True):
        if not curve[count] <= curve[None] + WITHIN_DB:
            break
        least = count
    return least


@torch.no_grad()
def scorecard(world: Arena, contender: Contender, size: Size, seed: int) -> Scorecard:
    """Learn from every number of pairs, and measure what came of it on draws that nothing was trained or tuned on.

    Args:
        world: The world.
        contender: One of its estimators.
        size: How much is drawn and timed.
        seed: Of all draws.
    """
    began, on = time.process_time(), world.problem.held_out()
    x, obs = draw(on, size.slow_tests if world.slow else size.tests, seed, Stream.TESTING, 0)
    curve: dict[int | None, float] = {}
    counts = sorted({*size.counts, *(() if contender.training else size.few)})
    for count in (*(n for n in counts if n == 0 or n >= contender.least), None):
        estimator = contender.learn(Supply(world.problem, count, seed))
        estimate = answers(estimator, obs)
        curve[count] = finite(nmse_db(estimate.x, x))
    said = None if estimate.var is None else calibration_curve(estimate, x, [COVERAGE]).rows[0]["measured"]
    held, radius = calibrated(estimator, world, size.calibration // (3 if world.slow else 1), (x, obs), seed)
    products, microseconds, backend = call(estimator, obs[:2], size.calls, size.backends)
    return Scorecard(
        world=world.name,
        contender=contender,
        baseline=world.baseline,
        limit=world.limit,
        curve=curve,
        limit_db=world.limit_of(x, obs),
        baseline_db=nmse_db(answers(world.conservative, obs).x, x),
        drifts=drifted(estimator, world, size, seed),
        products=products,
        microseconds=microseconds,
        backend=backend,
        learned=learned(estimator, contender),
        said=said,
        conformal=held,
        radius=radius,
        seconds=time.process_time() - began,
    )


def finite(error_db: float) -> float:
    """An error or a risk in dB, infinite where an estimate is not a number."""
    return math.inf if math.isnan(error_db) else error_db


def drifted(estimator: Estimator, world: Arena, size: Size, seed: int) -> list[Drift]:
    """What each shift of this kind of problem costs, against no shift and against the conservative baseline."""
    cells: Sequence[Shift] = shifts(world.problem)[:: size.shifts or 1]
    calls, base = size.slow_shifted if world.slow else size.shifted, world.conservative
    table = shift_table(estimator, world.problem, baseline=base, peers={}, cells=cells, calls=calls, seed=seed)
    home = table.cells[0].network_db
    return [
        Drift(f"{cell.family}, {cell.severity}", finite(db(cell.risk.value)), finite(cell.network_db) - home)
        for cell in table.shifted
    ]


def call(
    estimator: Estimator, example: Observation, calls: int, backends: Sequence[str]
) -> tuple[float, float | None, str]:
    """Multiply-accumulates of a call with one sample, its median time in microseconds, and where it was taken.

    That is the first of the backends which is installed and that the estimator has a form in.
    """
    products = multiply_accumulates(estimator, example[:1])
    for backend in backends:
        (timed,) = time_backends(estimator, example, [backend], calls=calls)
        if timed.timing is not None:
            return products, timed.timing.median, backend
    return products, None, "nowhere"


def learned(estimator: Estimator, contender: Contender) -> Learned:
    """How many numbers were learned, how many have a name, and how far the median of these has moved."""
    if contender.statistics:
        return Learned(contender.statistics, contender.statistics, None)
    assert isinstance(estimator, nn.Module)
    numbers = sum(p.numel() for p in estimator.parameters())
    ratios = [
        ratio.flatten()
        for module in estimator.modules()
        if (net := ability(module, Deviating)) is not None
        for ratio in learned_ratios(net).values()
    ]
    if not ratios:
        return Learned(numbers, 0, None)
    all_of_them = torch.cat([ratio.double() for ratio in ratios])
    far = all_of_them.clamp_min(1e-12).log().abs().median().exp().item()
    return Learned(numbers, len(all_of_them), far)


def calibrated(
    estimator: Estimator, world: Arena, samples: int, tests: tuple[Tensor, Observation], seed: int
) -> tuple[float, float]:
    """The share of entries in calibrated 90 % intervals, and the mean radius of these over the signal's rms."""
    x, obs = tests
    interval = conformal(estimator, world.problem, COVERAGE, samples=samples, seed=seed)(obs)
    return coverage(interval, x).value, (interval.radius.mean() / rms(x.flatten()).mean()).item()
