"""What stored pairs say of their unknowns beside their values: what each is called, its unit and its limits."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.core.array_files import array_of, held_arrays, texts_of
from fanfold.core.arrays import tensor_of
from fanfold.core.csv_files import column_names, is_number, read_csv

LONGEST = 80  # letters of a name or a unit
OF_X = re.compile(r"^[xX][ _:.]+(?!\[)")  # before the name of an unknown, in a file whose other columns are y's
HEADER = re.compile(r"(.*\S)\s*\[(?!\d+\])(.*)\]")  # of a column, with its unit in brackets; h[0] has none
COUNT = re.compile(r"[xX][ _:.-]*[\[(]?\d*[\])]?")  # of a column that is named by its place alone: x1, x_1, x[0]


class Unknowns(NamedTuple):
    """Names, units and limits of the n unknowns; each is empty where nothing says it.

    Attributes:
        names: What each is called.
        units: The unit of each, empty text where it has none.
        limits: The least and the largest value of each, infinite where there is none.

    Example:
        >>> from fanfold.problems.unknowns import Unknowns
        >>> delay = Unknowns(("delay", "gain"), ("s", ""), ((0.0, 1.0), (0.0, float("inf"))))
        >>> delay.titles
        ('delay [s]', 'gain')
    """

    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    limits: tuple[tuple[float, float], ...] = ()

    @property
    def titles(self) -> tuple[str, ...]:
        """The names with their units in brackets, as the columns of a `.csv` are called; none without names."""
        units = self.units or ("",) * len(self.names)
        return tuple(f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, units, strict=True))

    @property
    def squared(self) -> tuple[str, ...]:
        """The names with the squares of their units, as the columns of variances are called."""
        units = self.units or ("",) * len(self.names)
        return Unknowns(self.names, tuple(unit and f"{unit}^2" for unit in units)).titles

    def called(self, count: int) -> tuple[str, ...]:
        """What each of so many unknowns is called: its name, or `x[0]`, `x[1]`, … where there are none."""
        return self.names or tuple(f"x[{place}]" for place in range(count))


def unknowns_in(path: Path) -> dict[str, Any]:
    """What a file of pairs says of its unknowns: names and units as texts, low and high as arrays.

    An `.npz` file has arrays `names`, `units`, `low` and `high`. A `.csv` file, or x.csv of a folder, names them by its
    columns, `delay [s]` with a unit in brackets, `x delay [s]` in one file; a folder may hold low.csv and
    high.csv, a row each.

    Raises:
        ValueError: If one of these cannot be read.
    """
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _of_tables(path)
    held = held_arrays(path)
    said: dict[str, Any] = {name: texts_of(path, name) for name in ("names", "units") if name in held}
    return said | {name: torch.as_tensor(array_of(path, name)) for name in ("low", "high") if name in held}


def _of_tables(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        titles = [title for title in column_names(path) if title.lower().startswith("x")]
        return _of_titles([OF_X.sub("", title) for title in titles]) or _of_titles(titles)
    said: dict[str, Any] = _of_titles(column_names(path / "x.csv"))
    for name in ("low", "high"):
        if (path / f"{name}.csv").is_file():
            said[name] = torch.as_tensor(read_csv(path / f"{name}.csv").values).flatten()
    return said


def _of_titles(titles: Sequence[str]) -> dict[str, Any]:
    """Names and units by what columns are called; none where that only counts them, or names no unknown by itself."""
    if all(is_number(title) or COUNT.fullmatch(title) for title in titles):
        return {}
    parts = [match.groups() if (match := HEADER.fullmatch(title)) else (title, "") for title in titles]
    names, units = zip(*parts)
    if len(set(names)) < len(names) or not all(_heads(name) for name in names) or not all(map(_is_text, units)):
        return {}
    return {"names": names} | ({"units": units} if any(units) else {})


def _heads(name: str) -> bool:
    """Whether a name can stand at the head of a column."""
    return bool(name.strip()) and not is_number(name) and _is_text(name)


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= LONGEST


def checked_unknowns(said: Mapping[str, Any], x: Tensor, where: str = "Pairs") -> Unknowns:
    """What is said of unknowns, once it fits them.

    Args:
        said: Sequences of text `names` and `units`, of numbers `low` and `high`, those that are there.
        x: The unknowns of all pairs, `(samples, n)`.
        where: What the pairs are called in an error.

    Raises:
        ValueError: If there is not one for each unknown, names repeat or cannot head a column, limits are none, are of
            complex unknowns, or a pair lies beyond them.
    """
    n = x.shape[-1]
    names, units = (_texts(where, kind, said.get(kind), n) for kind in ("names", "units"))
    for name in names:
        if not name or is_number(name):
            raise ValueError(f"{where}: names has {name!r}; give each unknown a name that is no number.")
        if names.count(name) > 1:
            raise ValueError(f"{where}: names has {name!r} {names.count(name)} times; give each unknown another name.")
    if units and not names:
        raise ValueError(f"{where}: there are units and no names; pass names too, one for each of {n} unknowns.")
    return Unknowns(names, units, _limits(where, said, x))


def _texts(where: str, kind: str, given: Any, n: int) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise ValueError(f"{where}: {kind} is {given!r}; pass a list of {n} texts.")
    texts = tuple(given)
    if len(texts) != n:
        raise ValueError(f"{where}: {kind} has {len(texts)} entries and x has {n} unknowns; pass one for each.")
    for text in texts:
        if not _is_text(text):
            raise ValueError(f"{where}: {kind} has {text!r}; pass printable text of at most {LONGEST} letters.")
    return tuple(str(text).strip() for text in texts)


def _limits(where: str, said: Mapping[str, Any], x: Tensor) -> tuple[tuple[float, float], ...]:
    """The least and the largest value of each unknown; none where neither is said."""
    n, said_of = x.shape[-1], [said.get(end) for end in ("low", "high")]
    if all(given is None for given in said_of):
        return ()
    if x.is_complex():
        raise ValueError(f"{where}: low and high are of real unknowns, and x is {x.dtype}; leave them out.")
    low, high = _ends(where, "low", said_of[0], n, -math.inf), _ends(where, "high", said_of[1], n, math.inf)
    if not (low < high).all():
        place = int((~(low < high)).nonzero()[0])
        raise ValueError(f"{where}: low[{place}] is {low[place]:g} and high[{place}] {high[place]:g}; pass low < high.")
    beyond = (x < low.to(x.dtype)) | (x > high.to(x.dtype))  # what lies on a limit, does so in the precision of x
    if beyond.any():
        row, place = beyond.nonzero()[0].tolist()
        raise ValueError(
            f"{where}: x is {x[row, place]:g} at index ({row}, {place}) and its limits are {low[place]:g} and "
            f"{high[place]:g}; widen them, or leave the pair out."
        )
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _ends(where: str, end: str, given: Any, n: int, otherwise: float) -> Tensor:
    """The limits at one end in double precision, `(n,)`; no limits where none are given."""
    if given is None:
        return torch.full((n,), otherwise, dtype=torch.float64)
    if isinstance(given, list | tuple):
        try:
            given = np.array(given, float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: {end} has an entry that is no number; pass {n}, infinite for no limit."
            ) from error
    values = tensor_of(given, end).detach().cpu()
    if values.is_complex():
        raise ValueError(f"{where}: {end} is {values.dtype}; pass real numbers.")
    values = values.double()
    if values.shape != (n,):
        raise ValueError(
            f"{where}: {end} has shape {tuple(values.shape)} and x has {n} unknowns; pass ({n},), infinite where there "
            "is no limit."
        )
    if values.isnan().any():
        raise ValueError(f"{where}: {end} is nan at index {int(values.isnan().nonzero()[0])}; pass inf for none.")
    return values
