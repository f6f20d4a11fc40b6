"""Pieces of an SVG: text with marked quantities, boxes, wires, and the style in which fixed and learned differ."""

import hashlib
import html
import itertools
import re
from collections.abc import Sequence

from fanfold.report.diagram.layout import SMALL, width_of
from fanfold.report.diagram.symbols import CLOSE, OPEN, plain_text

LEGIBLE = 0.88  # of the width: pages that show it narrower than that scroll it, as letters are 12.5 pixels high
LIGHT = {
    "ground": "#ffffff", "leaf": "#f5f8fa", "shade": "#e3eaf0", "line": "#5b6b7a", "ink": "#17212b",
    "quiet": "#55636f", "fixed": "#ffffff", "learned": "#ffe3c2", "hatch": "#d9822b", "edge": "#a63a00",
    "data": "#dcebff", "rule": "#c9d3dc",
}  # fmt: skip
DARK = {
    "ground": "#12181f", "leaf": "#1b242e", "shade": "#263340", "line": "#93a4b4", "ink": "#edf2f6",
    "quiet": "#a9b7c4", "fixed": "#12181f", "learned": "#5a3210", "hatch": "#b8651a", "edge": "#ffab5e",
    "data": "#1d3a5f", "rule": "#3c4b59",
}  # fmt: skip
STYLE = """
.fanfold-diagram{%s}%s
.fanfold-diagram text{font:14px system-ui,-apple-system,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;fill:var(--ink)}
.fanfold-diagram .small{font-size:12.5px}.fanfold-diagram .quiet{fill:var(--quiet)}
.fanfold-diagram .head{font-size:20px;font-weight:650}.fanfold-diagram .part{font-size:15px;font-weight:600}
.fanfold-diagram .mid{text-anchor:middle}.fanfold-diagram .end{text-anchor:end}
.fanfold-diagram .set,.fanfold-diagram .moves{font-weight:600}.fanfold-diagram .moves{fill:var(--edge)}
.fanfold-diagram .fixed{fill:var(--fixed);stroke:var(--line);stroke-width:1.3}
.fanfold-diagram .may{fill:var(--fixed);stroke:var(--edge);stroke-width:1.6;stroke-dasharray:4 3}
.fanfold-diagram .learned{fill:url(#NAME-hatch);stroke:var(--edge);stroke-width:2.4}
.fanfold-diagram .data{fill:var(--data);stroke:none}.fanfold-diagram .formula{fill:var(--shade);stroke:none}
.fanfold-diagram .hatch{fill:var(--learned)}.fanfold-diagram .stripe{stroke:var(--hatch);stroke-width:1.2;opacity:.55}
.fanfold-diagram .clear{fill-opacity:0}.fanfold-diagram .rests{stroke:var(--edge);stroke-width:1.3}
.fanfold-diagram .ground{fill:var(--ground)}.fanfold-diagram .leaf{fill:var(--leaf);stroke:var(--line)}
.fanfold-diagram .shade{fill:var(--shade);stroke:var(--line)}
.fanfold-diagram .wire{fill:none;stroke:var(--line);stroke-width:1.5}.fanfold-diagram .tip{fill:var(--line)}
.fanfold-diagram .rule{stroke:var(--rule);stroke-width:1}
.fanfold-diagram .was{stroke:var(--line);stroke-width:1.3;stroke-dasharray:5 4}
.fanfold-diagram .curve{fill:none;stroke:var(--edge);stroke-width:2}.fanfold-diagram .dot{fill:var(--edge)}
.fanfold-diagram .band{fill:var(--learned);stroke:none}
"""
HATCH = (
    '<defs><pattern id="NAME-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" class="hatch"/>'
    '<path d="M0 0V6" class="stripe"/></pattern></defs>'
)


def document(body: str, width: float, height: float, title: str, description: str, *, dark: bool) -> str:
    """The whole SVG, in light colours, and where `dark` says so in dark ones for readers who prefer them.

    Its ids and its style bear a name of its content, so that several in one page keep apart.
    """
    name = "fanfold-" + hashlib.sha256(f"{title}{description}{body}{dark}".encode()).hexdigest()[:10]
    night = f"@media(prefers-color-scheme:dark){{.fanfold-diagram{{{_variables(DARK)}}}}}" if dark else ""
    style = (STYLE % (_variables(LIGHT), night)).replace(".fanfold-diagram", f"#{name}").replace("NAME", name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{name}" class="fanfold-diagram" role="img" '
        f'viewBox="0 0 {n(width)} {n(height)}" width="{n(width)}" height="{n(height)}" '
        f'style="min-width:{n(LEGIBLE * width)}px" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escaped(title)}</title><desc id="{name}-desc">{escaped(description)}</desc>'
        f"<style>{style}</style>{HATCH.replace('NAME', name)}"
        f'<rect class="ground" width="{n(width)}" height="{n(height)}" rx="10"/>{body}</svg>'
    )


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def n(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def escaped(text: str) -> str:
    """Text as XML, without marks."""
    return html.escape(plain_text(text))


def hover(text: str) -> str:
    """What a reader sees who rests the pointer on a piece."""
    return f"<title>{escaped(text)}</title>" if text else ""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text; quantities that are marked in it stand out."""
    return f'<text x="{n(x)}" y="{n(y)}" class="{kind}">{html.escape(words)}</text>'


def formula(x: float, y: float, words: str, learned: Sequence[str], kind: str = "small") -> str:
    """A line with a formula, its quantities in bold, those that are learned in colour and underlined."""

    def marked(match: re.Match) -> str:
        name = match.group(1)
        return f'<tspan class="{"moves" if name in learned else "set"}">{name}</tspan>'

    inner = re.sub(f"{OPEN}([^{CLOSE}]*){CLOSE}", marked, html.escape(words))
    return f'<text x="{n(x)}" y="{n(y)}" class="{kind}">{inner}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float = 5) -> str:
    """A box."""
    return f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" rx="{n(radius)}" class="{kind}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<path d="M{n(x1)} {n(y1)}L{n(x2)} {n(y2)}" class="{kind}"/>'


def polygon(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A filled shape."""
    return f'<path d="M{"L".join(f"{n(x)} {n(y)}" for x, y in points)}Z" class="{kind}"/>'


def wire(points: Sequence[tuple[float, float]]) -> str:
    """A line with round corners and a tip."""
    (x, y), parts = points[0], [f"M{n(points[0][0])} {n(points[0][1])}"]
    for corner, after in itertools.pairwise(points[1:]):
        before = _towards(corner, (x, y))
        beyond = _towards(corner, after)
        parts.append(f"L{n(before[0])} {n(before[1])}Q{n(corner[0])} {n(corner[1])} {n(beyond[0])} {n(beyond[1])}")
        x, y = corner
    x, y = points[-1]
    tip = polygon([(x, y), (x - 8, y - 4), (x - 8, y + 4)], "tip")
    return f'<path d="{"".join(parts)}L{n(x - 6)} {n(y)}" class="wire"/>{tip}'


def _towards(corner: tuple[float, float], other: tuple[float, float], radius: float = 6) -> tuple[float, float]:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5
    share = min(radius, length / 2) / length if length else 0.0
    return corner[0] + share * dx, corner[1] + share * dy


def pill(x: float, y: float, words: str, kind: str, learned: Sequence[str], title: str = "") -> str:
    """A pill with its left top corner at (x, y), as wide as its words."""
    width = width_of(words, SMALL) + 14
    label = formula(x + width / 2, y + 14, words, learned, "small mid")
    return f"<g>{hover(title)}{rect(x, y, width, 19, kind, 9)}{label}</g>"
