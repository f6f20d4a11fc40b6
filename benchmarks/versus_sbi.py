"""The default call against what people have: error of the posterior mean on few simulations, of ten unlike problems.

Claim, put to the test below: `ff.fit(ff.neural(problem), problem, simulations=count)`, without any other setting, comes
at least as near to the posterior mean as NPE of sbi (Tejero-Cantero et al., 2020) and as a residual perceptron that is
trained by hand on the squared error: on each of the problems of `fanfold.experiments.simulators.benchmarks` that are
seen as vectors, with 1000 and with 10 000 simulations, in the mean over the seeds. It takes at most a minute of one
core, and answers one observation in at most 1.25 times what a product of two matrices of side 182 takes in turn, in
ONNX Runtime and in the C that it leaves as.

All methods have the same simulations and one thread. sbi and the perceptron are stopped at the processor time that the
default call took on the same problem, count and seed, or after `--seconds` where it has not run, if what they hold out
does not stop them before. sbi is as it comes (a masked autoregressive flow of the parameters themselves) and knows the
support of the prior. Its mean is that of 1000 samples, whose own spread is subtracted; it gives more than a mean.

Measured on 300 observations whose posterior is known. Parameters of different units count alike: `s_j` is the standard
deviation of the prior.

- `excess (%)` over the Bayes risk: `100 E Σ_j (m_j - E[x_j|y])² / s_j²  /  E Σ_j Var[x_j|y] / s_j²`;
- `off`: the median over observations of `mean_j |m_j - E[x_j|y]| / sd[x_j|y]`, with the spread of samples in it;
- `claimed`: the median of the standard deviation that a method says over that of the posterior.

A cell (problem, count, method, seed) is a line of `--results`. What is there is not run again, several processes may
write at once, and methods from elsewhere whose lines are there are held against the default call as well. The last line
of a cell counts. Needs `fanfold[bench]`. Exit code 1 if a goal is missed.
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from versus_sbi_methods import METHODS, TEST_DRAWS, Reference, judged, reference

from fanfold.core.table import Table
from fanfold.experiments.base import Goal, mean_goal
from fanfold.experiments.simulators.benchmarks import BENCHMARKS, Benchmark
from fanfold.problems.protocols import kind_of

PROBLEMS: dict[str, Benchmark] = {name: p for name, p in BENCHMARKS.items() if kind_of(p) == "vector"}
COUNTS = (1000, 10_000)
SECONDS = {1000: 30.0, 10_000: 60.0}  # of the others where the default call has not run
DEFAULT = "default call"
MOST = {  # excess of the default call in per cent, for each count
    "Bernoulli GLM": (30.0, 4.0),
    "Poisson regression": (30.0, 4.0),
    "several modes": (24.0, 9.0),
    "source localisation": (24.0, 9.0),
}
EQUATIONS = ("epidemic", "predator and prey")  # the means and the claims of these are judged, with 10 000
OFF, CLAIMED = 0.3, (0.85, 1.2)
MOST_SECONDS, MOST_PRODUCTS = 60.0, 1.25

Cell = tuple[str, int, str, int]  # problem, count, method, seed
Results = dict[Cell, dict[str, Any]]


def read(path: Path) -> Results:
    """All cells of a file of results."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["problem"], row["simulations"], row["method"], row["seed"]): row for row in rows}


def run(cell: Cell, exact: Reference, seconds: float, path: Path) -> None:
    """Train and judge one method, and append the line of its cell."""
    name, count, method, seed = cell
    answer = METHODS[method](PROBLEMS[name], count, seed, seconds, exact.obs)
    keep(cell, {"limit": seconds, **judged(answer, exact), "left out": exact.left_out}, path)


def keep(cell: Cell, numbers: dict[str, Any], path: Path) -> None:
    """Append the line of a cell."""
    name, count, method, seed = cell
    line = {
        "problem": name,
        "simulations": count,
        "method": method,
        "seed": seed,
        **numbers,
        "torch": torch.__version__,
    }
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{name}, {count}, seed {seed}, {method}: {line['excess']:.2f} %, {line['seconds']:.1f} s", file=sys.stderr)


def seeds_of(results: Results, name: str, count: int, method: str) -> dict[int, dict[str, Any]]:
    """The results of one method on one problem and count, by seed."""
    return {cell[3]: row for cell, row in sorted(results.items()) if cell[:3] == (name, count, method)}


def compared(results: Results, names: Sequence[str], counts: Sequence[int]) -> Table:
    """A row for each problem, count and method; others are shown, and paired, on the seeds of the default call."""
    rows = []
    methods = dict.fromkeys([*METHODS, *(method for _, _, method, _ in results)])
    for name, count, method in itertools.product(names, counts, methods):
        ours, theirs = (seeds_of(results, name, count, m) for m in (DEFAULT, method))
        seeds = [seed for seed in theirs if seed in ours] or list(theirs)
        if not seeds:
            continue
        excess = [theirs[seed]["excess"] for seed in seeds]
        paired = method != DEFAULT and seeds[0] in ours
        behind = [theirs[seed]["excess"] - ours[seed]["excess"] for seed in seeds] if paired else []
        rows.append(
            {
                "problem": name,
                "simulations": count,
                "method": method,
                "seeds": len(seeds),
                "excess (%)": statistics.fmean(excess),
                "±": interval(excess),
                "default (%)": statistics.fmean(ours[seed]["excess"] for seed in seeds) if behind else None,
                "behind it": statistics.fmean(behind) if behind else None,
                "± ": interval(behind),
                "off": statistics.fmean(theirs[seed]["off"] for seed in seeds),
                "claimed": mean_of(theirs, seeds, "claimed"),
                "CPU s": statistics.fmean(theirs[seed]["seconds"] for seed in seeds),
                "limit": None if method == DEFAULT or method not in METHODS else mean_of(theirs, seeds, "limit"),
                "ms": mean_of(theirs, seeds, "milliseconds"),
            }
        )
    return Table(rows)


def interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean; NaN where a value is infinite."""
    return 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None


def mean_of(rows: dict[int, dict[str, Any]], seeds: Sequence[int], key: str) -> float | None:
    """The mean over the seeds of what not every method has."""
    values = [rows[seed][key] for seed in seeds if rows[seed].get(key) is not None]
    return statistics.fmean(values) if values else None


def goals(results: Results, table: Table) -> list[Goal]:
    """What is asked of the default call, wherever it has run."""
    wanted = [
        Goal(
            f"{row['problem']}, {row['simulations']}: excess beside {row['method']}",
            "%",
            "<=",
            row["excess (%)"],
            row["default (%)"],
            row["± "],
        )
        for row in table
        if row["behind it"] is not None
    ]
    cells = {(row["problem"], row["simulations"]) for row in table.where(method=DEFAULT)}
    for name, count in sorted(cells, key=lambda cell: (list(PROBLEMS).index(cell[0]), cell[1])):
        ours, label = list(seeds_of(results, name, count, DEFAULT).values()), f"{name}, {count}"
        if name in MOST and count in COUNTS:
            most = MOST[name][COUNTS.index(count)]
            wanted.append(mean_goal(f"{label}: excess", "%", "<=", most, [row["excess"] for row in ours]))
        if name in EQUATIONS and count == COUNTS[-1]:
            says = [float("nan") if row["claimed"] is None else row["claimed"] for row in ours]
            wanted.append(mean_goal(f"{label}: off", "standard deviations", "<=", OFF, [row["off"] for row in ours]))
            wanted.append(mean_goal(f"{label}: claimed over true deviation", "", ">=", CLAIMED[0], says))
            wanted.append(mean_goal(f"{label}: claimed over true deviation", "", "<=", CLAIMED[1], says))
    if cells:
        slowest = max(table.where(method=DEFAULT), key=lambda row: row["CPU s"])
        label = f"{slowest['problem']}, {slowest['simulations']}: longest training"
        wanted.append(Goal(label, "s", "<=", MOST_SECONDS, slowest["CPU s"]))
        rows = [row for cell in cells for row in seeds_of(results, *cell, DEFAULT).values()]
        for key, backend in (("products", "ONNX Runtime"), ("products_c", "generated C")):
            if measured := [row[key] for row in rows if key in row]:  # older cells have the first alone
                label = f"slowest answer in {backend} over a product of side 182"
                wanted.append(Goal(label, "", "<=", MOST_PRODUCTS, max(measured)))
    return wanted


def report(results: Results, names: Sequence[str], counts: Sequence[int]) -> int:
    """The table, and the goals; 1 if one is missed."""
    table = compared(results, names, counts)
    if not len(table):
        print("There are no results yet.")
        return 0
    wanted = goals(results, table)
    left_out = {name: row["left out"] for (name, *_), row in results.items() if row["left out"]}
    print(table, end="\n\n")
    print(Table([goal.row() for goal in wanted]) if wanted else "The default call has not run yet.", end="\n\n")
    print(f"One thread; {TEST_DRAWS} observations, but for those whose posterior is not known: {left_out or 'none'}.")
    if wanted:
        print(f"{sum(goal.passed for goal in wanted)} of {len(wanted)} goals are met.")
    return int(not all(goal.passed for goal in wanted))


def main() -> int:
    """Run what is missing, seed by seed, and print the table and the goals; 1 if a goal is missed."""
    sorts = PROBLEMS, [str(count) for count in COUNTS], METHODS
    words = [word for sort in sorts for word in sort]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many; 0 only reports")
    help_only = "problems, counts and methods, in this order; all of a sort of which none is named"
    parser.add_argument("--only", nargs="+", choices=words, metavar="WORD", default=[], help=help_only)
    parser.add_argument("--again", nargs="+", choices=list(METHODS), default=[], help="methods to run again")
    help_seconds = "where the default call has not run; 30 with 1000 simulations and 60 with 10 000 if not given"
    parser.add_argument("--seconds", type=float, help=help_seconds)
    parser.add_argument("--results", type=Path, default=Path("runs/versus_sbi/results.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("runs/versus_sbi"), help="folder for the exact posteriors")
    args = parser.parse_args()
    names, counts, methods = ([word for word in args.only if word in sort] or list(sort) for sort in sorts)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    counted = [int(count) for count in counts]
    for seed, name, count, method in itertools.product(range(args.seeds), names, counted, methods):
        results, cell = read(args.results), (name, count, method, seed)
        if cell in results and method not in args.again:
            continue
        budget = SECONDS[count] if args.seconds is None else args.seconds
        default = results.get((name, count, DEFAULT, seed))
        exact = reference(name, PROBLEMS[name], args.cache)
        run(cell, exact, default["seconds"] if default else budget, args.results)
    return report(read(args.results), names, counted)


if __name__ == "__main__":
    sys.exit(main())
