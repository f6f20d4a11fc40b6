"""What shifts do to an estimator, cell by cell, and the worst of it in one sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanfold.core.table import Table

WORST_SHARE = 0.25  # of the cells, whose mean risk is the conditional value at risk


@dataclass(frozen=True)
class Ratio:
    """A ratio of summed errors, with its 95 % interval by the delta method over independent draws.

    Where the variance of errors is infinite, as of heavy tails, the interval is too short.

    Example:
        >>> from fanfold.guard.shifts.shift_cells import Ratio
        >>> Ratio(1.2, 1.1, 1.3).low > 1
        True
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ShiftCell:
    """What one shift does; the cell of no shift has the family "none".

    Errors are NMSE in dB, ratios of sums over the calls of the cell. A risk is a ratio of summed squared errors.

    Attributes:
        family: What changes.
        severity: How far, with its unit.
        seen: Whether the law of the observation changes at all.
        untouched: Whether nothing was tuned on the family.
        calls: How many draws there are.
        network_db: The error of the estimator.
        baseline_db: That of the baseline.
        guarded_db: That of the guarded estimator, over its calls in order from a fresh start; None without one.
        peers_db: Those of the peers by name, on the first draws.
        limit_db: What no estimator passes, where it is known.
        risk: The estimator's errors over the baseline's.
        guarded_risk: The guarded estimator's errors over the baseline's.
        detected: The share of calls with p-values up to the alarm's rate; None without a monitor.
        alarmed_after: The call at which the martingale alarms; None if it never does.
        delay: The call of the first alarm of CUSUM; None if there is none.
        in_fallback: The share of calls in which the baseline had the larger weight.
        specialist_db: The error of the same network after some more steps of training on what the cell draws from;
            None where none was trained.

    Example:
        >>> from fanfold.guard.shifts.shift_cells import Ratio, ShiftCell
        >>> same = Ratio(1.0, 1.0, 1.0)
        >>> cell = ShiftCell("gain", "x3", True, False, 100, -20.0, -20.0, None, {}, None, same, None, 0.5, 4, 2, None)
        >>> cell.harmful, cell.benign_alarm
        (False, True)
    """

    family: str
    severity: str
    seen: bool
    untouched: bool
    calls: int
    network_db: float
    baseline_db: float
    guarded_db: float | None
    peers_db: Mapping[str, float]
    limit_db: float | None
    risk: Ratio
    guarded_risk: Ratio | None
    detected: float | None
    alarmed_after: int | None
    delay: int | None
    in_fallback: float | None
    specialist_db: float | None = None

    @property
    def shifted(self) -> bool:
        """Whether there is a shift."""
        return self.family != "none"

    @property
    def harmful(self) -> bool:
        """Whether the estimator errs more than the baseline."""
        return not self.risk.value <= 1

    @property
    def benign_alarm(self) -> bool:
        """Whether an alarm over time was raised at a shift where the estimator is no worse than the baseline."""
        return self.shifted and self.alarmed_after is not None and not self.harmful

    def row(self) -> dict[str, Any]:
        """The cell in one row of plain values."""
        risks = {"risk": self.risk, "guarded_risk": self.guarded_risk}
        parts = {
            f"{name}{end}": None if ratio is None else vars(ratio)[part]
            for name, ratio in risks.items()
            for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        named = ("family", "severity", "seen", "untouched", "calls", "network_db", "baseline_db", "guarded_db")
        late = ("detected", "alarmed_after", "delay", "in_fallback")
        row = {name: vars(self)[name] for name in named} | {f"{name}, dB": v for name, v in self.peers_db.items()}
        row |= (
            {"specialist_db": self.specialist_db, "limit_db": self.limit_db}
            | parts
            | {name: vars(self)[name] for name in late}
        )
        return row | {"benign_alarm": self.benign_alarm}


SHOWN = (
    "family", "severity", "network_db", "baseline_db", "guarded_db", "specialist_db", "limit_db", "risk",
    "guarded_risk", "detected", "alarmed_after", "in_fallback",
)  # fmt: skip


@dataclass(frozen=True)
class ShiftTable:
    """What every shift does to an estimator; made by `shift_table`.

    Attributes:
        cells: The cells, that of no shift first.
        baseline: What the baseline is called.
        alarm: The rate of false alarms of the monitor; None without one.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 5), ff.iterate(ff.algorithms.FISTA(lam=0.1), 50)
        >>> table = ff.guard.shift_table(net, problem, baseline=safe, peers={}, calls=50)
        >>> len(table.cells) == 1 + len(ff.guard.shifts(problem)), table.worst.risk.value > 1
        (True, True)
    """

    cells: Sequence[ShiftCell]
    baseline: str
    alarm: float | None = None

    @property
    def shifted(self) -> list[ShiftCell]:
        """The cells with a shift."""
        return [cell for cell in self.cells if cell.shifted]

    @property
    def worst(self) -> ShiftCell:
        """The cell of the largest risk: of the guarded estimator where there is one."""
        return max(self.shifted, key=lambda cell: self._risk(cell).value)

    def cvar(self, *, guarded: bool = False) -> float:
        """The mean risk of the worst quarter of the cells, of the estimator or of the guarded one."""
        risks = [cell.guarded_risk if guarded else cell.risk for cell in self.shifted]
        values = sorted((risk.value for risk in risks if risk is not None), reverse=True)
        count = max(1, math.ceil(WORST_SHARE * len(values)))
        return sum(values[:count]) / count if values else math.nan

    def _risk(self, cell: ShiftCell) -> Ratio:
        return cell.risk if cell.guarded_risk is None else cell.guarded_risk

    @property
    def summary(self) -> dict[str, Any]:
        """The worst cells, the mean of the worst quarter and what the alarms were worth, as plain values."""
        shifted = self.shifted
        worst = max(shifted, key=lambda cell: cell.risk.value)
        summary: dict[str, Any] = {
            "baseline": self.baseline,
            "cells": len(shifted),
            "harmful": sum(cell.harmful for cell in shifted),
            "worst": f"{worst.family}, {worst.severity}",
            "worst_risk": worst.risk.value,
            "cvar_risk": self.cvar(),
        }
        if self.worst.guarded_risk is not None:
            summary["worst_guarded"] = f"{self.worst.family}, {self.worst.severity}"
            summary["worst_guarded_risk"] = self.worst.guarded_risk.value
            summary["cvar_guarded_risk"] = self.cvar(guarded=True)
        if self.alarm is not None:
            summary["alarm"] = self.alarm
            alarmed = [cell for cell in shifted if cell.alarmed_after is not None]
            summary["harmful_alarmed"] = sum(cell.harmful for cell in alarmed)
            summary["harmful_unseen"] = sum(cell.harmful and not cell.seen for cell in shifted)
            summary["benign_alarms"] = sum(cell.benign_alarm for cell in shifted)
        return summary

    @property
    def verdict(self) -> str:
        """The summary in sentences."""
        s = self.summary
        text = (
            f"Of {s['cells']} shifts {s['harmful']} make the network worse than {s['baseline']}; at worst "
            f"({s['worst']}) its risk is {_times(s['worst_risk'])} times as large, in the worst quarter "
            f"{_times(s['cvar_risk'])} times on average."
        )
        if "worst_guarded" in s:
            text += (
                f" Guarded, it is {_times(s['worst_guarded_risk'])} times as large at worst ({s['worst_guarded']}) and "
                f"{_times(s['cvar_guarded_risk'])} times in the worst quarter."
            )
        if self.alarm is not None:
            text += (
                f" At a false-alarm rate of {self.alarm:g} the monitor alarmed at {s['harmful_alarmed']} of the "
                f"{s['harmful']} harmful shifts ({s['harmful_unseen']} of them change nothing that it could see), and "
                f"at {s['benign_alarms']} that did no harm."
            )
        return text

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row of plain values for each cell."""
        return [cell.row() for cell in self.cells]

    @property
    def table(self) -> Table:
        """What people look at first: the columns that have something to say."""
        kept = [name for name in SHOWN if any(row[name] is not None for row in self.rows)]
        return Table([{name: row[name] for name in kept} for row in self.rows])

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data: rows, summary and verdict."""
        return {"rows": self.rows, "summary": self.summary, "verdict": self.verdict}

    def markdown(self) -> str:
        """The table as text with bars between its columns."""
        shown = self.table
        lines = [shown.columns, ["---"] * len(shown.columns)]
        lines += [[_words(row[name]) for name in shown.columns] for row in shown]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _times(ratio: float) -> str:
    """A ratio to three digits, but for what is close to one."""
    return f"{ratio:.3f}" if 0.9 < ratio < 1.1 else f"{ratio:.0f}" if 1000 <= ratio < 1e6 else f"{ratio:.3g}"


def _words(value: Any) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
