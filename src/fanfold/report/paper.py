"""Charts of a page as PDF figures for papers: as wide as a column, fonts embedded, told apart without colour."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from fanfold.core.abilities import ability
from fanfold.core.files import write_whole
from fanfold.report.page import Section
from fanfold.report.plots import MOST_MARKED, Charted, Series, name_places, require_matplotlib

COLUMN = 3.45  # inches, of a page with two columns
HEIGHT, LEGEND_ROW = 2.3, 0.15  # inches, of the axes and of each row of names below
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe & Ito (2008)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)))
LIMITS = ((0, (2, 1)), (0, (1, 2)))
TYPE = {"pdf.fonttype": 42, "font.size": 8, "axes.linewidth": 0.6, "legend.fontsize": 6.5}  # 42: whole outlines
MARKED = 8  # marks a curve


def write_paper_figures(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write every line chart of a page as a PDF that is named after its section.

    Args:
        sections: Those of the page.
        folder: Where the files go; made if it is not there. Files of the same names are replaced.

    Returns:
        Their paths, in the order of the page.

    Raises:
        ImportError: If matplotlib is missing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fanfold.report.page import Section
        >>> from fanfold.report.paper import write_paper_figures
        >>> from fanfold.report.plots import Series, line_chart
        >>> chart = line_chart([Series("ISTA", [1, 2], [-1.0, -2.0])], "layers", "NMSE in dB")
        >>> sections = [Section("Error of every layer", "", [chart])]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_paper_figures(sections, Path(folder))]
        ['error-of-every-layer.pdf']
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for section in sections:
        charts = [chart for figure in section.figures if (chart := ability(figure, Charted)) is not None]
        for number, chart in enumerate(charts, start=1):
            stem = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
            path = folder / f"{stem}{f'-{number}' if len(charts) > 1 else ''}.pdf"
            path = path if path not in written else path.with_stem(f"{path.stem}-{len(written) + 1}")
            write_whole(path, paper_figure(chart))
            written.append(path)
    return written


def paper_figure(chart: Charted) -> bytes:
    """A chart as the bytes of a PDF, the same for the same chart.

    Curves differ in their dashes and marks, and in colours that the colour-blind can tell apart; what was learned is
    bold and limits are black.
    """
    figure_class, rc_context = require_matplotlib()
    rows = (len(chart.series) + 1) // 2
    with rc_context(TYPE):
        figure = figure_class(figsize=(COLUMN, HEIGHT + LEGEND_ROW * rows), layout="constrained")
        axes = figure.subplots()
        limits, looks = (
            itertools.cycle(LIMITS),
            zip(itertools.cycle(COLOURS), itertools.cycle(MARKS), itertools.cycle(DASHES)),
        )
        for series in chart.series:
            _draw(axes, series, limits, looks)
        if chart.log_x:
            axes.set_xscale("log")
            name_places(axes, chart.series)
        elif all(float(x).is_integer() for series in chart.series for x in series.x):
            axes.locator_params(axis="x", integer=True)  # layers have no halves
        if chart.log_y:
            axes.set_yscale("log")
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        axes.grid(linewidth=0.4, color="#cccccc")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=3.2, columnspacing=1.0)
        out = io.BytesIO()
        figure.savefig(out, format="pdf", metadata={"CreationDate": None})
    return out.getvalue()


def _draw(axes, series: Series, limits, looks) -> None:
    if series.kind == "limit":
        axes.plot(series.x, series.y, linestyle=next(limits), color="black", linewidth=1.0, label=series.name)
        return
    colour, mark, dash = next(looks)
    marked = mark if len(series.x) <= MOST_MARKED else None
    axes.plot(
        series.x, series.y, linestyle=dash, color=colour, linewidth=1.6 if series.kind == "learned" else 0.9,
        marker=marked, markersize=3.2, markevery=max(1, len(series.x) // MARKED), label=series.name,
    )  # fmt: skip
