"""Figures as text: SVG line charts and PNG pictures that go into a page without another file. Needs matplotlib."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

INK, QUIET, GRID = "#1c2733", "#7a8794", "#e4e8ec"
LEARNED = ("#c2410c", "#0f766e", "#7c3aed", "#2563eb", "#a16207")  # networks: solid, bold
CLASSICAL = ("#475569", "#0369a1", "#4d7c0f", "#be185d", "#b45309", "#6d28d9", "#0e7490")  # peers: thin, with marks
MARKS, DASHES = ("o", "s", "^", "D", "v"), ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
LIMIT_DASHES = ("--", ":")
LIMIT = "#111827"
MOST_MARKED = 100  # points of a curve with marks
MOST_NAMED = 8  # places of an axis


@dataclass(frozen=True)
class Series:
    """A curve: `kind` is "learned", "classical" or "limit"."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "classical"


@runtime_checkable
class Charted(Protocol):
    """A figure that knows the curves it shows, so that it can be drawn again in another form."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    log_x: bool
    log_y: bool


class LineChart(str):
    """The SVG of a line chart, with what it shows.

    Example:
        >>> from fanfold.report.plots import Series, line_chart
        >>> line_chart([Series("ISTA", [1, 2], [-1.0, -2.0])], "layers", "NMSE in dB").y_label
        'NMSE in dB'
    """

    series: Sequence[Series]
    x_label: str
    y_label: str
    log_x: bool
    log_y: bool


@dataclass
class Label:
    """The name at the end of a curve, `place` in units of the vertical axis."""

    place: float
    text: str
    colour: str
    bold: bool


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = False
) -> str:
    """An SVG line chart, a `LineChart`; each curve is named at its end, limits are dashed.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = line_figure(series, x_label, y_label, log_x=log_x, log_y=log_y)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    chart = LineChart(out.getvalue()[out.getvalue().index("<svg") :])
    chart.series, chart.x_label, chart.y_label, chart.log_x, chart.log_y = series, x_label, y_label, log_x, log_y
    return chart


def line_figure(series: Sequence[Series], x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = False):
    """The matplotlib figure of `line_chart`."""
    figure_class, rc_context = require_matplotlib()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fanfold", "font.size": 10.5, "axes.edgecolor": QUIET}):
        figure = figure_class(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        colours = {"learned": iter(LEARNED * 3), "classical": iter(CLASSICAL * 5), "limit": iter((LIMIT,) * 9)}
        dashes = {"learned": itertools.repeat("-"), "classical": itertools.cycle(DASHES)}
        dashes["limit"] = itertools.cycle(LIMIT_DASHES)
        marks, ends = itertools.cycle(MARKS), list[Label]()
        for s in series:
            colour, learned = next(colours[s.kind]), s.kind == "learned"
            few = 1 < len(s.x) <= MOST_MARKED and s.kind == "classical"  # a training has too many points to mark
            look: dict[str, Any] = {"marker": next(marks), "ms": 4, "markevery": max(1, len(s.x) // 8)} if few else {}
            axes.plot(
                s.x, s.y, linestyle=next(dashes[s.kind]), color=colour, lw=2.4 if learned else 1.4,
                zorder=3 if learned else 2, **look,
            )  # fmt: skip
            ends.append(Label(float(s.y[-1]), s.name, colour, learned))
        if log_x:
            axes.set_xscale("log")
            name_places(axes, series)
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
        _spread(ends, *axes.get_ylim(), log=log_y)
        right = max(float(s.x[-1]) for s in series)
        for end in ends:
            axes.annotate(
                end.text, (right, end.place), xytext=(6, 0), textcoords="offset points", va="center", color=end.colour,
                fontweight="bold" if end.bold else "normal", annotation_clip=False,
            )  # fmt: skip
        return figure


def name_places(axes: Any, series: Sequence[Series]) -> None:
    """Name the points of a logarithmic axis themselves where they lie within a decade, in which it has no round places.

    Args:
        axes: Of matplotlib.
        series: What is drawn there.
    """
    places = sorted({float(x) for s in series for x in s.x})
    if places[-1] < 10 * places[0] and len(places) <= MOST_NAMED:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()


def _spread(ends: list[Label], low: float, high: float, *, log: bool) -> None:
    """Move labels up until none covers another, on an axis from `low` to `high`."""
    share = 0.052  # of the axis that a label takes
    ends.sort(key=lambda end: end.place)
    for below, end in itertools.pairwise(ends):
        next_free = below.place * (high / low) ** share if log else below.place + share * (high - low)
        end.place = max(end.place, next_free)


def picture_uri(picture: Tensor) -> str:
    """A grey picture `(h, w)` with pixels in [0, 1] as a PNG data URI."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels, "L").save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def picture_row(pictures: Mapping[str, Tensor], captions: Mapping[str, str]) -> str:
    """HTML for pictures side by side, each with its name and a caption below."""
    figures = "".join(
        f'<figure><img src="{picture_uri(p)}" alt="{name}">'
        f"<figcaption><b>{name}</b><br>{captions.get(name, '')}</figcaption></figure>"
        for name, p in pictures.items()
    )
    return f'<div class="pictures">{figures}</div>'


def require_matplotlib():
    """What a figure is made with; called first where much work comes before the figure.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'fanfold[plots]'") from error
    return Figure, rc_context
