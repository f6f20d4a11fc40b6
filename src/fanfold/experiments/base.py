"""What a published experiment returns: goals with what was measured, and the sections of its report."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fanfold.core.table import Table, plain
from fanfold.report.page import Section

CAVEAT = "do not trust the networks at another matrix, sparsity or SNR without evaluating there"


@dataclass(frozen=True)
class Goal:
    """A number to reach: `value` must be at most, at least or within `tolerance` of `target`."""

    what: str
    unit: str
    relation: Literal["<=", ">=", "="]
    target: float
    value: float
    ci: float | None = None
    tolerance: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the goal is reached."""
        if self.relation == "<=":
            return self.value <= self.target
        if self.relation == ">=":
            return self.value >= self.target
        return abs(self.value - self.target) <= self.tolerance

    def row(self) -> dict[str, Any]:
        """As it is printed and stored."""
        wanted = f"{self.relation} {self.target:g}" + (f" ± {self.tolerance:g}" if self.relation == "=" else "")
        return {
            "what": self.what,
            "unit": self.unit,
            "goal": wanted,
            "value": self.value,
            "ci": self.ci,
            "pass": self.passed,
        }


def mean_goal(
    what: str, unit: str, relation: Any, target: float, values: Sequence[float], tolerance: float = 0.0
) -> Goal:
    """A goal for the mean over matrices, with its 95 % interval."""
    ci = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Goal(what, unit, relation, target, statistics.mean(values), ci, tolerance)


@dataclass(frozen=True)
class Study:
    """The outcome of an experiment."""

    name: str
    claim: str
    verdict: str
    seconds: float
    goals: Sequence[Goal]
    sections: Sequence[Section] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    records: Mapping[str, Any] = field(default_factory=dict)  # plain data by file name, kept beside the page as JSON

    @property
    def passed(self) -> bool:
        """Whether every goal is reached."""
        return all(goal.passed for goal in self.goals)

    def table(self) -> Table:
        """The goals as rows."""
        return Table([goal.row() for goal in self.goals])

    def as_json(self) -> dict[str, Any]:
        """One object, as `fanfold reproduce --json` prints it."""
        return {"name": self.name, "seconds": round(self.seconds, 1), "rows": plain(self.table().rows)}
