"""Numbers in `.csv` files, real or complex, as spreadsheets and other programs write them."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from fanfold.core.data_files import regular_file

DELIMITERS = ";\t,"
QUOTED = re.compile(r'"[^"]*"')  # within which a delimiter parts nothing


class Columns(NamedTuple):
    """What a file holds: a sample in each row.

    Attributes:
        names: Names of the columns, empty where the first row is one of numbers.
        values: `(rows, columns)`, in double precision, real where no number has an imaginary part.
    """

    names: tuple[str, ...]
    values: np.ndarray

    def named(self, letter: str) -> np.ndarray | None:
        """The columns whose names begin with a letter, such as x1, x2, …; None if there are none."""
        places = [i for i, name in enumerate(self.names) if name.lower().startswith(letter)]
        return _real_where_it_is(self.values[:, places]) if places else None


def read_csv(path: Path) -> Columns:
    r"""The numbers of a file; complex ones are written `1+2j` or `1+2i`.

    Columns are parted by commas, semicolons or tabs; beside semicolons, commas are decimal points. A first row that
    begins with a word, or that counts 0, 1, 2, …, names the columns.

    Raises:
        ValueError: If it cannot be read, by the row and the column that holds no number.

    Example:
        >>> import pathlib, tempfile
        >>> from fanfold.core.csv_files import read_csv
        >>> path = pathlib.Path(tempfile.mkdtemp(), "y.csv")
        >>> _ = path.write_text("y1,y2\n1,2+3i\n")
        >>> read_csv(path)
        Columns(names=('y1', 'y2'), values=array([[1.+0.j, 2.+3.j]]))
    """
    names, rows, delimiter = _table(path)
    return Columns(names, _values(path, rows, bool(names), delimiter))


def column_names(path: Path) -> tuple[str, ...]:
    """The names of the columns, as `read_csv` gives them, without the work of reading the numbers."""
    return _table(path)[0]


def _table(path: Path) -> tuple[tuple[str, ...], list[list[str]], str]:
    """The names of the columns, all rows as text, and what parts their cells."""
    try:
        text = regular_file(path).read_text(encoding="utf-8-sig")
        first = QUOTED.sub("", text.split("\n", 1)[0])
        delimiter = next((mark for mark in DELIMITERS if mark in first), ",")
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error.reason}); save it as .csv in UTF-8, or as .npy.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table of comma-separated values: {error}.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    names = tuple(cell.strip() for cell in rows[0]) if rows and _names_columns(rows[0], delimiter) else ()
    if names and not names[0]:
        raise ValueError(f"{path}: the first column has no name; is it an index? Write the table without one.")
    if not rows[bool(names) :]:
        raise ValueError(f"{path} holds no numbers.")
    return names, rows, delimiter


def _names_columns(row: list[str], delimiter: str) -> bool:
    counted = [str(place) for place in range(len(row))]  # as pandas names columns that have no names
    return _number(row[0], delimiter) is None or (len(row) > 2 and row == counted)


def _values(path: Path, rows: list[list[str]], named: bool, delimiter: str) -> np.ndarray:
    values = np.empty((len(rows) - named, len(rows[0])), complex)
    for i, row in enumerate(rows[named:]):
        if len(row) != len(rows[0]):
            place = f"{path}: row {i + 1 + named}"
            raise ValueError(f"{place} has {len(row)} columns and the first {len(rows[0])}; give all rows the same.")
        for j, cell in enumerate(row):
            number = _number(cell, delimiter)
            if number is None:
                place = f"{path}: row {i + 1 + named}, column {j + 1}"
                raise ValueError(f"{place} holds {cell.strip()[:40]!r}, which is no number.")
            values[i, j] = number
    return _real_where_it_is(values)


def _real_where_it_is(values: np.ndarray) -> np.ndarray:
    return values.real.copy() if np.isrealobj(values) or not values.imag.any() else values


def _number(cell: str, delimiter: str) -> complex | None:
    text = cell.replace(" ", "").strip("()")
    if text.endswith(("i", "I", "J")):
        text = text[:-1] + "j"
    try:
        return complex(text.replace(",", ".") if delimiter == ";" else text)
    except ValueError:
        return None


def is_number(text: str) -> bool:
    """Whether a file would take a text for a number, and not for the name of a column."""
    return _number(text, ",") is not None


def write_csv(file: IO[bytes], rows: np.ndarray, names: Sequence[str] = ()) -> None:
    """Write numbers `(rows, columns)` so that they are read again bit for bit, below the names of columns if any."""
    if names:
        header = io.StringIO()
        quoting = csv.QUOTE_ALL if any(mark in name for mark in DELIMITERS for name in names) else csv.QUOTE_MINIMAL
        csv.writer(header, lineterminator="\n", quoting=quoting).writerow(names)
        file.write(header.getvalue().encode())
    for row in rows:
        file.write((",".join(_text(value) for value in row.tolist()) + "\n").encode())


def _text(value: complex | float) -> str:
    return repr(value).strip("()")
