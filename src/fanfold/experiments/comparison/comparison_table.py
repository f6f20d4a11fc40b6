"""The text's table of model-based, end-to-end and unfolded estimators, measured cell by cell in three worlds.

Question: of each word of that table, in which world does it hold? Every cell is measured: pairs to come within 1 dB of
the own ceiling, cost of a call, risk under every named shift, what the learned numbers mean and how far they moved,
coverage of 90 % intervals, and the gap to a limit that is known. Source: the table "Model-Based vs. Data-Driven vs.
Hybrid Estimation" of the text that the project implements; the limits are state evolution (Rangan, Schniter & Fletcher,
2019) and, of channels, the exact posterior mean of the mixture that they are drawn from.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from fanfold.core.table import Table
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.comparison.scorecards import COVERAGE, Scorecard, scorecard
from fanfold.experiments.comparison.supply import Size
from fanfold.experiments.comparison.table_cells import Cards, comparison, curve_rows, shift_rows, word_rows
from fanfold.experiments.comparison.words import CRITERIA, pairs_of
from fanfold.experiments.comparison.worlds import FAMILIES, WORLDS, Arena, Family
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart


class Lengths(NamedTuple):
    """How far each goal of a world goes, in dB but for pairs.

    Example:
        >>> from fanfold.experiments.comparison.comparison_table import FULL_GOALS, Lengths
        >>> all(isinstance(lengths, Lengths) for lengths in FULL_GOALS.values())
        True
    """

    gap: float  # of the unfolded network to the limit
    ahead: float  # of it to the end-to-end network
    behind: float  # of it to the model-based estimator
    steadier: float  # its mean risk over shifts to that of the end-to-end network
    pairs: float | None  # that it needs over those that the end-to-end network does; None where too few are tried


FULL_GOALS = {  # from seed 1, with room for other draws
    "sparse recovery": Lengths(0.5, -25.0, 0.3, -10.0, 0.1),
    "channel estimation": Lengths(2.0, 0.2, -0.6, 0.3, 0.34),
    "RF imaging": Lengths(6.0, -20.0, 1.0, -5.0, 1.0),
}
QUICK_GOALS = {
    "sparse recovery": Lengths(1.0, -25.0, 1.0, -10.0, None),
    "channel estimation": Lengths(3.0, 0.5, 0.0, 0.5, None),
    "RF imaging": Lengths(8.0, -15.0, 3.0, -5.0, None),
}


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: nine estimators, three worlds; quick trains little and asks a seventh of the shifts."""
    began, size = time.perf_counter(), Size.quick() if quick else Size.full()
    worlds = [make(size, seed, watch) for make in WORLDS]
    cards: dict[str, Mapping[Family, Scorecard]] = {
        world.name: {c.family: scorecard(world, c, size, seed) for c in world.contenders} for world in worlds
    }
    every = [card for of_world in cards.values() for card in of_world.values()]
    return Study(
        "comparison-table",
        "The text's comparison of model-based, end-to-end and unfolded estimators, each of its words measured.",
        verdict(cards),
        time.perf_counter() - began,
        goals(cards, quick=quick),
        sections(cards, worlds),
        {"seed": seed, "shifts": ", ".join(f"{len(c['unfolding'].drifts)} of {n}" for n, c in cards.items())},
        {card.place: card.record(seed) for card in every},
    )


def goals(cards: Cards, *, quick: bool) -> list[Goal]:
    """What other draws than those that all was chosen on are to show again; networks that trained little owe less."""
    lengths = QUICK_GOALS if quick else FULL_GOALS
    wanted: list[Goal] = []
    for world, of_world in cards.items():
        unfolded, network, model = (of_world[family] for family in ("unfolding", "end-to-end", "model-based"))
        farthest = max(of_world.values(), key=lambda card: abs(card.conformal - COVERAGE))
        what = f"{world}: coverage of conformal 90 % intervals, worst of three ({farthest.family})"
        wanted.append(Goal(what, "%", "=", 90.0, 100 * farthest.conformal, tolerance=2.0))
        length = lengths[world]
        wanted += [
            Goal(
                f"{world}: {unfolded.contender.name}, short of {unfolded.limit}",
                "dB",
                "<=",
                length.gap,
                unfolded.gap_db,
            ),
            Goal(
                f"{world}: {unfolded.contender.name} against {network.contender.name}",
                "dB",
                "<=",
                length.ahead,
                unfolded.reached_db - network.reached_db,
            ),
            Goal(
                f"{world}: the same against {model.contender.name}",
                "dB",
                "<=",
                length.behind,
                unfolded.reached_db - model.reached_db,
            ),
            Goal(
                f"{world}: mean risk of {unfolded.contender.name} against that of {network.contender.name}",
                "dB",
                "<=",
                length.steadier,
                unfolded.mean_risk_db - network.mean_risk_db,
            ),
        ]
        if length.pairs is not None:
            what = f"{world}: pairs that {unfolded.contender.name} needs over those that {network.contender.name} does"
            wanted.append(Goal(what, "ratio", "<=", length.pairs, pairs_ratio(unfolded, network)))
    return wanted


def pairs_ratio(one: Scorecard, other: Scorecard) -> float:
    """The pairs of one over those of another; the most that were tried stand for more than these."""
    most = max(n for n in other.curve if n is not None)
    return pairs_of(one) / (most if other.needed is None else max(1, other.needed))


def verdict(cards: Cards) -> str:
    """How many words hold where, and who is ahead."""
    findings = [
        finding
        for criterion in CRITERIA
        for of_world in cards.values()
        for finding in criterion.findings(of_world).values()
    ]
    held = sum(finding.holds for finding in findings)
    ahead = "; ".join(f"{world}: {_ahead(of_world)}" for world, of_world in cards.items())
    return (
        f"Of the text's 18 words in three worlds {held} of {len(findings)} hold. Nearest to the limit is in {ahead}. "
        "Do not trust a cell on another problem: measure it there."
    )


def _ahead(of_world: Mapping[Family, Scorecard]) -> str:
    best = min(of_world.values(), key=lambda card: card.reached_db)
    return f"{best.contender.name} ({best.family}), {best.gap_db:.1f} dB from it"


def sections(cards: Cards, worlds: list[Arena]) -> list[Section]:
    """The table, its words one by one, and what each world's cells come from."""
    about = {world.name: world for world in worlds}
    text = "\n".join(
        f"{name}: {about[name].about}. "
        + ", ".join(f"{family}: {of_world[family].contender.name}" for family in FAMILIES)
        + f". Baseline of risks: {about[name].baseline}. At full size: fanfold reproduce {about[name].wider}."
        for name, of_world in cards.items()
    )
    shown = [
        Section("The comparison table, measured", text, [comparison(cards)]),
        Section("The text's words, one by one", "", table=Table(word_rows(cards))),
    ]
    for name, of_world in cards.items():
        series = [
            Series(family, counts, [of_world[family].curve[n] for n in counts], kind)
            for family, kind in zip(FAMILIES, ("classical", "learned", "learned"), strict=True)
            if (counts := [n for n in of_world[family].curve if n])
        ]
        limit = next(iter(of_world.values())).limit_db
        series.append(Series("limit", series[0].x, [limit] * len(series[0].x), "limit"))
        chart = line_chart(series, "pairs", "NMSE in dB", log_x=True)
        shown.append(Section(f"Errors by pairs, {name}", "", [chart], Table(curve_rows(of_world))))
        risks = "Risk: squared errors over those of the baseline under the same shift. Lost: NMSE against no shift."
        shown.append(Section(f"Every shift, {name}", risks, table=Table(shift_rows(of_world))))
    return shown
