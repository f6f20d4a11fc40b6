"""Three rounds of 1000 simulations for one observation against 10 000 that serve all, where equations are solved.

Claim, put to the test below: `ff.fit(ff.neural(problem, observed=y), problem, simulations=3000)` comes as near to the
posterior mean of that observation, in its own deviations, as `ff.fit(ff.neural(problem), problem, simulations=10_000)`
does, in the median over observations. Both are the calls as they come. Observations and their posteriors are those of
`versus_sbi.py`; `off` and `claimed` are its numbers, of one observation.

    python benchmarks/sequential_rounds.py [epidemic] ["predator and prey"] [--observations 10]

Rows are kept in a file of JSON lines when they are there, so that a stopped run goes on where it was; several processes
may write at once. Exit code 1 if a goal is missed.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from versus_sbi_methods import Reference, reference

import fanfold as ff
from fanfold.core.table import Table
from fanfold.experiments.base import Goal
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.observation import Estimate

PROBLEMS = ("epidemic", "predator and prey")
ROUNDS, ALL = "three rounds of 1000", "10 000 for all"
SEED = 0


def judged(estimate: Estimate, exact: Reference, k: int) -> dict[str, float]:
    """How far the mean of the k-th observation is off, and its claim, both in deviations of the posterior."""
    assert estimate.var is not None
    deviation = exact.var[k].sqrt()
    off = ((estimate.x.double().flatten() - exact.mean[k]).abs() / deviation).mean().item()
    return {"off": off, "claimed": (estimate.var.double().flatten().sqrt() / deviation).median().item()}


def rows_of(name: str, count: int, exact: Reference, kept: dict[tuple[str, int, str], Any], path: Path) -> None:
    """Train what is not there yet, and append a row for each observation and method."""
    problem = BENCHMARKS[name]

    def keep(k: int, method: str, said: Estimate, seconds: float) -> None:
        row = {"problem": name, "observation": k, "method": method, **judged(said, exact, k), "seconds": seconds}
        kept[name, k, method] = row
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}, {k}, {method}: off {row['off']:.2f}, claimed {row['claimed']:.2f}", file=sys.stderr)

    if any((name, k, ALL) not in kept for k in range(count)):
        began = time.process_time()
        net = ff.fit(ff.neural(problem, seed=SEED), problem, simulations=10_000, seed=SEED, threads=1)
        seconds = time.process_time() - began
        for k in range(count):
            with torch.no_grad():
                keep(k, ALL, net(exact.obs[k : k + 1]), seconds)
    for k in range(count):
        if (name, k, ROUNDS) not in kept:
            began = time.process_time()
            near = ff.neural(problem, observed=exact.obs.y[k], seed=SEED)
            near = ff.fit(near, problem, simulations=3000, seed=SEED, threads=1)
            with torch.no_grad():
                keep(k, ROUNDS, near(exact.obs[k : k + 1]), time.process_time() - began)


def main() -> int:
    """Run what is missing, and print both methods side by side; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), help=f"some of {', '.join(PROBLEMS)}")
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--rows", type=Path, default=Path("runs/sequential_rounds.jsonl"), help="file that keeps rows")
    parser.add_argument("--cache", type=Path, default=Path("runs/versus_sbi"), help="folder for the exact posteriors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    kept = {(row["problem"], row["observation"], row["method"]): row for row in lines}
    table, goals = [], []
    for name in args.problems:
        exact = reference(name, BENCHMARKS[name], args.cache)
        rows_of(name, args.observations, exact, kept, args.rows)
        middle = {}
        for method in (ROUNDS, ALL):
            rows = [kept[name, k, method] for k in range(args.observations)]
            off = sorted(row["off"] for row in rows)
            middle[method] = median(off)
            claimed = median(row["claimed"] for row in rows)
            seconds = median(row["seconds"] for row in rows)
            table.append({"problem": name, "method": method, "off, median": median(off), "largest": off[-1],
                          "claimed, median": claimed, "CPU s": seconds})  # fmt: skip
        label = f"{name}: off after three rounds, beside 10 000 for all"
        goals.append(Goal(label, "deviations", "<=", middle[ALL], middle[ROUNDS]))
    print(Table(table), end="\n\n")
    print(Table([goal.row() for goal in goals]))
    return int(not all(goal.passed for goal in goals))


if __name__ == "__main__":
    sys.exit(main())
