"""The verbs that show what fanfold can do: demo and reproduce."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from fanfold.cli.console import Watch, note, notes, show
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_folder
from fanfold.cli.refusals import refusal_of
from fanfold.core.table import Table
from fanfold.experiments import EXPERIMENTS, Study, find_experiment
from fanfold.experiments.demo import study as demo_study
from fanfold.experiments.pages import INDEX, Background, background, command_of, write_index, write_study
from fanfold.report.paper import write_paper_figures
from fanfold.report.plots import require_matplotlib
from fanfold.training.events import Event

REPORTS = Path("reports")


def demo(out_dir: Path = Path("fanfold-demo"), seed: int = 0) -> Result:
    """Train in front of your eyes, under a minute: the figure of unfolding, a photograph, and a report to open.

    Args:
        out_dir: Where report.html and the numbers go.
        seed: Seed of matrices and draws.
    """
    require_matplotlib()
    check_folder(out_dir)
    command = f"fanfold demo{f' --seed {seed}' if seed else ''}"
    return _present(demo_study(seed=seed, watch=_watch), out_dir, background(demo_study), command)


def reproduce(
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None,
    every: Annotated[bool, tyro.conf.arg(name="all")] = False,
    quick: bool = False,
    out_dir: Path | None = None,
    seed: int = 0,
    pdf: bool = False,
) -> Result:
    """Run a published experiment: every goal, what was measured, PASS or FAIL, and a report.

    Args:
        name: An experiment, such as sparse-limit, lista-family, mimo-detection, rf-imaging or photographs; the error
            of a wrong name lists them all.
        every: Run all of them, one after the other, and write an index over their reports.
        quick: The small version, with goals of its own.
        out_dir: Where the report goes, reports/NAME if not given; with --all the folder of all reports and their
            index.html, reports if not given.
        seed: Seed of matrices and draws.
        pdf: Write the charts as PDF figures for papers too, a column wide, beside the report.
    """
    require_matplotlib()
    if (name is None) != every:
        known = "" if name else f" There are {', '.join(EXPERIMENTS)}."
        raise ValueError(f"reproduce takes the NAME of one study, or --all.{known}")
    if name is None:
        return _reproduce_all(out_dir or REPORTS, quick, seed, pdf=pdf)
    experiment, folder = find_experiment(name), out_dir or REPORTS / name
    check_folder(folder)
    study = experiment(quick=quick, seed=seed, watch=_watch)
    result = _present(study, folder, background(experiment), command_of(name, quick, seed), pdf=pdf)
    if out_dir is None and (REPORTS / INDEX).is_file():
        write_index(REPORTS, EXPERIMENTS)
    return result


def _reproduce_all(folder: Path, quick: bool, seed: int, *, pdf: bool) -> Result:
    """Run every study; one that breaks is said and keeps none of the others away."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    failures: dict[str, str] = {}
    for name, experiment in EXPERIMENTS.items():
        command = command_of(name, quick, seed)
        note(f"{len(results) + len(failures) + 1} of {len(EXPERIMENTS)}: {command}")
        try:
            study = experiment(quick=quick, seed=seed, watch=_watch)
        except Exception as error:
            failures[name] = refusal_of(error, command).sentence
            note(f"{name} could not be run: {failures[name]}")
        else:
            results.append(_present(study, folder / name, background(experiment), command, pdf=pdf))
        write_index(folder, EXPERIMENTS, failures)  # after each, so that Ctrl-C leaves one
    note(f"open {folder / INDEX}")
    failed = bool(failures) or any(result["failed"] for result in results)
    studies = [{key: value for key, value in result.items() if key != "failed"} for result in results]
    return {"studies": studies, "failures": failures, "index": str(folder / INDEX), "failed": failed}


def _present(study: Study, out_dir: Path, said: Background, command: str, *, pdf: bool = False) -> Result:
    """Write the report of an experiment and print its goals."""
    page = write_study(study, out_dir, said, command)
    if pdf:
        write_paper_figures(study.sections, out_dir)
    show(Table([{**row, "pass": "PASS" if row["pass"] else "FAIL"} for row in study.table()]))
    notes.print(f"\n{study.verdict}\n")
    note(f"open {page}")
    return study.as_json() | {"report": str(page), "failed": not study.passed}


def _watch(title: str) -> Callable[[Event], None]:
    return Watch(title)
