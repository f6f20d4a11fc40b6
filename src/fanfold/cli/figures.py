"""The verb of the live figure."""

from pathlib import Path
from typing import Literal

from fanfold.cli.console import note
from fanfold.cli.flags import Result
from fanfold.cli.outputs import check_file
from fanfold.report.figure import figure as write_figure
from fanfold.report.figure.built import make_programs, write_programs
from fanfold.report.figure.lista import make_lista, write_lista
from fanfold.report.figure.topics.kept import TOPICS, write_topic
from fanfold.report.figure.trained import make_trained, write_trained
from fanfold.report.figure.worlds.kept import write_world


def figure(
    out: Path | None = None,
    world: Literal[
        "text", "lista", "photograph", "rf", "channel", "posterior", "intervals", "guard", "release"
    ] = "text",
    overwrite: bool = False,
    remake: bool = False,
) -> Result:
    """Write the live figure, one page that opens from disk: algorithms, networks and the limit as sliders move.

    Args:
        out: The page; figure.html if not given, or figure-WORLD.html.
        world: Sparse signals as in the text, the same with unfolded LISTA, a world whose estimates are pictures
            (photograph, rf, channel), or a topic: posterior, intervals, guard, release.
        overwrite: Replace the file of --out.
        remake: Tune, train and compile again what this world keeps in the installed package; minutes, and needs clang.
    """
    out = out or Path("figure.html" if world == "text" else f"figure-{world}.html")
    check_file(out, overwrite=overwrite, suffixes=(".html",))
    if remake:
        _remake(world)
    page = write_figure(out, world=world)
    note(f"written: {page}, {page.stat().st_size / 1e3:.0f} kB; open it in a browser")
    return {"page": str(page), "bytes": page.stat().st_size}


def _remake(world: str) -> None:
    if world == "text":
        note(f"programs: {write_programs(make_programs())}")
        note(f"trained: {write_trained(make_trained(note))}")
    elif world == "lista":
        note(f"written: {write_lista(make_lista())}")
    elif world in TOPICS:
        from fanfold.report.figure.topics.made import make_topic  # likewise

        note(f"written: {write_topic(world, make_topic(world))}")
    else:
        from fanfold.report.figure.worlds.made import make_world  # with every estimator of every world behind it

        note(f"written: {write_world(world, make_world(world))}")
