"""The verbs that show what fanfold can do: demo and reproduce."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import tyro

from fanfold.cli.console import Watch, note, notes, show
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_folder
from fanfold.core.files import write_whole
from fanfold.core.table import Table, plain
from fanfold.experiments import Study, find_experiment
from fanfold.experiments.demo import study as demo_study
from fanfold.report.page import Section, write_page
from fanfold.report.plots import require_matplotlib
from fanfold.runs.environment import installed
from fanfold.training.events import Event


def demo(out_dir: Path = Path("fanfold-demo"), seed: int = 0) -> Result:
    """Train in front of your eyes, under a minute: the figure of unfolding, a photograph, and a report to open.

    Args:
        out_dir: Where report.html and the numbers go.
        seed: Seed of matrices and draws.
    """
    require_matplotlib()
    check_folder(out_dir)
    return _present(demo_study(seed=seed, watch=_watch), out_dir)


def reproduce(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    quick: bool = False,
    out_dir: Path | None = None,
    seed: int = 0,
) -> Result:
    """Run a published experiment: every goal, what was measured, PASS or FAIL, and a report.

    Args:
        name: An experiment, such as sparse-limit, lista-family, mimo-detection, rf-imaging or photographs; the error
            of a wrong name lists them all.
        quick: The small version, with goals of its own.
        out_dir: Where the report goes; reports/NAME if not given.
        seed: Seed of matrices and draws.
    """
    require_matplotlib()
    experiment, folder = find_experiment(name), out_dir or Path("reports") / name
    check_folder(folder)
    return _present(experiment(quick=quick, seed=seed, watch=_watch), folder)


def _present(study: Study, out_dir: Path) -> Result:
    """Write the report of an experiment and print its goals."""
    out_dir.mkdir(parents=True, exist_ok=True)
    goals = Section("Goals", study.claim, table=study.table())
    facts = study.facts | {
        "fanfold": installed("fanfold"),
        "torch": torch.__version__,
        "seconds": round(study.seconds, 1),
    }
    page = write_page(out_dir / "report.html", f"fanfold {study.name}", study.verdict, [*study.sections, goals], facts)
    for i, figure in enumerate(f for section in study.sections for f in section.figures if f.startswith("<svg")):
        write_whole(out_dir / f"figure-{i + 1}.svg", figure.encode())
    for name, record in study.records.items():
        (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out_dir / name, json.dumps(plain(record), indent=1).encode())
    write_whole(out_dir / "goals.json", json.dumps(plain(study.as_json()), indent=1).encode())
    show(Table([{**row, "pass": "PASS" if row["pass"] else "FAIL"} for row in study.table()]))
    notes.print(f"\n{study.verdict}\n")
    note(f"open {page}")
    return study.as_json() | {"report": str(page), "failed": not study.passed}


def _watch(title: str) -> Callable[[Event], None]:
    return Watch(title)
