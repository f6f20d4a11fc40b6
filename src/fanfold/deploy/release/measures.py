"""What is measured of a release as a whole: the time of a call, the sizes of its files, and an integer program."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fanfold.deploy.codegen import CompiledC
from fanfold.deploy.integer import (
    IntegerEstimator,
    IntegerProgram,
    RangeRow,
    UnprovedError,
    drafted,
    fingerprint_of_program,
    program_to_c,
    save_program,
)
from fanfold.deploy.latency import BackendLatency, one_core, time_backends, time_c
from fanfold.deploy.release.against import LATENCY, difference
from fanfold.deploy.release.bundle import C_SOURCE, ONNX, WEIGHTS
from fanfold.deploy.release.cells import CellErrors
from fanfold.deploy.release.profile import IntegerLimits, LatencyLimits, SizeLimits
from fanfold.deploy.release.results import ReleaseResult
from fanfold.estimators.base import InWholeNumbers
from fanfold.observation import Estimator, Observation


class IntegerBuild(NamedTuple):
    """An integer program that is released beside the float network, with what is known of it.

    Attributes:
        estimator: The program as an estimator; None where there is none, as it may overflow.
        proof: What is proved of its operations.
        write: Writes its files into a folder, and gives their paths.
        unproved: Why there is no program.
        fingerprint: The hash of the program; nothing where there is none.

    Example:
        >>> from fanfold.deploy.integer import Draft
        >>> from fanfold.deploy.release import IntegerBuild
        >>> draft = Draft("half")
        >>> y = draft.input("y", (2,), "int16", fraction=8)
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (2,), fraction=8)
        >>> IntegerBuild.of(draft.finish()).proof[0].operation
        'x_hat'
    """

    estimator: Estimator | None
    proof: Sequence[RangeRow]
    write: Callable[[Path], Sequence[Path]]
    unproved: UnprovedError | None = None
    fingerprint: str = ""

    @classmethod
    def of(cls, program: IntegerProgram) -> "IntegerBuild":
        """Of a program, which is kept as a file and as C.

        Raises:
            ValueError: If it has other ports than an estimator.
        """

        def write(folder: Path) -> list[Path]:
            kept = save_program(program, folder / f"{program.name}.safetensors")
            return [kept, *program_to_c(program).write(folder)]

        fingerprint = fingerprint_of_program(program)
        return cls(IntegerEstimator(program), program.proof.rows, write, fingerprint=fingerprint)

    @classmethod
    def of_network(cls, network: InWholeNumbers) -> "IntegerBuild":
        """Of a quantised network, whose forward pass the program is; without one where it may overflow.

        Raises:
            ValueError: If no scales are chosen yet.
        """
        try:
            return cls.of(drafted(network))
        except UnprovedError as unproved:
            return cls(None, (), lambda folder: (), unproved)


def latency_result(
    estimator: Estimator, example: Observation, limits: LatencyLimits, in_c: CompiledC | None = None
) -> ReleaseResult:
    """The time of a call: that of the middle round, with the fastest and the slowest round as its interval.

    That of a quantised network is the time of its integer program, in C and in ONNX Runtime.

    Args:
        estimator: What is released.
        example: Observations of it.
        limits: The backend, the rounds and the limit.
        in_c: The estimator in C, where it was compiled already.
    """
    what = f"{LATENCY}, {limits.quantile}, {limits.backend}"
    times, floor, how = [], None, ""
    for row in _rounds(estimator, example, limits, in_c):
        if row.timing is None:
            return ReleaseResult(what, {}, "µs", None, limit=limits.limit_us, note=row.note)
        times.append(row.timing.median if limits.quantile == "median" else row.timing.p99)
        floor, how = row.floor_us, row.note
    times.sort()
    note = f"fastest to slowest of {limits.rounds} rounds of {limits.calls} calls, one core, one thread"
    note += f", {how}" if how else ""
    note += "" if floor is None else f"; this host takes {floor:.3g} µs for the bare work"
    return ReleaseResult(what, {}, "µs", times[(len(times) - 1) // 2], times[0], times[-1], limits.limit_us, note=note)


def _rounds(
    estimator: Estimator, example: Observation, limits: LatencyLimits, in_c: CompiledC | None
) -> Iterator[BackendLatency]:
    for _ in range(limits.rounds):
        if limits.backend == "c" and in_c is not None:
            with one_core():
                yield time_c(in_c, example, limits.limit_us, limits.calls)
        else:
            yield time_backends(estimator, example, [limits.backend], calls=limits.calls)[0]


def size_results(folder: Path, limits: SizeLimits) -> Iterator[ReleaseResult]:
    """The bytes of weights, ONNX and C of a release, those that it has."""
    source = folder / C_SOURCE
    files = {
        "weights": ([folder / WEIGHTS], limits.weights),
        "ONNX": ([folder / ONNX], limits.onnx),
        "C": ([source, source.with_suffix(".h"), source.with_suffix(".weights")], limits.c),
    }
    for name, (paths, limit) in files.items():
        sizes = [path.stat().st_size for path in paths if path.exists()]
        if sizes or limit is not None:
            size, note = (sum(sizes), "") if sizes else (None, "it was not exported")
            yield ReleaseResult(f"size of {name}", {}, "bytes", size, limit=limit, note=note)


def integer_results(
    build: IntegerBuild | None,
    limits: IntegerLimits | None,
    floats: Sequence[CellErrors],
    integers: Sequence[CellErrors],
) -> Iterator[ReleaseResult]:
    """The loss of an integer program in each cell, on the same draws as the float network, and its range proof.

    Of a program that may overflow, and so is none, the operation that fails its proof.
    """
    limit = None if limits is None else limits.loss_db
    if build is None:
        if limit is not None:
            note = "there is no integer program; quantise the run, fanfold quantise RUN, or hand one over in Python"
            yield ReleaseResult("loss by quantisation", {}, "dB", None, limit=limit, note=note)
        return
    if (unproved := build.unproved) is not None:
        name, note = unproved.operation, f"it may overflow, and there is no program: {unproved}"
        yield ReleaseResult(f"range of {name}", {}, "", unproved.bound, limit=unproved.limit, note=note)
        note = f"there is no program, as {name} may overflow"
        for errors in floats:
            yield ReleaseResult("loss by quantisation", errors.cell, "dB", None, limit=limit, note=note)
        return
    for old, new in zip(floats, integers, strict=True):
        loss = difference(old, new)
        yield loss._replace(what="loss by quantisation", limit=limit, sense="at most")
    for row in build.proof:
        note = "proved from the weights"
        yield ReleaseResult(f"range of {row.operation}", {}, "", row.bound, limit=row.limit, note=note)
