"""The verb that draws what a network or an algorithm is made of: diagram."""

from pathlib import Path
from typing import Annotated

import tyro

from fanfold.algorithms import REGISTRY
from fanfold.cli.console import note
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_file
from fanfold.core.files import write_whole
from fanfold.core.suggest import did_you_mean
from fanfold.report.diagram import diagram as drawn
from fanfold.runs.directory import Run


def diagram(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|ALGORITHM")],
    out: Path | None = None,
    overwrite: bool = False,
) -> Result:
    """Draw the architecture of a trained run, or of an algorithm, as an SVG.

    Args:
        run: A run directory, or the name of an algorithm, such as ista or oamp; a folder of that name comes first.
        out: The .svg file; diagram.svg in the run directory, or ALGORITHM.svg here, if not given.
        overwrite: Replace the file of --out, or that of an algorithm, if it exists.
    """
    named = str(run) in REGISTRY and not run.is_dir()
    if not named and not run.exists():
        raise ValueError(
            f"{run} is neither a run directory nor an algorithm; algorithms are {', '.join(REGISTRY)}."
            f"{did_you_mean(str(run), REGISTRY)}"
        )
    path = out or (Path(f"{run}.svg") if named else run / "diagram.svg")
    stored = None if named else Run.open(run)
    check_file(path, overwrite=overwrite or (out is None and not named), suffixes=(".svg",))
    svg = drawn(REGISTRY[str(run)]()) if stored is None else drawn(stored.estimator(), stored.draws())
    write_whole(path, svg.encode())
    note(f"open {path}")
    return {"diagram": str(path)}
