"""One self-contained HTML page: opens offline, asks for nothing from outside, carries the data behind its figures."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanfold.core.files import write_whole
from fanfold.core.table import HUGE, Table, plain

TEXT, WIDE_TEXT = ' class="text"', ' class="text wide"'  # of columns with words, read from the left, as on a terminal
MOST_NARROW = 20  # letters of the longest text of a column that may become as narrow as its words
MOST_OPEN = 20  # rows of a table that stands open under a figure
VERDICT = "pass"  # the column of a table whose values are shown as PASS and FAIL
STYLE = """
:root { color-scheme: light; --ink: #1c2733; --quiet: #5b6875; --line: #e4e8ec; --accent: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem 4rem; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; }
.verdict { font-size: 1.12rem; border-left: 4px solid var(--accent); padding: .2rem 0 .2rem .9rem; margin: 1.2rem 0; }
.quiet, figcaption, footer { color: var(--quiet); font-size: .9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; } .wide { min-width: 12rem; } .whole { white-space: nowrap; }
svg { width: 100%; height: auto; } .pictures { display: flex; flex-wrap: wrap; gap: .8rem; }
.pictures { margin-bottom: .8rem; } .pictures figure { margin: 0; flex: 1 1 9rem; max-width: 14rem; }
.pictures img { width: 100%; display: block; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .text { text-align: left; }
td:not(.text):not(:first-child) { white-space: nowrap; }
.fail { color: #b91c1c; font-weight: 600; } .pass { color: #15803d; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--quiet); }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: what it shows in words, figures as HTML or SVG, and the numbers behind them."""

    title: str
    text: str = ""
    figures: Sequence[str] = ()
    table: Table = field(default_factory=Table)
    details: Table = field(default_factory=Table)  # long data, folded away


def filled(table: Table) -> Table:
    """The table without the columns that nothing in it has, such as layers or a support that is known."""
    kept = [name for name in table.columns if any(row[name] is not None for row in table)]
    return Table([{name: row[name] for name in kept} for row in table])


def write_page(path: str | Path, title: str, verdict: str, sections: Sequence[Section], facts: dict[str, Any]) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: The page's file.
        title: Its heading.
        verdict: Who won, by how much, against which bound, and when not to trust it, in one sentence.
        sections: Its parts, in order.
        facts: Seeds, versions and hashes for the foot of the page.
    """
    body = "".join(_section(s, i) for i, s in enumerate(sections))
    foot = " · ".join(f"{html.escape(str(k))} {html.escape(str(v))}" for k, v in facts.items())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<main><h1>{html.escape(title)}</h1><p class="verdict">{html.escape(verdict)}</p>{body}</main>'
        f"<footer><p>{foot}</p></footer></body></html>"
    )
    write_whole(Path(path), page.encode())
    return Path(path)


def _section(section: Section, index: int) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(p)}</p>" for p in section.text.split("\n") if p]
    parts += list(section.figures)
    if section.table:
        shown = scrolling(_table(section.table), section.title)
        long = section.figures and len(section.table) > MOST_OPEN
        parts.append(_folded(f"The {len(section.table)} rows", shown) if long else shown)
    data = section.details or section.table
    if section.details:
        behind = scrolling(_table(section.details), f"{section.title}: numbers")
        which = "numbers behind the figure" if section.figures else "rows in full"
        parts.append(_folded(f"The {len(data)} {which}", behind))
    if data:
        embedded = json.dumps(plain(data.rows)).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="data-{index}">{embedded}</script>')
    return "".join(parts) + "</section>"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def scrolling(content: str, label: str) -> str:
    """Something wide in a box that scrolls, by the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{content}</div>'


def _table(table: Table) -> str:
    said = {c: [row[c] for row in table if isinstance(row[c], str)] for c in table.columns[1:]}
    kinds = {c: WIDE_TEXT if max(map(len, texts)) > MOST_NARROW else TEXT for c, texts in said.items() if texts}
    head = "".join(_heading(c, kinds.get(c, "")) for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(_cell(c, row[c], kinds.get(c, "")) for c in table.columns) + "</tr>" for row in table
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _heading(column: str, kind: str) -> str:
    if not column:  # of rows that need no word for what they are
        return "<td></td>"
    return f'<th scope="col"{kind}>{html.escape(column)}</th>'


def _cell(column: str, value: Any, kind: str) -> str:
    if isinstance(value, bool):
        if column != VERDICT:
            return f"<td>{'yes' if value else 'no'}</td>"
        return f'<td class="{"pass" if value else "fail"}">{"PASS" if value else "FAIL"}</td>'
    text = "" if value is None else _number(value) if isinstance(value, float) else str(value)
    return f"<td{kind}>{html.escape(text)}</td>"


def _number(value: float) -> str:
    """Two places behind the point, or three digits of what is too small or too large for them."""
    return f"{value:.3g}" if 0 < abs(value) < 0.1 or abs(value) >= HUGE else f"{value:.2f}"
