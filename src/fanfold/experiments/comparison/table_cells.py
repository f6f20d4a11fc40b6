"""The comparison table as HTML: what was measured beside the text's word, which colour repeats and never says alone."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fanfold.experiments.comparison.scorecards import Scorecard
from fanfold.experiments.comparison.words import CRITERIA, Criterion, Finding
from fanfold.experiments.comparison.worlds import FAMILIES, Family
from fanfold.report.page import scrolling

HOLDS, FAILS = "#dcfce7", "#ffedd5"  # behind dark ink: contrast above 12
Cards = Mapping[str, Mapping[Family, Scorecard]]  # by world


def comparison(cards: Cards) -> str:
    """The table: a group of rows for each criterion, a row for each world, a column for each family.

    Each cell links to the record of the run that measured it, relative to the page.

    Args:
        cards: The scorecards, by world and family.
    """
    heads = "".join(f'<th scope="col" class="text">{family}</th>' for family in FAMILIES)
    body = "".join(_group(criterion, cards) for criterion in CRITERIA)
    caption = (
        '<caption class="quiet" style="text-align: left">Measured, and below it the word of the text and whether it '
        "holds. A cell leads to the record of the run that measured it.</caption>"
    )
    head = f'<thead><tr><th scope="col">criterion, world</th>{heads}</tr></thead>'
    return scrolling(f"<table>{caption}{head}{body}</table>", "The comparison table")


def _group(criterion: Criterion, cards: Cards) -> str:
    title, about = html.escape(criterion.title), html.escape(criterion.about)
    rows = "".join(_row(world, criterion.findings(of_world), of_world) for world, of_world in cards.items())
    head = f'<tr><th scope="rowgroup" colspan="{1 + len(FAMILIES)}" class="text">{title}: {about}</th></tr>'
    return f"<tbody>{head}{rows}</tbody>"


def _row(world: str, findings: Mapping[Family, Finding], of_world: Mapping[Family, Scorecard]) -> str:
    cells = "".join(_cell(findings[family], of_world[family]) for family in FAMILIES)
    return f'<tr><th scope="row">{html.escape(world)}</th>{cells}</tr>'


def _cell(finding: Finding, card: Scorecard) -> str:
    measured, word, verdict = map(html.escape, (finding.measured, finding.word, finding.verdict))
    link = f'<a href="{html.escape(card.place)}">{measured}</a>'
    style = f"background: {HOLDS if finding.holds else FAILS}; vertical-align: top"
    return f'<td class="text" style="{style}">{link}<br>“{word}” <strong>{verdict}</strong></td>'


def word_rows(cards: Cards) -> list[dict[str, Any]]:
    """A row for each word of the text: where it holds and where not.

    Args:
        cards: The scorecards, by world and family.
    """
    rows: list[dict[str, Any]] = []
    for criterion in CRITERIA:
        of_worlds = {world: criterion.findings(of_world) for world, of_world in cards.items()}
        for family in FAMILIES:
            findings = {world: of_world[family] for world, of_world in of_worlds.items()}
            rows.append({
                "criterion": criterion.title,
                "family": family,
                "the text's word": next(iter(findings.values())).word,
                "holds in": _worlds(world for world, finding in findings.items() if finding.holds),
                "does not hold in": _worlds(world for world, finding in findings.items() if not finding.holds),
            })  # fmt: skip
    return rows


def _worlds(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def shift_rows(of_world: Mapping[Family, Scorecard]) -> list[dict[str, Any]]:
    """A row for each shift of a world: the risk of each family and what it loses, in dB.

    Args:
        of_world: The scorecards of a world.
    """
    rows = []
    for parts in zip(*(of_world[family].drifts for family in FAMILIES), strict=True):
        row: dict[str, Any] = {"shift": parts[0].shift}
        row |= {f"risk, {family}": drift.risk for family, drift in zip(FAMILIES, parts, strict=True)}
        row |= {f"lost, {family} (dB)": drift.lost_db for family, drift in zip(FAMILIES, parts, strict=True)}
        rows.append(row)
    return rows


def curve_rows(of_world: Mapping[Family, Scorecard]) -> list[dict[str, Any]]:
    """NMSE in dB of each family by number of pairs; None where a number was not tried.

    Args:
        of_world: The scorecards of a world.
    """
    counts: Sequence[int] = sorted({n for card in of_world.values() for n in card.curve if n is not None})
    rows: list[dict[str, Any]] = [
        {"pairs": str(n)} | {family: of_world[family].curve.get(n) for family in FAMILIES} for n in counts
    ]
    rows.append({"pairs": "fresh draws"} | {family: of_world[family].reached_db for family in FAMILIES})
    card = next(iter(of_world.values()))
    rows.append({"pairs": f"limit: {card.limit}"} | dict.fromkeys(FAMILIES, card.limit_db))
    return rows
