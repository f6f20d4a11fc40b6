"""Is this observation still like those that an estimator was made for? Conformal p-values and alarms over time.

Vovk, Gammerman & Shafer (2005); Bates, Candès, Lei, Romano & Sesia (2023), p-values of strange observations.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, overload

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.arrays import tensor_of
from fanfold.core.settings import check_known
from fanfold.estimators.base import Restrainable, device_of, fingerprint_of
from fanfold.guard.monitoring.conditional import rate_given
from fanfold.guard.monitoring.reading import numbers_of, scores_of
from fanfold.guard.monitoring.registry import COMBINED
from fanfold.guard.monitoring.scores import LearnedOf
from fanfold.guard.monitoring.sentences import remarks_on
from fanfold.guard.monitoring.streams import CusumWatch, MartingaleWatch
from fanfold.linops import LinearOperator
from fanfold.measurements import Measurements, observation_for
from fanfold.observation import Estimate, Estimator, Observation

SAME = 1e-3  # relative difference of estimates up to which it is the same one: rounding and no training


@dataclass(frozen=True)
class Monitor:
    """What is usual for an estimator, and how strange an observation is beside it; made by `monitor`.

    Attributes:
        estimator: The estimator that it belongs to.
        learned: What each score learned of usual draws, by its name.
        calibration: The scores of the calibration draws, rising, `(draws,)` each, by name, and the combined one.
        probe: A few observations whose estimates tell this estimator from others.
        answer: Their estimates.
        operator: The hash of the operator, if there is one.
        alarm: The rate of false alarms.
        confidence: The probability over calibration draws with which promises hold.
        batch: How many observations the estimator sees at a time.

    Example:
        >>> import fanfold as ff
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 5)
        >>> ff.guard.monitor(oamp, problem, alarm=0.05, draws=800).names
        ('energy', 'residual', 'variance', 'course', 'summary', 'combined')
    """

    estimator: Estimator
    learned: LearnedOf
    calibration: Mapping[str, Tensor]
    probe: Observation
    answer: Tensor
    operator: str | None
    alarm: float
    confidence: float
    batch: int = 1000

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scores, the combined one last."""
        return tuple(self.calibration)

    @property
    def draws(self) -> int:
        """How many draws p-values are from."""
        return len(self.calibration[COMBINED])

    @property
    def promise(self) -> str:
        """What is promised of p-values and of alarms over time, in words."""
        low, high = (100 * rate for rate in rate_given(self.draws, self.alarm, self.confidence))
        sure = f"{100 * self.confidence:g} %"
        return (
            f"Of observations drawn like the {self.draws} of calibration, a share {100 * self.alarm:g} % has a p-value "
            f"up to {self.alarm:g}; given these draws, {low:.3g} to {high:.3g} % with {sure} confidence. Of streams of "
            f"independent ones, at most {100 * self.alarm:g} % ever alarm, given these draws with {sure} confidence."
        )

    def p_values(self, obs: Measurements, estimate: Estimate | None = None, score: str = COMBINED) -> Tensor:
        """The p-value of each observation, `(...)`: the share of usual draws that are as strange, ties drawn by lot.

        It is in `{1, ..., n + 1} / (n + 1)` for n calibration draws. Measurements that are no numbers have the least.

        Args:
            obs: Observations, y `(..., *event)`, or y by itself; NaN is allowed.
            estimate: Their estimates, where they are known: the estimator is then asked for its course alone.
            score: The name of a score; that of all together if not given.

        Raises:
            ValueError: If the score is unknown, or the observations have no noise variance where those of calibration
                had one.
        """
        return self.all_p_values(obs, estimate)[self._known(score)]

    @torch.no_grad()
    def judged(self, obs: Measurements) -> tuple[Estimate, Tensor]:
        """The estimate of each observation beside its p-value, of one pass through the estimator.

        Of measurements that are no numbers it is the estimate of silence, with the least p-value.

        Raises:
            ValueError: As `p_values` does.
        """
        obs, usable, leading = self._usable(obs)
        said: list[Estimate] = []
        scores = self._scores(obs, usable, None, said.append)[COMBINED]
        x = torch.cat([estimate.x for estimate in said])
        variances = [estimate.var for estimate in said if estimate.var is not None]
        var = torch.cat(variances).reshape(*leading, -1) if variances else None
        p = self._ranked(COMBINED, scores, obs, usable).reshape(leading)
        return Estimate(x.reshape(*leading, -1), var), p

    @torch.no_grad()
    def all_p_values(self, obs: Measurements, estimate: Estimate | None = None) -> dict[str, Tensor]:
        """The p-values of every score by name, `(...)` each, as `p_values` has them."""
        obs, usable, leading = self._usable(obs)
        each = self._scores(obs, usable, estimate)
        return {name: self._ranked(name, s, obs, usable).reshape(leading) for name, s in each.items()}

    @torch.no_grad()
    def scores(self, obs: Measurements, estimate: Estimate | None = None) -> dict[str, Tensor]:
        """The scores by name, `(...)` each, larger where stranger, infinite where y is no number."""
        obs, usable, leading = self._usable(obs)
        return {name: s.reshape(leading) for name, s in self._scores(obs, usable, estimate).items()}

    @overload
    def watch(
        self, kind: Literal["martingale"] = "martingale", *, alarm: float | None = None, streams: tuple[int, ...] = ()
    ) -> MartingaleWatch: ...
    @overload
    def watch(self, kind: Literal["cusum"], *, between: float = 1000, streams: tuple[int, ...] = ()) -> CusumWatch: ...
    def watch(self, kind="martingale", *, alarm=None, between=1000, streams=()):
        """The state of an alarm over time, before the first call; `state.update(p)` gives the next one.

        Args:
            kind: "martingale" alarms for good, in at most a share `alarm` of usual streams, for ever. "cusum" alarms
                again and again, `between` usual calls apart in the mean, and sooner.
            alarm: The rate of streams that ever alarm falsely; that of the monitor if None.
            between: The mean number of usual calls between alarms of CUSUM.
            streams: The shape of streams side by side; one stream if empty.

        Raises:
            ValueError: If the kind is unknown, or so few calibration draws cannot bear the rate.
        """
        check_known([kind], ["martingale", "cusum"], "there is no watch {!r}; take {}.")
        if kind == "cusum":
            return CusumWatch.start(self.draws, between, self.confidence, streams)
        return MartingaleWatch.start(self.draws, self.alarm if alarm is None else alarm, self.confidence, streams)

    def remarks(
        self, obs: Measurements, estimate: Estimate | None = None, p_values: Mapping[str, Tensor] | None = None
    ) -> list[str]:
        """Sentences about observations of which too many are strange, and what to do; none where all is usual.

        Args:
            obs: Observations, as for `p_values`.
            estimate: Their estimates, where they are known.
            p_values: What `all_p_values` says of them, `(...)` by name, where that is known.
        """
        measured, usable, _ = self._usable(obs)
        known = self.all_p_values(obs, estimate) if p_values is None else p_values
        each = {name: p.flatten() for name, p in known.items()}
        if offers(self.estimator, Restrainable):
            instead = "strength 0 or a classical estimator"
        elif self.operator is not None or measured.A is not None:
            instead = "a classical estimator"
        else:
            instead = "an estimate that nothing was trained for, such as the mean of the prior"
        return remarks_on(each, usable, self.draws, self.alarm, self.confidence, instead)

    def around(self, estimator: Estimator, A: LinearOperator | None = None) -> "Monitor":
        """The same monitor around an estimator that was loaded anew.

        Args:
            estimator: The estimator that it was calibrated for.
            A: The operator of its observations, where the monitor was read from a file.

        Raises:
            ValueError: If it is another one: it says other things of the same observations, or measures otherwise.
        """
        operator = fingerprint_of(estimator) or (None if A is None or A.varies else A.fingerprint())
        if operator is not None and self.operator is not None and operator != self.operator:
            raise ValueError(
                f"the monitor was calibrated for the operator with hash {self.operator[:12]} and this one has "
                f"{operator[:12]}: calibrate one for it, ff.guard.monitor(estimator, problem)."
            )
        held = self.probe.A if A is None or A.varies else A
        probe = Observation.unchecked(self.probe.y, held, self.probe.noise_var)
        with torch.no_grad():
            answer = estimator(probe.to(device_of(estimator))).x.cpu()
        same = answer.shape == self.answer.shape and answer.dtype == self.answer.dtype
        if not (same and torch.allclose(answer, self.answer, rtol=0, atol=_slack(self.answer))):
            raise ValueError(
                "the monitor was calibrated for another estimator: of the observations that it keeps, this one says "
                "something else. Trained on, or another run? Calibrate anew, ff.guard.monitor(estimator, problem)."
            )
        return replace(self, estimator=estimator, probe=probe)

    def _known(self, score: str) -> str:
        check_known([score], self.names, "there is no score {!r}; the monitor has {}.")
        return score

    def _usable(self, measured: Measurements) -> tuple[Observation, Tensor, tuple[int, ...]]:
        """Observations with zeros in place of samples that are no numbers, which these are not, and the batch axes."""
        if not isinstance(measured, Observation):
            y = tensor_of(measured, "y")
            obs = observation_for(self.estimator, torch.where(torch.isfinite(y), y, torch.zeros_like(y)))
            obs = Observation.unchecked(y.to(obs.y), obs.A, obs.noise_var)
        else:
            obs = measured
        if (obs.noise_var is None) != (self.probe.noise_var is None):
            given, wanted = ("no", "one") if obs.noise_var is None else ("a", "none")
            raise ValueError(
                f"the observations have {given} noise variance and those of calibration have {wanted}: pass "
                "ff.Observation(y, A, noise_var) as the monitor's problem draws them."
            )
        axes = self.probe.y.ndim - 1
        leading = tuple(obs.y.shape[: obs.y.ndim - axes])
        usable = torch.isfinite(obs.y).reshape(*leading, -1).all(-1)
        var = obs.noise_var
        if var is not None:
            finite = torch.isfinite(var)
            full = finite.broadcast_to(*obs.y.shape[:-1], 1) if var.ndim else finite.expand(*leading, 1)
            usable = usable & full.reshape(*leading, -1).all(-1)
            var = torch.where(finite, var, torch.ones_like(var))
        y = torch.where(usable.reshape(*leading, *[1] * axes), obs.y, torch.zeros_like(obs.y))
        return Observation.unchecked(y, obs.A, var), usable.reshape(-1), leading

    def _scores(
        self,
        obs: Observation,
        usable: Tensor,
        estimate: Estimate | None,
        on_estimate: Callable[[Estimate], None] | None = None,
    ) -> dict[str, Tensor]:
        names, axes = list(self.learned), self.probe.y.ndim - 1
        numbers = numbers_of(self.estimator, obs, names, self.batch, axes, estimate, on_estimate)
        each, broken = scores_of(numbers, self.learned), ~usable.cpu()
        return {name: s.masked_fill(broken | s.isnan(), torch.inf) for name, s in each.items()}

    def _ranked(self, name: str, scores: Tensor, obs: Observation, usable: Tensor) -> Tensor:
        ordered = self.calibration[name]
        larger = len(ordered) - torch.searchsorted(ordered, scores.contiguous(), right=True)
        as_large = len(ordered) - torch.searchsorted(ordered, scores.contiguous())
        tied = (as_large > larger) & usable.cpu()
        rank = larger.double()
        if tied.any():
            rows = obs.y.reshape(len(scores), -1)[tied.to(obs.y.device)]
            rank[tied] += (_lots(rows) * (as_large - larger + 1)[tied]).floor()
        rank = torch.where(usable.cpu(), rank, 0.0)
        return (rank + 1) / (len(ordered) + 1)


def _lots(rows: Tensor) -> Tensor:
    """A number in [0, 1) for each row of measurements, `(count, m)`: as if drawn, and the same for the same row."""
    content = rows.resolve_conj().cpu().contiguous().view(torch.uint8).numpy()  # which numpy has for every data type
    return torch.tensor([zlib.crc32(row.tobytes()) / 2**32 for row in content], dtype=torch.float64)


def _slack(answer: Tensor) -> float:
    return SAME * float(answer.abs().square().mean().sqrt())
