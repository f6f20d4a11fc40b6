"""The verb time: what one call of a trained run takes in each backend, against a slot and this machine's floors."""

from typing import Annotated

import tyro

from fanfold.cli.console import note, show
from fanfold.cli.flags import Result, RunPath
from fanfold.core.table import Table
from fanfold.deploy.latency import checked_backends, slot_budget_us, time_backends
from fanfold.deploy.release.hashes import host
from fanfold.problems.draws import example_of
from fanfold.runs.directory import Run

DRAWS = 2  # of the run's problem: one is timed, and tracing takes two
SHOWN = ("backend", "min_us", "median_us", "p99_us", "p99.9_us", "within", "median_over_floor", "note")


def time(
    run: RunPath,
    backend: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = "eager,onnx,c",
    numerology: int = 1,
    calls: int = 1000,
) -> Result:
    """Time one call of a trained run in each backend, on one core and one thread, against a fifth of a slot.

    Args:
        run: Its run directory.
        backend: Backends in a row, of eager, onnx, c and openvino; one that is not installed says so.
        numerology: The numerology of 5G, 0 to 3, whose slots take 1000, 500, 250 or 125 µs.
        calls: Calls that are timed, after a tenth as many to warm up.
    """
    names = checked_backends([name.strip() for name in backend.split(",")], calls)
    budget = slot_budget_us(numerology)
    stored = Run.open(run)
    net = stored.estimator()
    example = example_of(stored.draws(), DRAWS)
    rows = [latency.as_row() for latency in time_backends(net, example, names, numerology=numerology, calls=calls)]
    show(Table([{name: row[name] for name in SHOWN} for row in rows]))
    for row in rows:
        if row["memory_floor_us"] is not None:
            read, multiplied = (f"{row[name]:.1f} µs" for name in ("memory_floor_us", "arithmetic_floor_us"))
            note(
                f"{row['backend']}: {row['weight_bytes']} bytes of weights are read in {read}, "
                f"{row['multiply_accumulates']} products take {multiplied}; workspace {row['workspace_bytes']} bytes, "
                f"stack {row['stack_bytes']}"
            )
    note(f"budget {budget:g} µs, a fifth of the slot at numerology {numerology}")
    return {"rows": rows, "budget_us": budget, "numerology": numerology, "host": host() | {"threads": 1}}
