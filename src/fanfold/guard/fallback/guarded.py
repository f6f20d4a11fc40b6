"""A network that falls back to a baseline: never far from it in a call, never much worse over many calls."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fanfold.guard.answers import answers
from fanfold.guard.fallback.hysteresis import Standing
from fanfold.guard.fallback.limits import Calls, Condition, GuardLimits
from fanfold.guard.fallback.noise_levels import NoiseLevels
from fanfold.guard.fallback.noise_split import NoiseSplit
from fanfold.guard.fallback.samples import as_rows, distance, finite, saturation, trailing, unit
from fanfold.guard.fallback.stepping import GuardStep
from fanfold.guard.fallback.trust import Trust, Trusting
from fanfold.guard.monitoring import Monitor, MonitorStep
from fanfold.guard.monitoring.stepping import remembered_watch
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation


class Guarded:
    """An estimator between a network and its baseline, `x = x_b + w min(1, r / ‖x_n - x_b‖) (x_n - x_b)`.

    `guarded` makes it. The samples of a batch are calls one after the other: what they say moves the weight w of the
    next ones, and one at a time gives the same. The estimate's error is at most the baseline's plus r in the Euclidean
    norm, at every call and whatever y is; r goes with the deviation that the baseline claims, where it claims one, and
    is `limits.further` times as large at calls whose own losses do not speak loudly against the network.
    `promise` says what else is held. It remembers; `reset` forgets. Where both
    paths give a variance its own is theirs, weighed, which bounds it as the square is convex.

    Measurements that are not finite, silent or saturated are answered by the baseline, with entries that are not
    finite taken as zero; pass these by `Observation.unchecked`, as `Observation` refuses them.

    Attributes:
        estimator: The network.
        baseline: The safe estimator.
        judge: How losses are compared without the truth; None compares none.
        monitor: What says how strange each observation is, if anything does.
        watch: The state of the monitor's martingale.
        trusting: The rule by which trust moves.
        limits: What it holds to.
        trust: What it has come to; the weight of the network, and the evidence against it.
        standing: Which path answers, where there is hysteresis.
        raised: Whether the alarm is on: it was raised, and no evidence since says that the network is the better one.
        levels: What both paths do in more noise than is claimed; None where the claim is believed.
        at_home: Its squared error over the network's, on its calibration draws as streams of a thousand calls, where
            that was found out.
        left: The mean squares that network and baseline leave of y over the claimed variance, over the last calls.
        loudness: The mean square of y over that of the draws, over these calls, where it counts.
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
        monitor: Monitor | None,
        trusting: Trusting,
        limits: GuardLimits,
        scale: float,
        levels: NoiseLevels | None = None,
        at_home: float | None = None,
    ):
        self.estimator, self.baseline, self.judge, self.monitor = estimator, baseline, judge, monitor
        self.trusting, self.limits, self.scale, self.levels = trusting, limits, scale, levels
        self.at_home = at_home
        self.reset()

    def reset(self) -> None:
        """Forget all calls: with a judge the weights are the rule's first, and without one the network has all."""
        self.calls = Calls()
        self.watch = None if self.monitor is None else self.monitor.watch()
        self.trust: Trust = self.trusting.start(self.scale)
        if self.judge is None:
            self.trust = self.trust._replace(network=1.0)
        self.standing, self.raised = Standing(), False
        self.left = (0.0, 0.0) if self.levels is None else self.levels.usual
        self.loudness = 1.0

    @property
    def alarmed(self) -> bool:
        """Whether the evidence against the network, or that observations are strange, has ever been enough."""
        return self._strange or self.trust.highest >= 1 / self.limits.alarm

    @property
    def condition(self) -> Condition:
        """Fallback, where the baseline answers; else active or, while the alarm is on, "monitoring"."""
        if self._weight < 0.5:
            return "fallback"
        return "monitoring" if self.raised else "active"

    @property
    def promise(self) -> str:
        """What is held, and under what, in sentences."""
        limits = self.limits
        text = (
            "At every call, whatever y is, the error is at most the baseline's plus "
            f"{limits.further * limits.radius:.3g} in the Euclidean norm, in deviations that the baseline claims, or "
            "in units of x where it claims none."
        )
        if limits.further > 1:
            text += (
                f" Where the call's own losses speak against the network by more than {limits.loud:.3g} it is plus "
                f"{limits.radius:.3g}."
            )
        if self.judge is None:
            if self.monitor is None:
                return f"{text} Losses are not compared, so nothing is held over time."
            return (
                f"{text} Losses are not compared; the baseline answers once the monitor alarms. {self.monitor.promise}"
            )
        if (rule := self.limits.hysteresis) is not None:
            return (
                f"{text} One path answers at a time: the baseline once the network's weight is {rule.leave:g} or less, "
                f"for {rule.stay} calls at least. Nothing bounds what that loses over time."
            )
        until = ", up to the alarm," if self.limits.latch else ""
        home = ""
        if self.at_home is not None:
            home = (
                " On its calibration draws, in streams of 1000 calls, its squared error was "
                f"{self.at_home:.2f} times that of the network."
            )
        noise = "the noise variance of the observation"
        if self.levels is not None:
            noise += ", or the larger one with which calibration draws leave as much of y"
        strange = "" if self.monitor is None else f" The monitor raises it too. {self.monitor.promise}"
        return (
            f"{text} Over 1000 compared calls{until} the clipped losses at the measurements, weighed and before the "
            f"cap, are at most {self.trusting.regret(1000, 1):.2f} times {self.trusting.clip:g} mean differences above "
            "those of the better path, also where that changes once. A network whose clipped differences have, given "
            "the calls before, no mean above zero raises the alarm by its losses with a chance of "
            f"{self.limits.alarm:g} at most, ever. Losses are those at the measurements, under A and {noise}: what A "
            f"does not see is not judged.{home}{strange}"
        )

    @property
    def remembered(self) -> dict[str, Tensor]:
        """The two weights, and all else that the next call depends on, as numbers: what a program begins with."""
        trust, turn = self.trust, (self.calls.all - self.calls.unfit) % self.limits.every
        numbers = (
            *(trust.scale, *trust.evidence, trust.highest, trust.judged, *trust.favour, trust.since),
            *(*self.left, self.loudness, self.standing.fallen, self.standing.remaining, self.raised, turn),
        )
        weights = (trust.network, 1 - trust.network)
        held = {
            "trust": torch.tensor(weights, dtype=torch.float64),
            "memory": torch.tensor([float(number) for number in numbers], dtype=torch.float64),
        }
        return held if self.watch is None else held | {"watch": remembered_watch(self.watch)}

    def chance(self, obs: Observation, calls: Sequence[int]) -> dict[str, Tensor]:
        """The noise that is added to y at these calls, which a program cannot draw: standard, circular, like y."""
        return {} if self.judge is None else {"drawn": self.judge.drawn(obs, calls)}

    def step(self) -> nn.Module:
        """One call as a module that keeps nothing: `(obs, chance, remembered) -> (estimate, remembered)`."""
        watching = None if self.monitor is None else MonitorStep(self.monitor)
        paths = self.estimator, self.baseline
        return GuardStep(*paths, self.judge, self.trusting, self.limits, self.levels, watching)

    @takes_measurements
    @torch.no_grad()
    def __call__(self, obs: Observation) -> Estimate:
        """The estimates of successive calls, y `(..., *event)` in their order.

        Raises:
            ValueError: If losses are to be compared and the noise variance is unknown.
        """
        batch, rows = obs.y.shape[: obs.y.ndim - self.limits.axes], as_rows(obs, self.limits.axes)
        fit = self._fit(rows.y)
        rows = Observation.unchecked(rows.y.masked_fill(~torch.isfinite(rows.y), 0.0), rows.A, rows.noise_var)
        beside = answers(self.baseline, rows)
        network, strange = self._answered(rows, beside)
        gap = network.x - beside.x
        fit = fit & finite(gap) if network.var is None else fit & finite(gap) & finite(network.var)
        gap = torch.where(trailing(fit, gap), gap, 0.0)
        weights, quiet = self._weights(rows, (network, beside), strange, fit)
        apart, wider = distance(gap), 1 + (self.limits.further - 1) * quiet.double()
        radius = self.limits.radius * unit(beside) * wider
        capped = apart > radius
        w = trailing((weights * torch.where(capped, radius / apart, 1.0)).to(gap.real.dtype), gap)
        self._count(fit, capped, weights < 0.5)
        x = beside.x + w * gap
        var = None
        if network.var is not None and beside.var is not None:
            var = beside.var + w * torch.where(trailing(fit, gap), network.var - beside.var, 0.0)
            var = var.reshape(*batch, *var.shape[1:])
        return Estimate(x.reshape(*batch, *x.shape[1:]), var)

    def _answered(self, rows: Observation, beside: Estimate) -> tuple[Estimate, Tensor | None]:
        """The network's estimates and, with a monitor, the p-values of the observations: the network runs once."""
        if self.monitor is None:
            return answers(self.estimator, rows), None
        said, strange = self.monitor.judged(rows)
        var = None if said.var is None else said.var.reshape(beside.x.shape)
        return Estimate(said.x.reshape(beside.x.shape), var).to(rows.y.device), strange

    @property
    def _strange(self) -> bool:
        return self.watch is not None and bool(self.watch.alarmed)

    @property
    def _weight(self) -> float:
        """The network's weight in an estimate that nothing else keeps from it."""
        if self._strange if self.judge is None else self.limits.latch and self.trust.highest >= 1 / self.limits.alarm:
            return 0.0
        return self.trust.network if self.limits.hysteresis is None else float(not self.standing.fallen)

    def _fit(self, y: Tensor) -> Tensor:
        """Which samples `(batch,)` are as measurements can be."""
        return finite(y) & (y != 0).flatten(1).any(-1) & (saturation(y) <= self.limits.saturated)

    def _weights(
        self, rows: Observation, whole: tuple[Estimate, Estimate], strange: Tensor | None, fit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The network's weight at each call, zero where it is not fit, and whether its losses are quiet: `(batch,)`.

        Quiet are those that do not speak loudly against it. Calls that are judged move the weight.
        """
        calls = range(self.calls.all, self.calls.all + len(rows.y))
        number = self.calls.all - self.calls.unfit + fit.cumsum(0) - 1  # of those that are fit
        judged = [] if self.judge is None else (fit & (number % self.limits.every == 0)).nonzero()[:, 0].tolist()
        differences = dict(zip(judged, self._differences(rows, whole, judged, calls)))
        weights, changes, alarms = [], 0, 0
        for i in range(len(calls)):
            before, on, seen = self._weight, self.raised, self._strange
            if i in differences:
                self.trust = self.trusting.after(self.trust, differences[i])
            if self.watch is not None and strange is not None and fit[i]:
                self.watch = self.watch.update(strange[i])
            if self.limits.hysteresis is not None:
                self.standing = self.limits.hysteresis.after(self.standing, self.trust.network)
            self._raise_or_end(strange=self._strange and not seen)
            weights.append(self._weight)
            changes += (before < 0.5) != (weights[-1] < 0.5)
            alarms += self.raised and not on
        self.calls = self.calls._replace(
            judged=self.calls.judged + len(judged),
            changes=self.calls.changes + changes,
            alarms=self.calls.alarms + alarms,
        )
        loud = self.limits.loud
        quiet = torch.tensor([differences.get(i, math.inf) <= loud for i in range(len(calls))], device=fit.device)
        return torch.tensor(weights, dtype=torch.float64, device=fit.device) * fit, quiet

    def _raise_or_end(self, *, strange: bool) -> None:
        """Raise the alarm, or end it where the losses since say that the network is the better path after all."""
        enough = 1 / self.limits.alarm
        if not self.raised and (strange or self.trust.against >= enough):
            self.raised, self.trust = True, self.trust.anew()
        elif self.raised and self.judge is not None and self.trust.benign >= enough:
            self.raised, self.trust = False, self.trust.anew()

    def _differences(
        self, rows: Observation, whole: tuple[Estimate, Estimate], judged: list[int], calls: Sequence[int]
    ) -> list[float]:
        if self.judge is None or not judged:
            return []
        index = torch.tensor(judged, device=rows.y.device)
        some, halves = rows[index], self.judge.halves(rows[index], [calls[i] for i in judged])
        copy = answers(self.estimator, halves.obs), answers(self.baseline, halves.obs)
        differences = self.judge.differences(halves, *copy)
        if self.levels is None:
            return differences.tolist()
        claimed, kept = self.judge.claimed(some), self.judge.memory
        left = [self.judge.residuals(some, Estimate(estimate.x[index])) for estimate in whole]
        loud = self.levels.loudness(self.judge.heard(some), claimed).tolist()
        means = []
        for ratios, loudness in zip(self.levels.ratios(torch.stack(left, -1), claimed).tolist(), loud, strict=True):
            network, baseline = (kept * old + (1 - kept) * new for old, new in zip(self.left, ratios, strict=True))
            self.left = network, baseline
            if self.levels.hidden:
                self.loudness = kept * self.loudness + (1 - kept) * loudness
            means.append((*self.left, self.loudness))
        means = torch.tensor(means, dtype=torch.float64, device=index.device)
        return self.levels.corrected(differences, claimed, means[:, :2], means[:, 2]).tolist()

    def _count(self, fit: Tensor, capped: Tensor, in_fallback: Tensor) -> None:
        more = {"all": fit.numel(), "capped": capped, "unfit": ~fit, "in_fallback": in_fallback}
        self.calls = self.calls._replace(
            **{name: getattr(self.calls, name) + int(torch.as_tensor(count).sum()) for name, count in more.items()}
        )
