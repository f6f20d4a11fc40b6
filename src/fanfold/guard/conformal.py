"""Intervals with a promised coverage around any estimator, by split conformal prediction.

Vovk, Gammerman & Shafer (2005); Lei, G'Sell, Rinaldo, Tibshirani & Wasserman (2018), algorithm 2 and section 5.2.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.core.precision import dtype_named
from fanfold.core.settings import checks_arguments
from fanfold.core.units import rms
from fanfold.estimators.base import WithinLimits
from fanfold.evaluation.interval import Interval
from fanfold.guard import bands
from fanfold.guard.answers import Pairs, calibration_draws, checked_answers, part, widened_estimate
from fanfold.guard.quantiles import average_quantile, chance, conformal_quantile, group_quantiles
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation, check_finite
from fanfold.problems import Problem

SURE = 0.05  # less than the coverage by which entries that are not zero may be held before it is said
MOSTLY_ZERO = (
    "Most entries are zero, which fills the promise: of those that are not, only about {:.0f} % are held. A region "
    "that holds all entries at once holds them too."
)
LEARNING_SHARE = 0.2  # of the calibration draws, where a scale or the edges of groups are learned
Kind = Literal["each", "joint", "energy", "average"]
WRITTEN = ("coverage", "kind", "scale", "groups", "draws", "together", "not_zero")  # as they are, in a file
Number = Callable[[Observation, Estimate], Tensor]


@checks_arguments
def conformal(
    estimator: Estimator,
    draws: Problem | Pairs,
    coverage: float = 0.9,
    kind: Kind = "each",
    *,
    scale: bands.Scale | None = None,
    groups: int = 1,
    by: Number | None = None,
    samples: int = 2000,
    batch: int = 4096,
    seed: int = 0,
) -> "Conformal":
    """Calibrate intervals around an estimator on draws that it was not trained on.

    The promise holds for any estimator, any law of the signals and any number of draws, as long as the calibration
    draws and the ones to come are exchangeable: drawn alike, in any order as likely. It fails under a shift. It is over
    calibration sets: given one of n draws, the coverage has a standard deviation of about `√(c (1 - c) / n)`.

    Args:
        estimator: Any estimator.
        draws: A problem, or pairs of x `(samples, ...)` and their observation. Of stored pairs pass a part that neither
            training nor tests see.
        coverage: The probability c with which intervals hold the truth.
        kind: "each" holds each entry by itself; "joint", all entries of a sample at once in a box; "energy", at once in
            an ellipsoid; "average", with one threshold for all entries, a share c of a sample's entries on average.
        scale: What the intervals' widths go with: "variance" (of the estimate), "magnitude" (of the estimate, learned),
            "quantiles" (conformalised quantile regression; Romano, Patterson & Candès, 2019) or "constant" (absolute
            residuals); "variance" if None and the estimator has one, else "constant".
        groups: The promise holds within each of so many groups of equal size, by what is predicted (Vovk's Mondrian
            taxonomies): the magnitude of the entry, or of the sample where entries are held at once.
        by: Another number to group by, from the observation and the estimate: `(..., n)` for each entry or `(...)` for
            samples.
        samples: The number of calibration draws, of a problem.
        batch: How many observations the estimator sees at a time.
        seed: The seed of the draws.

    Raises:
        ValueError: If a setting is unknown, the estimator does not give what the scale takes, or there are too few
            draws for the coverage.

    Example:
        >>> import fanfold as ff, torch
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 10)
        >>> calibrated = ff.guard.conformal(oamp, problem, coverage=0.9, samples=500)
        >>> x, obs = problem.sample(500, torch.Generator().manual_seed(1))
        >>> 0.85 < ff.guard.coverage(calibrated(obs), x).value < 0.95
        True
    """
    _check(kind, scale, groups)
    x, obs = calibration_draws(draws, samples, seed)
    x, estimate = checked_answers(estimator, x, obs, batch)
    scale = scale or ("constant" if estimate.var is None else "variance")
    cal = Conformal(estimator, coverage, kind, scale, groups, tuple(x.shape[1:]), by)
    cal.calibrate(x, obs, estimate)
    return cal


@dataclass
class Conformal:
    """A calibrated estimator, which maps an observation to an `Interval`; made by `conformal`.

    Example:
        >>> import fanfold as ff
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 10)
        >>> calibrated = ff.guard.conformal(oamp, problem, kind="joint", samples=200)
        >>> ff.guard.Conformal.from_dict(oamp, calibrated.as_dict()).joint
        True
    """

    estimator: Estimator
    coverage: float  # promised probability
    kind: Kind  # what is held with this probability
    scale: bands.Scale  # what the widths go with
    groups: int  # within each of which the promise holds
    event: tuple[int, ...]  # shape of one sample
    by: Number | None = None  # what groups are made by, if not by magnitude
    draws: int = 0  # how many draws the thresholds are from
    together: float = 0.0  # share of these draws with all entries inside at once
    not_zero: float | None = None  # share of the entries that are not zero, inside, where most entries are zero
    learned: dict[str, Tensor] = field(default_factory=dict)  # numbers of the scale
    edges: Tensor = field(default_factory=lambda: torch.zeros(0))  # (groups - 1, ...) between the groups
    thresholds: Tensor = field(default_factory=lambda: torch.zeros(0))  # (groups, ...)

    @property
    def joint(self) -> bool:
        """Whether the promise is for all entries of a sample at once."""
        return self.kind in ("joint", "energy")

    def calibrate(self, x: Tensor, obs: Observation, estimate: Estimate) -> None:
        """Learn scales and groups from the first draws, take thresholds from the others: the promise stays exact."""
        first = max(1, round(LEARNING_SHARE * len(x))) if self._learns() else 0
        if first:
            early = part(estimate, slice(first))
            self.learned = bands.learn(x[:first], early, self.scale, joint=self.kind != "each")
            levels = torch.arange(1, self.groups, dtype=torch.float64) / self.groups
            ordered = self._number(obs[:first], early).sort(0).values
            self.edges = ordered[(levels * first).long().clamp_max(first - 1)]
        self.draws = len(x) - first
        late, seen = part(estimate, slice(first, None)), obs[first:]
        entries = self._band(seen, late).scores(x[first:])
        check_finite("a score, the error over the width of the band,", entries.nan_to_num(posinf=0.0))  # inf is wide
        scores = self._scores(entries)
        if self.kind == "average":
            self.thresholds = average_quantile(scores.flatten(1), self.coverage)[None]
        elif self.groups == 1:
            self.thresholds = conformal_quantile(scores, self.coverage)[None]
        else:
            labels = bands.bin_of(self._number(seen, late), self.edges)
            self.thresholds = group_quantiles(scores, labels, self.groups, self.coverage)
        inside = scores <= self._limit(seen, late)
        self.together = inside.flatten(1).all(-1).double().mean().item() if inside.ndim > 1 else self.coverage
        signal = x[first:] != 0
        if inside.shape == signal.shape and signal.any() and signal.double().mean() < 0.5:
            self.not_zero = inside[signal].double().mean().item()

    @takes_measurements
    @torch.no_grad()
    def __call__(self, obs: Observation) -> Interval:
        """The estimate with its intervals.

        Half precision is widened to single. Intervals end at the limits that the estimator knows of its unknowns. Where
        the estimate is NaN so is its interval, and holds nothing.

        Raises:
            ValueError: If the estimate has another shape than those of calibration, or a variance is none.
        """
        estimate = widened_estimate(self.estimator(obs))
        if tuple(estimate.x.shape[-len(self.event) :]) != self.event:
            raise ValueError(f"the estimate is {tuple(estimate.x.shape)}; intervals were calibrated for {self.event}.")
        band, limit = self._band(obs, estimate), self._limit(obs, estimate)
        if self.joint:
            limit = limit.reshape(*limit.shape, *[1] * len(self.event))
        grown = self._outwards(limit * band.scale, band)
        ellipsoid = grown if self.kind == "energy" else None
        if ellipsoid is not None:
            grown = ellipsoid * self.entries**0.5
        radius, low, high = grown, None, None
        if not estimate.x.is_complex():
            low, high = self._within(band.lower - grown), self._within(band.upper + grown)
            radius = (high - low).clamp_min(0) / 2
        promised = (self.coverage, self.joint, len(self.event), self.promise)
        return Interval(estimate.x, radius, low, high, *promised, ellipsoid=ellipsoid)

    def _within(self, end: Tensor) -> Tensor:
        """Ends of intervals within the limits of the unknowns, beyond which no truth is lost."""
        limited = ability(self.estimator, WithinLimits)
        if limited is None:
            return end
        low, high = (limit.to(end) for limit in limited.support)
        return torch.minimum(torch.maximum(end, low), high)

    def _outwards(self, grown: Tensor, band: bands.Band) -> Tensor:
        """The widths with what rounding may take from an error that is just held: ties of scores are held or none."""
        eps = torch.finfo(grown.dtype).eps
        least = 0.0 if band.x.is_complex() else 2 * eps * torch.maximum(band.lower.abs(), band.upper.abs())
        return torch.where(grown == 0, grown, grown + (8 + self.entries**0.5) * eps * grown.abs() + least)

    @property
    def entries(self) -> int:
        """The number of entries of one sample."""
        return torch.Size(self.event).numel()

    @property
    def misses_signals(self) -> bool:
        """Whether entries that are zero fill the promise, and those that are not are held by far less."""
        return self.not_zero is not None and self.not_zero < self.coverage - SURE

    @property
    def promise(self) -> str:
        """What the intervals promise, in words, and how often they hold all entries at once."""
        often, n = f"{100 * self.coverage:g} %", self.entries
        give = 100 * chance(self.draws // self.groups, self.coverage)
        drawn = f"for signals drawn like the {self.draws} of calibration, whose chance moves it by {give:.1f} points"
        within = f" in each of {self.groups} groups" if self.groups > 1 else ""
        if self.joint:
            shape = "box" if self.kind == "joint" else "ellipsoid"
            whole = f"all {n} entries at once" if n > 1 else "its entry"
            return f"The {shape} holds {whole} with a probability of {often}{within}, {drawn}."
        who = "Each interval" if self.kind == "each" else "The average interval"
        text = f"{who} holds its entry with a probability of {often}{within}, {drawn}."
        if self.misses_signals:
            text += f" {MOSTLY_ZERO.format(100 * (self.not_zero or 0))}"
        if n > 1:
            text += (
                f" All {n} at once are held by only about {100 * self.together:.0f} %: for a region that holds them "
                f"together with {often}, pass kind='joint'."
            )
        return text

    def as_dict(self) -> dict[str, Any]:
        """The calibration as plain data for a run directory: everything but the estimator and `by`."""
        return {name: vars(self)[name] for name in WRITTEN} | {
            "event": list(self.event),
            "dtype": str(self.thresholds.dtype).removeprefix("torch."),
            "learned": {k: t.tolist() for k, t in self.learned.items()},
            "edges": self.edges.tolist(),
            "thresholds": self.thresholds.tolist(),
        }

    @classmethod
    def from_dict(cls, estimator: Estimator, data: dict[str, Any], by: Number | None = None) -> "Conformal":
        """The calibration that `as_dict` wrote, around the same estimator, and with the same `by` if it had one."""
        dtype = dtype_named(data["dtype"])
        edges, thresholds = (torch.tensor(data[k], dtype=dtype) for k in ("edges", "thresholds"))
        learned = {k: torch.tensor(v, dtype=dtype) for k, v in data["learned"].items()}
        fields: dict[str, Any] = {"not_zero": None} | {name: data[name] for name in WRITTEN if name in data}
        fields["event"] = tuple(data["event"])
        return cls(estimator, by=by, learned=learned, edges=edges, thresholds=thresholds, **fields)

    def _learns(self) -> bool:
        """Whether numbers other than the thresholds come from draws."""
        return self.groups > 1 or self.scale == "magnitude" or (self.kind != "each" and self.scale != "variance")

    def _band(self, obs: Observation, estimate: Estimate) -> bands.Band:
        learned = {k: t.to(estimate.x.device) for k, t in self.learned.items()}
        return bands.band(obs, estimate, self.estimator, self.scale, learned)

    def _scores(self, entries: Tensor) -> Tensor:
        """The score of each entry, or of each sample where entries are held at once."""
        if not self.joint:
            return entries
        entries = entries.flatten(1)
        most = entries.amax(-1)
        if self.kind == "joint":
            return most
        # against the largest one, as squares of scores on a vanishing scale overflow
        share = (entries / most.clamp_min(torch.finfo(most.dtype).tiny)[:, None]).nan_to_num(1.0)
        return most * share.square().mean(-1).sqrt()

    def _limit(self, obs: Observation, estimate: Estimate) -> Tensor:
        """The threshold of each entry `(..., *event)`, or of each sample `(...)`."""
        thresholds = self.thresholds.to(estimate.x.device)
        if self.groups == 1:
            return thresholds[0]
        number, edges = self._number(obs, estimate), self.edges.to(estimate.x.device)
        return bands.pick(thresholds, bands.bin_of(number, edges))

    def _number(self, obs: Observation, estimate: Estimate) -> Tensor:
        """The number that samples or entries are grouped by."""
        if self.by is not None:
            number = self.by(obs, estimate).to(estimate.x.real.dtype)
            check_finite("`by`", number)
            grouped = estimate.x.shape[: -len(self.event)] if self.joint else estimate.x.shape
            if number.shape != grouped:
                raise ValueError(f"`by` gives {tuple(number.shape)} where {tuple(grouped)} is to be grouped.")
            return number
        return rms(estimate.x.flatten(-len(self.event)))[..., 0] if self.joint else estimate.x.abs()


def _check(kind: str, scale: str | None, groups: int) -> None:
    if kind == "energy" and scale == "quantiles":
        raise ValueError("an ellipsoid has a centre and no quantiles; pass kind='joint' or another scale.")
    if groups < 1 or (groups > 1 and kind == "average"):
        raise ValueError(f"groups is {groups}; pass at least 1, and 1 for kind='average'.")
