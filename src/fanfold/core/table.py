"""A tidy table: one row a measurement, one column a variable."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from fanfold.core.files import write_whole

HUGE = 1e6  # from which on three digits of a number say more than two places behind its point


@dataclass(frozen=True)
class Table:
    """Rows as dictionaries with the same keys; None is a missing value.

    Example:
        >>> from fanfold.core.table import Table
        >>> print(Table([{"estimator": "ISTA", "nmse_db": -12.5}, {"estimator": "OAMP", "nmse_db": -38.2}]))
        estimator  nmse_db
        ISTA        -12.50
        OAMP        -38.20
    """

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.rows[0]) if self.rows else []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, **values: Any) -> "Table":
        """The rows whose columns have these values."""
        return Table([row for row in self.rows if all(row[k] == v for k, v in values.items())])

    def last_layers(self) -> "Table":
        """The last row of each estimator and condition, which is of the estimate that it returns."""
        last: dict[tuple, dict[str, Any]] = {}
        for row in self.rows:
            last[tuple(v for k, v in row.items() if k in ("estimator", *self._conditions()))] = row
        return Table(list(last.values()))

    def _conditions(self) -> list[str]:
        return self.columns[1 : self.columns.index("layer")]  # what stands beyond is measured

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as comma-separated values, also written to `path` if one is given, whole or not at all."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return _written(out.getvalue(), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """The rows as a JSON list, written to `path` if one is given; what JSON lacks (infinity, NaN) becomes null."""
        return _written(json.dumps(plain(self.rows), indent=1), path)

    def dataframe(self):
        """The table as a pandas DataFrame.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Table.dataframe needs pandas: pip install pandas") from error
        return pd.DataFrame(self.rows)

    def __str__(self) -> str:
        return as_text(self.columns, [[row[c] for c in self.columns] for row in self.rows])


def plain(value: Any) -> Any:
    """The value as strict JSON holds it, at any depth.

    Numbers that JSON lacks (infinity, NaN) are None; what it has no type for, such as a path, is text.
    """
    match value:
        case None | bool():
            return value
        case Integral():
            return int(value)
        case Real():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {_readable(str(key)): plain(part) for key, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
        case _:
            return _readable(str(value))


def _readable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of file names that are none become question marks."""
    return text.encode(errors="replace").decode()


def as_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The rows as aligned columns for a terminal."""
    cells = [list(columns), *([_cell(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if HUGE <= abs(value) < math.inf else f"{value:.2f}"


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_whole(Path(path), text.encode())
    return text
