"""Intervals that cover elsewhere, by draws from here: weighted conformal prediction.

Tibshirani, Barber, Candès & Ramdas (2019), theorem 2; the effective sample size is Kish's (1965).
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream, generator_of
from fanfold.guard import bands
from fanfold.guard.answers import Pairs, calibration_draws, checked_answers, part
from fanfold.guard.classifier_features import Shown
from fanfold.guard.conformal import LEARNING_SHARE, Conformal
from fanfold.guard.fallback.samples import as_rows
from fanfold.guard.quantiles import chance, fewest
from fanfold.observation import Estimate, Estimator, Observation, check_finite

RIDGE = 1e-2  # of the classifier's weights, over the number of draws that it learns from
NEWTON_STEPS = 25
ROUNDING = 1e-12  # of sums of weights, relative, by which a threshold may be short of its share
FEWEST_LEARNED = 50  # draws of each place that a classifier learns from


@checks_arguments
def weighted_conformal(
    estimator: Estimator,
    draws: Pairs,
    there: Tensor | Observation,
    coverage: float = 0.9,
    kind: Literal["each", "joint", "energy"] = "each",
    *,
    scale: bands.Scale | None = None,
    batch: int = 4096,
    seed: int = 0,
) -> "WeightedConformal":
    """Calibrate intervals for another place on draws from here, each weighted by how much likelier it is there.

    No new simulation is needed: stored runs are weighted anew. Where the ratio of densities is declared, the promise
    holds for any estimator. The new draw's own ratio, which is not seen, is taken for the largest of calibration, so
    that intervals are rather too wide; but where it is larger still, too narrow. Of all ratios w, the new one among
    them, with `w₁ ≥ w₂` the two largest, that costs a coverage c at most `c E[(w₁ - w₂) / Σ w]`, which goes to zero
    with the number of draws. Where a classifier learns the ratio of the laws of y, the promise holds as far as that is
    right, and where x given y is as it was: not if the noise or a nuisance parameter changes what y says of x.

    Args:
        estimator: Any estimator.
        draws: Pairs from here, x `(samples, ...)` and their observation, on which nothing was trained.
        there: For each draw `(samples,)` the logarithm of the density there over that from here, up to a constant, of
            whatever has another law there: nuisance parameters, parameters, or the measurements; all else given these
            must be as it was. Or measurements of there, an observation, for a classifier.
        coverage: The probability with which intervals hold the truth there.
        kind: "each", "joint" or "energy", as of `conformal`.
        scale: What the widths go with, as of `conformal`.
        batch: How many observations the estimator sees at a time.
        seed: The seed of the order in which draws are parted, for a classifier to learn from some.

    Raises:
        ValueError: If the draws, so weighted, are too few for the coverage: the error says how many it takes, or that
            there is too far from here.

    Example:
        >>> import fanfold as ff, torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, noise, level = (torch.randn(4000, 1, generator=generator) for _ in range(3))
        >>> obs = ff.Observation(x + level.exp() * noise)  # the level of the noise is a nuisance parameter
        >>> halved = lambda obs: ff.Estimate(obs.y / 2)
        >>> louder = level[:, 0] - 0.5  # log N(level; 1, 1) - log N(level; 0, 1)
        >>> here, there = ff.guard.conformal(halved, (x, obs)), ff.guard.weighted_conformal(halved, (x, obs), louder)
        >>> bool(there(obs).radius.mean() > 1.5 * here(obs).radius.mean())
        True
    """
    x, obs = calibration_draws(draws, len(draws[0]), seed)
    x, estimate = checked_answers(estimator, x.cpu(), obs.to("cpu"), batch)
    obs, there = obs.to("cpu"), there.to("cpu")
    scale = scale or ("constant" if estimate.var is None else "variance")
    cal = WeightedConformal(estimator, coverage, kind, scale, 1, tuple(x.shape[1:]))
    if isinstance(there, Observation):
        first = cal.parted(len(x), learns=True)
        order = torch.randperm(len(x), generator=generator_of(seed, Stream.CALIBRATION, 4))
        x, obs, estimate = x[order], obs[order], part(estimate, order)
        cal.ratio = Ratios(x[:first], obs[:first], there)
        logs = cal.ratio.logs(obs)
    else:
        logs = there.double().flatten()
        if len(logs) != len(x):
            raise ValueError(f"there are {len(logs)} log ratios for {len(x)} draws; pass one for each, (samples,).")
        check_finite("a log ratio", torch.where(logs == -math.inf, 0.0, logs))  # impossible there
    cal.weigh(x, obs, estimate, logs)
    return cal


class Ratios:
    """The ratio of two laws of measurements, by a logistic regression that tells them apart, on numbers and squares.

    Args:
        x: Signals from here.
        obs: Their observation.
        there: Measurements of there.

    Raises:
        ValueError: If there are too few of one, or their shapes differ.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.weighted import Ratios
        >>> y = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> ratios = Ratios(y, ff.Observation(y), ff.Observation(y + 1))
        >>> ratios.logs(ff.Observation(torch.tensor([[-2.0], [2.0]]))).diff() > 2
        tensor([True])
    """

    def __init__(self, x: Tensor, obs: Observation, there: Observation):
        if there.y.shape[1:] != obs.y.shape[1:]:
            raise ValueError(
                f"y there is {tuple(there.y.shape)} and here {tuple(obs.y.shape)}; pass measurements of one kind."
            )
        if min(len(obs.y), len(there.y)) < FEWEST_LEARNED:
            raise ValueError(
                f"a classifier learns the ratio from {len(obs.y)} draws of here and {len(there.y)} of there; pass "
                f"{FEWEST_LEARNED} of there and {round(FEWEST_LEARNED / LEARNING_SHARE)} pairs at least."
            )
        self.shown = Shown(obs, x.real.flatten(1).double())
        z = torch.cat([self._features(obs), self._features(there)])
        label = torch.cat([torch.zeros(len(obs.y)), torch.ones(len(there.y))]).double()
        balance = torch.where(label == 1, 0.5 / len(there.y), 0.5 / len(obs.y))
        ridge = RIDGE * torch.eye(z.shape[1], dtype=z.dtype) / len(z)
        ridge[0, 0] = 0
        self.weights = torch.zeros(z.shape[1], dtype=z.dtype)
        for _ in range(NEWTON_STEPS):
            p = torch.sigmoid(z @ self.weights)
            gradient = z.mT @ (balance * (p - label)) + ridge @ self.weights
            curvature = (z.mT * (balance * p * (1 - p)).clamp_min(1e-12)) @ z + ridge
            step = torch.linalg.solve(curvature + 1e-12 * torch.eye(len(curvature), dtype=z.dtype), gradient)
            self.weights = self.weights - step / max(1.0, step.norm().item())

    def logs(self, obs: Observation) -> Tensor:
        """The logarithm of the ratio at each observation, `(batch,)`."""
        return self._features(obs) @ self.weights

    def _features(self, obs: Observation) -> Tensor:
        z = self.shown.numbers(obs)
        return torch.cat([torch.ones(len(z), 1, dtype=z.dtype), z, z.square()], -1)


@dataclass
class WeightedConformal(Conformal):
    """A calibrated estimator for another place, which maps an observation to an `Interval`; by `weighted_conformal`.

    Attributes:
        effective: How many draws of there the weighted ones are worth, `(Σ w)² / Σ w²`.
        ratio: The learned ratio of the laws of y; None where it was declared.

    Example:
        >>> import fanfold as ff, torch
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 10)
        >>> pairs = problem.sample(500, torch.Generator().manual_seed(0))
        >>> round(ff.guard.weighted_conformal(oamp, pairs, torch.zeros(500)).effective)
        500
    """

    effective: float = 0.0
    ratio: Ratios | None = None
    ordered: Tensor = field(default_factory=lambda: torch.zeros(0))  # (..., draws), the scores
    summed: Tensor = field(default_factory=lambda: torch.zeros(0))  # (..., draws), weights up to each of them
    most: float = 0.0  # the largest of the logarithms that became weights, which are over it

    def parted(self, count: int, *, learns: bool) -> int:
        """How many draws something is learned from before the others calibrate."""
        return max(1, round(LEARNING_SHARE * count)) if learns or self._learns() else 0

    def weigh(self, x: Tensor, obs: Observation, estimate: Estimate, logs: Tensor) -> None:
        """Learn the scale from the first draws, take scores and weights of the others.

        Args:
            x: The signals, `(samples, ...)`.
            obs: Their observation.
            estimate: What the estimator says of it.
            logs: The logarithms of their weights, `(samples,)`.

        Raises:
            ValueError: If they are worth too few draws.
        """
        first = self.parted(len(x), learns=self.ratio is not None)
        if self._learns():
            self.learned = bands.learn(x[:first], part(estimate, slice(first)), self.scale, joint=self.joint)
        late, seen, logs = part(estimate, slice(first, None)), obs[first:], logs[first:]
        entries = self._band(seen, late).scores(x[first:])
        check_finite("a score, the error over the width of the band,", entries.nan_to_num(posinf=0.0))
        scores = self._scores(entries)
        self.draws = len(scores)
        self.most = logs.max().item()
        if self.most == -math.inf:
            raise ValueError(
                "none of the draws that calibrate is possible in the other place: pass some that are, or draw from "
                "there and calibrate by `conformal`."
            )
        weights = (logs - self.most).exp()
        self.effective = (weights.sum().square() / weights.square().sum()).item()
        self._check(weights)
        flat = scores.flatten(1) if scores.ndim > 1 else scores[:, None]
        order = flat.argsort(0)
        self.ordered = flat.gather(0, order).mT.contiguous()
        self.summed = weights[order].cumsum(0).mT.contiguous()
        inside = scores <= self._limit(seen, late)
        held = inside.flatten(1).all(-1).double() if inside.ndim > 1 else torch.full_like(weights, self.coverage)
        self.together = ((weights * held).sum() / weights.sum()).item()

    def _check(self, weights: Tensor) -> None:
        """Refuse weights that are those of too few draws, by their chance or by the part of a new draw."""
        missed = 1 - self.coverage
        least = math.ceil(round(4 * self.coverage / missed, 6))  # √(c (1 - c) / n), the chance, is half of 1 - c
        alone = (weights.max() / (weights.sum() + weights.max())).item()
        if self.effective >= least and alone < missed / 2:
            return
        wanted = max(least / self.effective, 2 * alone / missed) * len(weights)
        raise ValueError(
            f"{len(weights)} draws, weighted for the other place, are worth {self.effective:.1f}, and intervals that "
            f"hold {100 * self.coverage:g} % there take {least} at least: it is too far from here. Pass about "
            f"{_above(wanted)} draws, or draw from the other place and calibrate by `conformal`."
        )

    def _limit(self, obs: Observation, estimate: Estimate) -> Tensor:
        """The threshold of each entry `(..., *event)`, or of each sample `(...)`; infinite where it takes that.

        Where the ratio was declared there is one for all samples, `(*event)` or `()`.
        """
        batch = estimate.x.shape[: estimate.x.ndim - len(self.event)] if self.ratio is not None else torch.Size()
        new = torch.ones(1, dtype=self.summed.dtype)  # the largest weight
        if self.ratio is not None:
            rows = as_rows(obs, obs.y.ndim - len(batch))
            alike = obs.noise_var if obs.noise_var is not None and obs.noise_var.ndim == 0 else rows.noise_var
            new = (self.ratio.logs(Observation.unchecked(rows.y, rows.A, alike).to("cpu")) - self.most).exp()
        level = self.coverage * (self.summed[:, -1:] + new) * (1 - ROUNDING)  # (entries, samples)
        place = torch.searchsorted(self.summed, level.contiguous())
        last = self.ordered.shape[-1] - 1
        limit = torch.where(place <= last, self.ordered.gather(1, place.clamp_max(last)), torch.inf)
        event = () if self.joint else self.event
        return limit.mT.reshape((*batch, *event)).to(estimate.x.device, estimate.x.real.dtype)

    @property
    def promise(self) -> str:
        """What the intervals promise, in words."""
        often, worth = f"{100 * self.coverage:g} %", max(fewest(self.coverage), int(self.effective))
        who = "The region holds all entries at once" if self.joint else "Each interval holds its entry"
        known = "declared" if self.ratio is None else "learned, and as far as it is right,"
        return (
            f"{who} with a probability of {often} for signals of the other place, where the ratio of densities is "
            f"{known} and all else is as it was; {self.draws} draws are worth {self.effective:.0f} there, whose chance "
            f"moves it by {100 * chance(worth, self.coverage):.1f} points."
        )

    def as_dict(self) -> dict[str, Any]:
        """Refused: weights are of one other place, and are made anew from the draws.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a weighted calibration is not kept; keep the draws, and weigh them again.")


def _above(value: float) -> int:
    """The whole number above, to two digits."""
    size = 10 ** max(0, len(str(int(value))) - 2)
    return (int(value) // size + 1) * size
