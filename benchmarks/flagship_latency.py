"""The time of one call of every flagship in ONNX Runtime, OpenVINO, float C and integer C, against a fifth of a slot.

Times do not depend on what a network has learned, so that weights are those before training; the scales of whole
numbers are chosen on a few draws. One sample, one core, one thread. The budget is 100 µs of a slot of 500 µs, and for
the channel networks the 200 µs that are asked of them. Floors are those of this machine, measured beside the programs:
reading the weights, and as many products; for whole numbers, products of bytes at the rate of one matrix that stays in
the first cache, and no reading, as most of their bytes are rows of tables that a call does not touch. A backend that is
not installed is left out.

    python benchmarks/flagship_latency.py [sparse rf channels] [--quick] [--backends c integer-c] [--widths w8a8]

Each row is printed when it is measured and kept in a file of JSON lines, so that a stopped run goes on where it was:
rows of the same code, machine, compiler, backends, widths and calls are not measured again, but for those without a
time. With --quick there are a tenth of the calls, and the C alone unless backends are named: writing ONNX files takes
longer than all else together.
"""

import argparse
import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flagship_networks import SCALARS, channel, imaging, sparse

import fanfold as ff
from fanfold.core.table import Table
from fanfold.deploy import BackendLatency, Timing, time_backends
from fanfold.deploy.backends import missing
from fanfold.deploy.codegen.build import find_compiler
from fanfold.deploy.cost import timed_us
from fanfold.deploy.integer import CompiledProgram, Draft, golden_vectors
from fanfold.deploy.latency import one_core
from fanfold.deploy.release.hashes import code_hash, host
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import (
    ADMMSettings,
    CNNSettings,
    FilterSettings,
    KroneckerGMM,
    MixerSettings,
    Mixture,
    OAMPSettings,
)
from fanfold.runs.environment import installed

ASKED_US = {"sparse": 100.0, "rf": 100.0, "channels": 200.0}
SIDE, PLACES, COLUMNS = 64, 64, 256  # of the matrix of bytes whose rate is the floor
INTEGER_C = "integer-c"
BACKENDS = ("c", INTEGER_C, "onnx", "openvino")
IN_C = ("c", INTEGER_C)
CALLS, FEW_CALLS = 1000, 100


class Flagship(NamedTuple):
    """An estimator with observations of its problem."""

    group: str
    name: str
    make: Callable[[], tuple[Any, Any]]


FLAGSHIPS = (
    Flagship("sparse", "LISTA-CP, T 16", sparse(ff.algorithms.LISTACP(0.3), 16, ("W", "threshold"))),
    Flagship("sparse", "ALISTA, T 16", sparse(ff.algorithms.ALISTA(lam=0.3), 16, ("step", "threshold"))),
    Flagship("sparse", "adaptive ALISTA, T 16", sparse(ff.algorithms.ALISTAAT(), 16, ("alpha",))),
    Flagship("sparse", "unfolded ISTA, T 16", sparse(ff.algorithms.ISTA(0.1), 16, ("step", "threshold"))),
    Flagship(
        "sparse", "unfolded OAMP, T 10", sparse(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), 10, SCALARS)
    ),
    Flagship("rf", "Kronecker OAMP, T 8", imaging()),
    Flagship("channels", "learned filters", channel(lambda problem: FilterSettings(rounds=2).build(problem), "comb-2")),
    Flagship(
        "channels",
        "mixture",
        channel(lambda problem: KroneckerGMM.of(problem, Mixture.of(problem, 8, 300, rounds=2, modes=12)), "comb-2"),
    ),
    Flagship("channels", "grid CNN", channel(lambda problem: CNNSettings().build(problem), "comb-2")),
    Flagship("channels", "beam mixer", channel(lambda problem: MixerSettings().build(problem), "comb-2")),
    Flagship("channels", "unfolded ADMM", channel(lambda problem: ADMMSettings().build(problem), "comb-2")),
    Flagship("channels", "unfolded OAMP", channel(lambda problem: OAMPSettings().build(problem), "comb-2")),
)


def bytes_a_us(calls: int) -> float:
    """Products of bytes a microsecond, of a matrix in the first cache."""
    draft = Draft("bytes")
    weights = np.random.default_rng(0).integers(-100, 100, (SIDE, COLUMNS)).astype(np.int8)
    y = draft.input("y", (PLACES, COLUMNS), "int8")
    draft.output(draft.matmul(y, weights, PLACES, name="sums"), (PLACES, SIDE))
    program = draft.finish()
    call = CompiledProgram(program).prepared(golden_vectors(program).inputs)
    return program.multiply_accumulates / Timing.of(timed_us(call, calls)).minimum


def in_whole_numbers(net: Any, obs: Any, widths: str, calls: int, rate: float) -> BackendLatency:
    """The times of the integer C with its arithmetic floor."""
    try:
        (late,) = time_backends(quantised(net, widths, obs), obs[:2], ["c"], calls=calls)
    except ValueError as error:
        return BackendLatency("c", None, 0.0, note=str(error).partition(";")[0])
    if (products := late.multiply_accumulates) is None:  # it did not run, and says why
        return late
    return late._replace(arithmetic_floor_us=products / rate)


