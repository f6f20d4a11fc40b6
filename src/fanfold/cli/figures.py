"""The verb of the live figure."""

from pathlib import Path

from fanfold.cli.console import note
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_file
from fanfold.report.figure import figure as write_figure
from fanfold.report.figure.built import make_programs, write_programs
from fanfold.report.figure.trained import make_trained, write_trained


def figure(out: Path = Path("figure.html"), overwrite: bool = False, remake: bool = False) -> Result:
    """Write the live figure, one page that opens from disk: algorithms, networks and the limit as sliders move.

    Args:
        out: The page.
        overwrite: Replace the file of --out.
        remake: Tune, train and compile again what the figure keeps in the installed package; minutes, and needs clang.
    """
    check_file(out, overwrite=overwrite, suffixes=(".html",))
    if remake:
        programs = make_programs()
        note(f"programs: {write_programs(programs)}")
        note(f"trained: {write_trained(make_trained(note))}")
    page = write_figure(out)
    note(f"written: {page}, {page.stat().st_size / 1e3:.0f} kB; open it in a browser")
    return {"page": str(page), "bytes": page.stat().st_size}
