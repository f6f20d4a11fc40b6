"""Records what every small study measures, and compares two records to the last digit.

A change that should not move a number is held by this: record before and after it, on one machine, and compare.

    python benchmarks/studies_before_after.py record before.json            # every study, small, and the demo
    python benchmarks/studies_before_after.py record before.json rf-imaging # one more, or one again
    python benchmarks/studies_before_after.py compare before.json after.json

Rows in units of time are named and not compared. The command exits with 1 where any other row moved.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = {"s", "ms", "µs", "us", "x", "×"}  # units of what depends on the machine's load


def names() -> list[str]:
    """Every study by name, and the demo."""
    from fanfold.experiments import EXPERIMENTS

    return ["demo", *EXPERIMENTS]


def measured(name: str) -> dict:
    """The JSON object of one study, on one thread."""
    verb = ["demo"] if name == "demo" else ["reproduce", name, "--quick"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fanfold", *verb, "--seed", "0", "--out-dir", folder, "--json"]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"name": name, "error": done.stderr[-2000:], "rows": []}


def record(path: Path, wanted: list[str]) -> None:
    """Measure the studies and write them down after each, so that a run that is stopped keeps what it has."""
    for name in wanted or names():
        began = time.perf_counter()
        outcome = measured(name)
        outcome.pop("report", None)
        kept = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(kept | {name: outcome}, indent=1, sort_keys=True))
        print(f"{name}: {len(outcome['rows'])} rows in {time.perf_counter() - began:.0f} s", flush=True)


def compare(before: Path, after: Path) -> int:
    """Print every row that moved; how many did."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    moved = skipped = same = 0
    for name in sorted(old.keys() & new.keys()):
        first, second = ({row["what"]: row for row in record[name]["rows"]} for record in (old, new))
        for what in sorted(first.keys() | second.keys()):
            a, b = first.get(what), second.get(what)
            if a is not None and b is not None and a["unit"] in TIMES:
                skipped += 1
            elif a is None or b is None or (a["value"], a["ci"]) != (b["value"], b["ci"]):
                moved += 1
                print(f"{name}: {what}: {a and a['value']} -> {b and b['value']}")
            else:
                same += 1
    missing = sorted(old.keys() ^ new.keys())
    print(
        f"{same} rows the same to the last digit, {moved} moved, {skipped} times not compared; only in one: {missing}"
    )
    return moved + len(missing)


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("path", type=Path)
    recording.add_argument("names", nargs="*")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.verb == "record":
        record(given.path, given.names)
    else:
        sys.exit(int(compare(given.before, given.after) > 0))


if __name__ == "__main__":
    main()
