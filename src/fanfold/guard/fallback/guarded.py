"""A network that falls back to a baseline: never far from it in a call, never much worse over many calls."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.guard.answers import Pairs, answers, calibration_draws
from fanfold.guard.fallback.noise_split import NoiseSplit
from fanfold.guard.fallback.trust import Trust, Trusting
from fanfold.guard.quantiles import conformal_quantile
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation, check_finite
from fanfold.problems import Problem

Condition = Literal["active", "monitoring", "fallback"]
MORE_SATURATED = 0.05  # of the entries, by which more may stand at the largest magnitude than on calibration draws


class Calls(NamedTuple):
    """What has happened so far, in calls, each of which is one sample.

    Example:
        >>> from fanfold.guard.fallback import Calls
        >>> Calls().all
        0
    """

    all: int = 0
    judged: int = 0  # of these, the losses were compared
    capped: int = 0  # the network was too far from the baseline
    unfit: int = 0  # y was not finite, silent or saturated, or the network's estimate not finite
    in_fallback: int = 0  # the baseline had the larger weight


@checks_arguments
def guarded(
    estimator: Estimator,
    baseline: Estimator,
    draws: Problem | Pairs,
    *,
    reach: float = 0.999,
    judge: NoiseSplit | None = NoiseSplit(),  # noqa: B008 - it is frozen
    every: int = 1,
    alarm: float = 1e-3,
    latch: bool = False,
    trusting: Trusting | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> "Guarded":
    """Put a conservative baseline beside an estimator, and a rule that goes over to it where the estimator errs more.

    Args:
        estimator: The network to guard. It takes each sample by itself.
        baseline: What is known to be safe, such as a classical algorithm with settings for the worst case.
        draws: A problem, or pairs of x `(samples, ...)` and their observation, none of which was trained on: what the
            network is for. They set how far it may be from the baseline, and the size of a difference of losses.
        reach: The share of these draws on which the network's estimate is left as it is.
        judge: How losses are compared without the truth; None compares none, and leaves the cap alone.
        every: At which calls they are compared: each, or one in so many, as comparing takes two more estimates.
        alarm: The chance with which a network that is never worse in the mean ever raises the alarm.
        latch: Whether the alarm leaves the baseline alone, until `reset`.
        trusting: The rule by which trust moves; None takes the rate that suits the draws.
        samples: The number of calibration draws, of a problem.
        seed: The seed of the draws.

    Raises:
        ValueError: If a number is out of range, estimates differ in shape, or there are too few draws for the reach.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 10), ff.iterate(ff.algorithms.FISTA(lam=0.1), 100)
        >>> guard = ff.guard.guarded(net, safe, problem, reach=0.99, samples=200)
        >>> _, obs = problem.sample(50, torch.Generator().manual_seed(1))
        >>> guard(obs).x.shape, guard.condition, guard.calls.all
        (torch.Size([50, 40]), 'active', 50)
    """
    if every < 1:
        raise ValueError(f"every is {every}; pass 1 to compare at each call, or one in so many.")
    if not 0 < alarm < 1:
        raise ValueError(f"alarm is {alarm}; pass the chance of a false alarm, between 0 and 1.")
    _, obs = calibration_draws(draws, samples, seed)
    network, beside = answers(estimator, obs), answers(baseline, obs)
    if network.x.shape != beside.x.shape:
        raise ValueError(
            f"the estimator says {tuple(network.x.shape)} where the baseline says {tuple(beside.x.shape)}."
        )
    check_finite("the baseline's x", beside.x)
    check_finite("the estimator's x", network.x)
    radius = conformal_quantile((network.x - beside.x).flatten(1).norm(dim=-1), reach).item()
    scale = 0.0
    if judge is not None:
        halves = judge.halves(obs, range(len(obs.y)))
        differences = judge.differences(halves, answers(estimator, halves.obs), answers(baseline, halves.obs))
        scale = differences.abs().mean().item()
        trusting = trusting or Trusting.of(differences.tolist())
    limits = GuardLimits(radius, _saturation(obs.y).amax().item() + MORE_SATURATED, every, alarm, latch)
    return Guarded(estimator, baseline, judge, trusting or Trusting(), limits, scale)


class GuardLimits(NamedTuple):
    """What a guarded estimator holds to; made by `guarded`.

    Example:
        >>> from fanfold.guard.fallback import GuardLimits
        >>> GuardLimits(radius=1.0, saturated=0.1, every=1, alarm=0.001, latch=False).radius
        1.0
    """

    radius: float  # how far, in the Euclidean norm and the units of x, an estimate may be from the baseline's
    saturated: float  # share of the entries of y at its largest magnitude, above which y counts as saturated
    every: int  # at which calls losses are compared
    alarm: float  # chance of a false alarm, ever
    latch: bool  # whether the alarm leaves the baseline alone


class Guarded:
    """An estimator between a network and its baseline, `x = x_b + w min(1, r / ‖x_n - x_b‖) (x_n - x_b)`.

    `guarded` makes it. The samples of a batch are calls one after the other: what they say moves the weight w of the
    next ones, and one at a time gives the same. The estimate's error is at most the baseline's plus r in the Euclidean
    norm, at every call and whatever y is. `promise` says what else is held. It remembers; `reset` forgets. Where both
    paths give a variance its own is theirs, weighed, which bounds it as the square is convex.

    Measurements that are not finite, silent or saturated are answered by the baseline, with entries that are not
    finite taken as zero; pass these by `Observation.unchecked`, as `Observation` refuses them.

    Attributes:
        estimator: The network.
        baseline: The safe estimator.
        judge: How losses are compared without the truth; None compares none.
        trusting: The rule by which trust moves.
        limits: What it holds to.
        trust: What it has come to; the weight of the network, and the evidence against it.
        calls: What has happened so far.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> wild, safe = lambda obs: ff.Estimate(1e6 * (obs.A.H @ obs.y)), ff.estimators.LMMSE.of(problem)
        >>> guard = ff.guard.guarded(safe, safe, problem, samples=1000)
        >>> guard.estimator = wild  # as if it had gone wrong
        >>> x, obs = problem.sample(50, torch.Generator().manual_seed(1))
        >>> torch.equal(guard(obs).x, safe(obs).x)  # they were never apart
        True
    """

    def __init__(
        self,
        estimator: Estimator,
        baseline: Estimator,
        judge: NoiseSplit | None,
        trusting: Trusting,
        limits: GuardLimits,
        scale: float,
    ):
        self.estimator, self.baseline, self.judge = estimator, baseline, judge
        self.trusting, self.limits, self.scale = trusting, limits, scale
        self.reset()

    def reset(self) -> None:
        """Forget all calls: with a judge the weights are even, and without one the network has all."""
        self.calls = Calls()
        self.trust: Trust = self.trusting.start(self.scale)
        if self.judge is None:
            self.trust = self.trust._replace(network=1.0)

    @property
    def alarmed(self) -> bool:
        """Whether the evidence against the network has ever been enough."""
        return self.trust.highest >= 1 / self.limits.alarm

    @property
    def condition(self) -> Condition:
        """Fallback, where the baseline answers; else active or, once alarmed, "monitoring"."""
        if self._weight < 0.5:
            return "fallback"
        return "monitoring" if self.alarmed else "active"

    @property
    def promise(self) -> str:
        """What is held, and under what, in sentences."""
        text = (
            "At every call, whatever y is, the error is at most the baseline's plus "
            f"{self.limits.radius:.3g} in the Euclidean norm."
        )
        if self.judge is None:
            return f"{text} Losses are not compared, so nothing is held over time."
        return (
            f"{text} Over 1000 compared calls the clipped losses at the measurements are at most "
            f"{self.trusting.regret(1000, 1):.2f} times {self.trusting.clip:g} mean differences above those of the "
            "better path, also where that changes once. A network that is never worse in the mean raises the alarm "
            f"with a chance of {self.limits.alarm:g} at most, ever. Losses are those at the measurements, under A and "
            "the noise variance of the observation: what A does not see is not judged."
        )

    @takes_measurements
    @torch.no_grad()
    def __call__(self, obs: Observation) -> Estimate:
        """The estimates of successive calls, y `(..., m)` in their order.

        Raises:
            ValueError: If losses are to be compared and the noise variance is unknown.
        """
        batch, rows = obs.y.shape[:-1], _as_rows(obs)
        fit = self._fit(rows.y)
        rows = Observation.unchecked(rows.y.masked_fill(~torch.isfinite(rows.y), 0.0), rows.A, rows.noise_var)
        network, beside = answers(self.estimator, rows), answers(self.baseline, rows)
        fit = fit & torch.isfinite(network.x).flatten(1).all(-1)
        gap = torch.where(_beside(fit, network.x), network.x - beside.x, 0.0)
        apart = gap.flatten(1).norm(dim=-1)
        capped = apart > self.limits.radius
        weights = self._weights(rows, fit)
        w = _beside((weights * torch.where(capped, self.limits.radius / apart, 1.0)).to(gap.real.dtype), gap)
        self._count(fit, capped, weights < 0.5)
        x = beside.x + w * gap
        var = None
        if network.var is not None and beside.var is not None:
            var = beside.var + w * torch.where(_beside(fit, gap), network.var - beside.var, 0.0)
            var = var.reshape(*batch, *var.shape[1:])
        return Estimate(x.reshape(*batch, *x.shape[1:]), var)

    @property
    def _weight(self) -> float:
        """The network's weight in an estimate that nothing else keeps from it."""
        return 0.0 if self.limits.latch and self.alarmed else self.trust.network

    def _fit(self, y: Tensor) -> Tensor:
        """Which samples `(batch,)` are as measurements can be."""
        return torch.isfinite(y).all(-1) & (y != 0).any(-1) & (_saturation(y) <= self.limits.saturated)

    def _weights(self, rows: Observation, fit: Tensor) -> Tensor:
        """The network's weight at each call, zero where it is not fit: `(batch,)`; calls that are judged move it."""
        calls = range(self.calls.all, self.calls.all + len(rows.y))
        judged = [i for i, n in enumerate(calls) if self.judge is not None and n % self.limits.every == 0 and fit[i]]
        differences = dict(zip(judged, self._differences(rows, judged, calls)))
        weights = []
        for i in range(len(calls)):
            if i in differences:
                self.trust = self.trusting.after(self.trust, differences[i])
            weights.append(self._weight)
        self.calls = self.calls._replace(judged=self.calls.judged + len(judged))
        return torch.tensor(weights, dtype=torch.float64, device=fit.device) * fit

    def _differences(self, rows: Observation, judged: list[int], calls: Sequence[int]) -> list[float]:
        if self.judge is None or not judged:
            return []
        index = torch.tensor(judged, device=rows.y.device)
        halves = self.judge.halves(rows[index], [calls[i] for i in judged])
        return self.judge.differences(
            halves, answers(self.estimator, halves.obs), answers(self.baseline, halves.obs)
        ).tolist()

    def _count(self, fit: Tensor, capped: Tensor, in_fallback: Tensor) -> None:
        more = {"all": fit.numel(), "capped": capped, "unfit": ~fit, "in_fallback": in_fallback}
        self.calls = self.calls._replace(
            **{name: getattr(self.calls, name) + int(torch.as_tensor(count).sum()) for name, count in more.items()}
        )


def _as_rows(obs: Observation) -> Observation:
    """The observation with one leading axis."""
    m, var = obs.y.shape[-1], obs.noise_var
    if var is not None:
        var = var.expand(*obs.y.shape[:-1], 1).reshape(-1, 1)
    return Observation.unchecked(obs.y.reshape(-1, m), obs.A, var)


def _saturation(y: Tensor) -> Tensor:
    """The share of entries, real and imaginary parts, at a sample's largest magnitude: `(batch,)`."""
    size = torch.view_as_real(y).flatten(1).abs() if y.is_complex() else y.abs()
    return (size == size.amax(-1, keepdim=True)).double().mean(-1)


def _beside(samples: Tensor, like: Tensor) -> Tensor:
    """One number of each sample `(batch,)`, with as many axes as an estimate."""
    return samples.reshape(-1, *[1] * (like.ndim - 1))
