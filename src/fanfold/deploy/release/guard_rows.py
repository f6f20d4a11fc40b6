"""What a guard is measured to be in a release: at home, under declared shifts, its false alarms, its time and size."""

from collections.abc import Iterator
from pathlib import Path

import torch

from fanfold.core.streams import Stream
from fanfold.core.suggest import did_you_mean
from fanfold.deploy.codegen import CompiledC
from fanfold.deploy.release.bundle import GUARD, GUARDED_C, GUARDED_ONNX, MONITOR
from fanfold.deploy.release.measures import latency_result
from fanfold.deploy.release.profile import GuardedLimits, LatencyLimits
from fanfold.deploy.release.results import ReleaseResult
from fanfold.evaluation.evaluate import Z95, energies, ratio_of
from fanfold.guard import Guarded, shifts
from fanfold.guard.answers import answers
from fanfold.guard.shifts import Shift
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw

AT_HOME, SHIFTED = "guarded, risk beside the network", "guarded, risk beside the baseline"
FALSE_ALARMS = "guarded, false alarms of the monitor"
GUARD_ROWS = (AT_HOME, SHIFTED, FALSE_ALARMS)  # which every guarded release has


def declared_shifts(problem: Problem, limits: GuardedLimits) -> list[Shift]:
    """The shifts of a problem that a profile declares by their families; all of them if it names none.

    Raises:
        ValueError: If the problem has no such family.
    """
    every = list(shifts(problem))
    families = {shift.family for shift in every}
    for name in limits.shifts or ():
        if name not in families:
            raise ValueError(
                f"the profile's [guard] declares shifts of {name!r}; the problem has {', '.join(sorted(families))}."
                f"{did_you_mean(name, families)}"
            )
    return [shift for shift in every if limits.shifts is None or shift.family in limits.shifts]


@torch.no_grad()
def guard_results(guard: Guarded, problem: Problem, limits: GuardedLimits, seed: int) -> Iterator[ReleaseResult]:
    """The risks of a guard, each a ratio of summed squared errors, with its 95 % interval; and its false alarms.

    Args:
        guard: The guard around the released network; it starts afresh in each cell, and is reset at the end.
        problem: What the network was trained on.
        limits: What the profile declares.
        seed: That of the draws, which no calibration has seen.
    """
    p = None
    for shift in [Shift("none", "", problem), *declared_shifts(problem, limits)]:
        x, obs = draw(shift.problem.held_out(), limits.calls, seed, Stream.TESTING, 0)
        home = shift.problem is problem
        beside = guard.estimator if home else guard.baseline
        guard.reset()
        of_guarded, of_other = (energies(answers(path, obs).x, x)[0] for path in (guard, beside))
        ratio, spread = ratio_of(of_guarded, of_other)
        what, cell, limit = (AT_HOME, {}, limits.at_home) if home else (SHIFTED, {"shift": shift.name}, limits.shifted)
        ends = ratio, ratio - Z95 * spread, ratio + Z95 * spread
        note = f"{limits.calls} calls, {guard.calls.in_fallback} of them in fallback"
        if not torch.isfinite(torch.tensor(ends)).all():
            ends, note = (None, None, None), "an error is not finite"
        if not home and not shift.seen:
            limit, note = None, "nothing that is measured tells this world from home"
        yield ReleaseResult(what, cell, "", *ends, limit, note=note)
        if home and guard.monitor is not None:
            p = guard.monitor.p_values(obs)
    guard.reset()
    if p is None or guard.monitor is None:
        yield ReleaseResult(FALSE_ALARMS, {}, "share", None, note="there is no monitor")
        return
    rate = guard.monitor.alarm
    share = (p <= rate).double().mean().item()
    spread = Z95 * (max(share, rate) * (1 - max(share, rate)) / len(p)) ** 0.5
    note = f"{len(p)} draws, at a set rate of {rate:g}"
    yield ReleaseResult(
        FALSE_ALARMS, {}, "share", share, max(0.0, share - spread), share + spread, rate, "not clearly above", note
    )


def guard_times(
    guard: Guarded,
    example: Observation,
    limits: LatencyLimits,
    limit_us: float | None,
    in_c: CompiledC | None,
) -> Iterator[ReleaseResult]:
    """The time of a call of the guard, in which both paths run twice, and of its baseline alone, which has no limit."""
    for what, estimator, program in (("guarded", guard, in_c), ("baseline", guard.baseline, None)):
        row = latency_result(estimator, example, limits, program)
        yield row._replace(what=f"{what}, {row.what}", limit=limit_us if what == "guarded" else None)


def guard_sizes(folder: Path) -> Iterator[ReleaseResult]:
    """The bytes of what a guard adds to a release."""
    source = folder / GUARDED_C
    files = {
        "the guard's numbers": [folder / GUARD, folder / MONITOR],
        "guarded ONNX": [folder / GUARDED_ONNX],
        "guarded C": [source, source.with_suffix(".h"), source.with_suffix(".weights")],
    }
    for name, paths in files.items():
        if sizes := [path.stat().st_size for path in paths if path.exists()]:
            yield ReleaseResult(f"size of {name}", {}, "bytes", sum(sizes))
