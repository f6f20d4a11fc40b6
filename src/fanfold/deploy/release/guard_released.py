"""The guard of a release: kept as numbers, exported, held against golden calls and measured."""

from collections.abc import Callable
from pathlib import Path

from fanfold.deploy.codegen import to_c
from fanfold.deploy.codegen.compiled import compiled_files
from fanfold.deploy.export import write_onnx
from fanfold.deploy.lowering import lowered
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release.guard_kept import check_kept, keep_guard
from fanfold.deploy.release.guard_rows import declared_shifts, guard_results, guard_sizes, guard_times
from fanfold.deploy.release.guard_vectors import GuardVectors, replayed_in_c, replayed_in_onnx, replayed_in_torch
from fanfold.deploy.release.profile import GuardedLimits, ReleaseProfile
from fanfold.deploy.release.results import ReleaseResult
from fanfold.estimators.base import InWholeNumbers
from fanfold.guard import Guarded
from fanfold.observation import Estimator
from fanfold.problems import Problem


def check_guard(
    guard: Guarded | None, declared: ReleaseProfile, whole: InWholeNumbers | None, problem: Problem
) -> None:
    """Refuse a guard where there can be none, none where one is declared, and shifts that the problem does not have.

    Raises:
        ValueError: Says why.
    """
    if guard is None and declared.guard is not None:
        raise ValueError("the profile has a section [guard] and there is no guard: pass one, or leave the section out.")
    if guard is not None and whole is not None:
        raise ValueError(
            "the run is quantised, and a release keeps guards of networks in floating point: certify that run with the "
            "guard, or this one without; fanfold export --guarded writes its program."
        )
    if guard is not None:
        check_kept(guard.baseline)
        declared_shifts(problem, declared.guard or GuardedLimits())


def released_guard(
    guard: Guarded,
    net: Estimator,
    problem: Problem,
    declared: ReleaseProfile,
    place: Path,
    weights: str,
    say: Callable[[str], object],
) -> list[ReleaseResult]:
    """Write the guard into a release, around the network as it is released, and measure it.

    Args:
        guard: The guard, which gets this network.
        net: The network.
        problem: What it was trained on.
        declared: The profile.
        place: The folder of the release.
        weights: Where the C keeps its weights, as `to_c` has it.
        say: Called with a line before what takes seconds.

    Raises:
        ValueError: If its baseline cannot be kept, or a program cannot be made of it.
    """
    limits = declared.guard or GuardedLimits()
    guard.estimator = net
    if guard.monitor is not None:
        guard.monitor = guard.monitor.around(net, problem.A)
    (place / layout.GUARD).parent.mkdir()
    keep_guard(guard, place / layout.GUARD, place / layout.MONITOR)
    golden = GuardVectors.of(problem, guard)
    golden.write(place / layout.CALLS)
    guard.reset()
    example, A = golden.observation(problem.A), problem.A
    say("exporting the guard")
    results, in_c = replayed_in_torch(golden, guard, A), None
    try:
        if "onnx" in declared.targets:
            low = lowered(guard, example)
            content = write_onnx(low, place / layout.GUARDED_ONNX).read_bytes()
            results += replayed_in_onnx(golden, guard, low, content, A)
        if "c" in declared.targets:
            files = to_c(guard, example, (place / layout.GUARDED_C).parent, name="guarded", weights=weights)
            in_c = compiled_files(files, A)
            results.append(replayed_in_c(golden, guard, in_c, A))
    except (ValueError, ImportError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{why}. The guard has no such program: leave out that target, or the guard.") from error
    say(f"measuring the guard, {limits.calls} calls in each world")
    results += guard_results(guard, problem, limits, declared.seed)
    if declared.latency is not None:
        results += guard_times(guard, example, declared.latency, limits.limit_us, in_c)
    return results + list(guard_sizes(place))