def measured(flagship: Flagship, backends: list[str], how: "How") -> Iterator[dict[str, Any]]:
    """The rows of one flagship, backend after backend."""
    net, obs = flagship.make()
    for backend in backends:
        if backend == INTEGER_C:
            late = in_whole_numbers(net, obs, how.widths, how.calls, how.rate)
        else:
            (late,) = time_backends(net, obs[:2], [backend], calls=how.calls)
        yield row_of(flagship, how.named(backend), late)


def row_of(flagship: Flagship, backend: str, late: BackendLatency) -> dict[str, Any]:
    """The row of one backend."""
    row, budget = late.as_row(), ASKED_US[flagship.group]
    kept = ("min_us", "median_us", "p99_us", "p99.9_us", "memory_floor_us", "arithmetic_floor_us")
    median = row["median_us"]
    return {
        "network": flagship.name,
        "backend": backend,
        **{name: row[name] for name in kept},
        "MACs": late.multiply_accumulates,
        "bytes": late.weight_bytes,
        "budget_us": budget,
        "over budget by": None if median is None else f"{median - budget:.0f} µs" if median > budget else "within",
        "note": "" if late.note == "in whole numbers" else late.note[:60],
    }


class How(NamedTuple):
    """How rows are measured."""

    widths: str
    calls: int
    rate: float  # products of bytes a microsecond

    def named(self, backend: str) -> str:
        """A backend as the table has it."""
        return {"c": "float C", INTEGER_C: f"integer C, {self.widths}"}.get(backend, backend)


class Kept:
    """Rows that were measured before, in a file of JSON lines that a row is added to when it is there.

    Args:
        file: The file; made with its folder where there is none.
        calls: How many calls were timed; rows of others are not taken.
    """

    def __init__(self, file: Path, calls: int):
        self.file, self.made_by = file, {"made_by": made_by(), "calls": calls}
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [row for line in lines if (row := parsed(line)) is not None]
        taken = [row["row"] for row in rows if {name: row.get(name) for name in self.made_by} == self.made_by]
        timed = [row for row in taken if row["median_us"] is not None]  # what failed may not fail again
        self.rows = {(row["network"], row["backend"]): row for row in timed}

    def add(self, row: dict[str, Any]) -> None:
        """Write a row down."""
        before = self.file.read_bytes()[-1:] if self.file.exists() else b"\n"
        with self.file.open("a") as file:  # a line that a stop cut short ends here
            file.write(("" if before in (b"", b"\n") else "\n") + json.dumps(self.made_by | {"row": row}) + "\n")
        self.rows[row["network"], row["backend"]] = row


def parsed(line: str) -> dict[str, Any] | None:
    """A line of a file of rows; None of one that a stop cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


@functools.cache
def made_by() -> str:
    """The hash of this file, fanfold's code, the machine, the compiler and the backends: what times depend on."""
    compiler = subprocess.run([find_compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    backends = {name: installed(name) for name in ("onnxruntime", "openvino")}
    words = [Path(__file__).read_text(), code_hash(), compiler, json.dumps([host(), backends], sort_keys=True)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def said(row: dict[str, Any]) -> str:
    """A row as a line of its own."""
    if row["median_us"] is None:
        return f"{row['network']}, {row['backend']}: no time. {row['note']}"
    times = ", ".join(f"{name} {row[f'{name}_us']:.0f}" for name in ("min", "median", "p99"))
    verdict = "within" if row["over budget by"] == "within" else f"over by {row['over budget by']}"
    return f"{row['network']}, {row['backend']}: {times} µs; budget {row['budget_us']:.0f}: {verdict}"


def given_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(ASKED_US)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls; the C alone unless backends say so")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="all that are installed if none is named")
    parser.add_argument(
        "--widths",
        default="w8a8",
        choices=("w8a8", "w8a12", "w16a16"),
        help="bits of weights and activations of the integer C",
    )
    parser.add_argument("--rows", type=Path, default=Path("runs/flagship_latency.jsonl"), help="file that keeps rows")
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    given = parser.parse_args()
    if unknown := [name for name in given.groups if name not in ASKED_US]:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(ASKED_US)}")
    return given


def main() -> None:
    """Measure what is not there yet, and print the table."""
    given, began = given_arguments(), time.perf_counter()
    calls = FEW_CALLS if given.quick else CALLS
    wanted = given.backends or (IN_C if given.quick else BACKENDS)
    backends = [name for name in BACKENDS if name in wanted and (name == INTEGER_C or not missing(name))]
    torch.set_num_threads(1)
    with one_core():
        how = How(given.widths, calls, bytes_a_us(calls))
    kept, table = Kept(given.rows, calls), []
    for flagship in FLAGSHIPS:
        if given.groups and flagship.group not in given.groups:
            continue
        missed = [b for b in backends if given.again or (flagship.name, how.named(b)) not in kept.rows]
        for row in measured(flagship, missed, how) if missed else ():
            kept.add(row)
            print(said(row), flush=True)
        table += [kept.rows[flagship.name, how.named(backend)] for backend in backends]
    print(Table(table))
    seconds = time.perf_counter() - began
    print(
        f"{host()['processor']}, 1 thread, {calls} calls, {how.rate / 1e3:.0f} billion products of bytes a second; "
        f"{seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
