"""What a release was measured to be: results with their intervals, limits and verdicts, and the certificate of all."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from fanfold.core.annotations import MisfitError, fitting, shown
from fanfold.core.table import Table, plain

SCHEMA = 1  # of certificate.json
Sense = Literal["at most", "at least", "not clearly above"]
PASS, FAIL, UNJUDGED = "PASS", "FAIL", "not judged"
WORDS = {True: PASS, False: FAIL, None: UNJUDGED}


class ReleaseResult(NamedTuple):
    """One measured value, held against its limit.

    Attributes:
        what: What was measured.
        cell: Where: settings of the problem and their values; empty where it is of the release as a whole.
        unit: Of the value.
        value: What was measured; None where it could not be.
        low, high: Its 95 % interval, or the fastest and the slowest round of a latency; None where it has none.
        limit: What it has to meet; None where nothing is asked.
        sense: Whether the limit is the most or the least that may be, which the worse end of the interval has to meet;
            or what the whole interval must not be above.
        note: Why there is no value, or how it was measured.

    Example:
        >>> from fanfold.deploy.release import ReleaseResult
        >>> ReleaseResult("NMSE", {"snr_db": 20.0}, "dB", value=-15.2, low=-15.6, high=-14.8, limit=-15.0).passed
        False
    """

    what: str
    cell: Mapping[str, Any]
    unit: str
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    sense: Sense = "at most"
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the limit is met; None where there is none. A limit without a value fails."""
        if self.limit is None:
            return None
        if self.value is None or math.isnan(self.value):
            return False
        if self.sense == "at most":
            return (self.value if self.high is None else self.high) <= self.limit
        least = self.value if self.low is None else self.low
        return least >= self.limit if self.sense == "at least" else least <= self.limit

    @property
    def where(self) -> str:
        """The cell in words."""
        return ", ".join(f"{name} {value}" for name, value in self.cell.items())

    def as_row(self) -> dict[str, Any]:
        """The row of a table, with its verdict."""
        limit = None if self.limit is None else f"{self.sense} {digits(self.limit, 6)}"
        return {
            "what": self.what, "cell": self.where, "unit": self.unit, "value": self.value, "low": self.low,
            "high": self.high, "limit": limit, "verdict": WORDS[self.passed], "note": self.note,
        }  # fmt: skip


def digits(value: float, count: int) -> str:
    """A number in so many digits; one that is whole by its type, such as bytes, in all of its."""
    return str(value) if isinstance(value, int) else f"{value:.{count}g}"


INTERVALS = (
    "Intervals are of 95 %, that of a latency from the fastest round to the slowest; "
    "the worse end has to meet the limit."
)
KINDS: dict[str, Any] = {
    "what": str, "cell": Mapping[str, Any], "unit": str, "value": float | None, "low": float | None,
    "high": float | None, "limit": float | None, "sense": Sense, "note": str,
}  # fmt: skip
PARTS: dict[str, Any] = {
    "life_cycle": Mapping[str, str], "facts": Mapping[str, Any], "hashes": Mapping[str, str | None],
    "host": Mapping[str, Any], "moved": tuple[str, ...],
}  # fmt: skip


class ReleaseCertificate(NamedTuple):
    """The certificate of a release: what it is, what it was made of, and whether it meets its profile.

    It says nothing of the convergence of an algorithm, of which `ff.bounds.certify` gives the convergence certificate.

    Attributes:
        life_cycle: Functionality, applicable conditions, model ID, monitoring, activation and fallback, in words.
        facts: What was released: the problem, the network, its domain and its draws, when, and by which versions.
        hashes: SHA-256 of weights, code, config and golden vectors; and of operator and data, where there are some.
        host: The machine that measured.
        results: All that was measured.
        moved: What is other than in the release before, in sentences.

    Example:
        >>> from fanfold.deploy.release import ReleaseCertificate, ReleaseResult
        >>> fast = ReleaseResult("latency", {}, "µs", value=80.0, limit=100.0)
        >>> ReleaseCertificate({"model_id": "sparse-1"}, {}, {}, {}, (fast,)).passed
        True
    """

    life_cycle: Mapping[str, str]
    facts: Mapping[str, Any]
    hashes: Mapping[str, str | None]
    host: Mapping[str, Any]
    results: tuple[ReleaseResult, ...]
    moved: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no result fails."""
        return all(result.passed is not False for result in self.results)

    @property
    def verdict(self) -> str:
        """How it came out, in a sentence."""
        failed = [result for result in self.results if result.passed is False]
        judged = sum(result.passed is not None for result in self.results)
        name = self.life_cycle.get("model_id", "the release")
        if not judged:
            return f"{name}: nothing was judged, as the profile sets no limit."
        if not failed:
            return f"{PASS}: {name} meets all of its {judged} limits."
        first = failed[0]
        place = f" at {first.where}" if first.cell else ""
        return f"{FAIL}: {name} misses {len(failed)} of its {judged} limits, the first of them {first.what}{place}."

    @property
    def table(self) -> Table:
        """The results as rows."""
        return Table([result.as_row() for result in self.results])

    def as_json(self) -> bytes:
        """The certificate as JSON."""
        data = {"schema": SCHEMA, "passed": self.passed, "verdict": self.verdict, **self._asdict()}
        data["results"] = [{**result._asdict(), "passed": result.passed} for result in self.results]
        return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False).encode()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ReleaseCertificate":
        """What `as_json` wrote.

        Raises:
            ValueError: If it is no such certificate, or its verdicts do not follow from its values.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"the certificate has schema {data.get('schema')!r}; this fanfold reads {SCHEMA}.")
        parts = {name: _fitting(data, name, kind) for name, kind in PARTS.items()}
        certificate = cls(**parts, results=tuple(map(_result, _rows(data))))
        said = [row.get("passed") for row in data["results"]]
        if data.get("passed") is not certificate.passed or said != [result.passed for result in certificate.results]:
            raise ValueError("the verdicts of the certificate do not follow from its values and limits.")
        return certificate


def _rows(data: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    rows = data.get("results")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("the certificate has no list of results.")
    return rows


def _result(row: Mapping[str, Any]) -> ReleaseResult:
    return ReleaseResult(**{name: _fitting(row, name, kind) for name, kind in KINDS.items()})


def _fitting(data: Mapping[str, Any], name: str, kind: Any) -> Any:
    try:
        return fitting(data.get(name), kind)
    except MisfitError:
        raise ValueError(f"the certificate's {name} is {str(data.get(name))[:40]!r}; it is {shown(kind)}.") from None
