"""The user's own pairs of signals and measurements, from an `.npz` file, from `.csv` files or from arrays."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from fanfold.core.array_files import array_of, held_arrays
from fanfold.core.csv_files import read_csv
from fanfold.core.data_files import regular_file
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Described
from fanfold.problems.kinds import Kind
from fanfold.problems.pair_arrays import ARRAYS, HandedOver, PairArrays, check_shapes, checked_pairs, tensors_of
from fanfold.problems.unknowns import Unknowns, checked_unknowns, unknowns_in

Part = Literal["train", "test"]


@dataclass(frozen=True)
class FromFile(Described):
    """A problem whose pairs are stored.

    A draw picks pairs at random, with replacement; of the test part each once, and at most all. The last
    `held_out_share` of the pairs is kept for validation and testing: `part="test"` draws from there alone. A subclass
    says how they are read: `Pairs` from a file, `Simulations` from a store.

    Raises:
        ValueError: If there are too few pairs for both parts, or they cannot be read.
    """

    measured: ClassVar[bool] = True  # no setting changes the SNR of what is stored

    path: str | None
    part: Part = "train"
    held_out_share: float = 0.2  # share of the pairs, from the end, that is kept for tests

    def __post_init__(self):
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; pass a share between 0 and 1.")
        self.rows()

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """Where the pairs are stored."""
        return [settings["path"]]

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802
        """The stored operator, if any."""
        return self._stored().A

    @property
    def noise_var(self) -> Tensor | None:
        """The stored noise variance, if there is one for all samples."""
        var = self._stored().noise_var
        return None if var is None or var.ndim else var

    @property
    def unknowns(self) -> Unknowns:
        """What the pairs say of their unknowns: names, units and limits."""
        return self._stored().unknowns

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the largest value of each unknown; empty where the pairs do not say."""
        return self._stored().unknowns.limits

    def rows(self) -> range:
        """The places of the samples that this part holds."""
        return rows_of(self.part, len(self._stored().x), self.held_out_share, self.path or "the pair of arrays")

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs of this part, picked at random."""
        stored = self._stored()
        pick, var = pick_rows(self.part, self.rows(), n, generator), stored.noise_var
        if var is not None and var.ndim:
            var = var[pick]
        return stored.x[pick], Observation(stored.y[pick], stored.A, var)

    @property
    def reading(self) -> str:
        """What was read, in words."""
        stored = self._stored()
        x, y = (" x ".join(map(str, array.shape[1:])) for array in (stored.x, stored.y))
        operator = "no A" if stored.A is None else f"A {stored.A.m} x {stored.A.n}"
        parts = f"{len(self.rows())} pairs to {self.part}, of {len(stored.x)}"
        return f"{self.path or 'arrays'}: {parts}; {x} unknowns x, {y} measurements y, {operator}"

    @property
    def doubt(self) -> str | None:
        """None: what does not fit is refused."""
        return None

    def every(self) -> tuple[Tensor, Observation]:
        """All pairs of this part, each once."""
        stored, rows = self._stored(), slice(self.rows().start, self.rows().stop)
        var = stored.noise_var
        return stored.x[rows], Observation(stored.y[rows], stored.A, var[rows] if var is not None and var.ndim else var)

    def held_out(self) -> Self:
        """The same pairs' part that is kept for testing."""
        return self.shifted(part="test")

    @abstractmethod
    def _stored(self) -> PairArrays: ...


@dataclass(frozen=True, init=False)
class Pairs(FromFile):
    """Stored pairs: arrays `x` (samples, n), `y` (samples, m), optionally `A` (m, n) and `noise_var`.

    They come from an `.npz` file with arrays of these names; from a `.csv` whose columns are named x1, x2, …, y1, y2,
    …; from a folder with x.csv, y.csv and, where there is one, A.csv, with a first row of names or without, complex
    numbers as `1+2j`; or they are handed over: `Pairs(x=..., y=..., A=...)`.

    `noise_var` is `E|w|²`, one number or one for each sample, `(samples, 1)`. Observations that are no vectors say so
    by their `kind`: sequences `(samples, channels, length)`, images `(samples, channels, h, w)`, sets
    `(samples, count, features)`; these have no A and at most one noise variance for all.

    What x holds may be named: `names` and `units`, a text for each unknown, stand in tables, reports and the first rows
    of `.csv` files; `low` and `high` are limits that no estimate of the default `ff.neural`, and no interval around it,
    leaves. In `.csv` files the first row names the unknowns, `delay [s]` with a unit, `x delay [s]` where y's stand
    beside, unless it counts them, x1, x2, …; a folder may hold low.csv and high.csv.

    A draw picks pairs at random, with replacement; of the test part each once, and at most all. The last
    `held_out_share` of the pairs is kept for validation and testing: `part="test"` draws from there alone. A run that
    was trained on arrays keeps their hash, and asks for them by `problem=` where it needs them again.

    Args:
        path: An `.npz` or `.csv` file, or a folder of `.csv` files.
        part: The part that is drawn from.
        held_out_share: The share of the pairs, from the end, that is kept for tests.
        kind: What one observation is.
        arrays: What copies of these pairs share; made of the following.
        x: Signals, instead of a file: a numpy array or a torch tensor.
        y: Their measurements, in the same precision.
        A: A matrix, dense or of scipy's sparse ones, or an operator.
        noise_var: A number, or an array of shape `(samples, 1)`.
        names: What each unknown is called, n texts.
        units: The unit of each, n texts.
        low: The least value that each can have, `(n,)`; minus infinity where there is none.
        high: The largest one.

    Raises:
        ValueError: If the file cannot be read, the arrays do not fit, there are too few pairs for both parts, or there
            is neither a file nor arrays.

    Example:
        >>> import fanfold as ff, numpy as np
        >>> problem = ff.problems.Pairs(x=np.ones((10, 3)), y=np.ones((10, 2)))
        >>> problem.rows(), problem.held_out().rows()
        (range(0, 8), range(8, 10))
    """

    path: str | None = None
    kind: Kind = "vector"  # what one observation is
    arrays: object = field(default=None, repr=False, metadata={"described": False})  # `HandedOver`, instead of a file

    def __init__(
        self,
        path: str | None = None,
        part: Part = "train",
        held_out_share: float = 0.2,
        kind: Kind = "vector",
        arrays: object = None,
        *,
        x: Any = None,
        y: Any = None,
        A: Any = None,
        noise_var: Any = None,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        low: Any = None,
        high: Any = None,
    ):
        given = {"x": x, "y": y, "A": A, "noise_var": noise_var}
        said = {"names": names, "units": units, "low": low, "high": high}
        if any(value is not None for value in (given | said).values()):
            if path is not None or arrays is not None:
                raise ValueError(
                    "Pairs takes a file or arrays, not both: leave out path, or x and y; names and limits of a file "
                    "stand in it."
                )
            pairs = checked_pairs(tensors_of(given), kind)
            arrays = HandedOver(pairs._replace(unknowns=checked_unknowns(said, pairs.x)), kind)
        elif path is None and arrays is None:
            raise ValueError("Pairs takes a file of pairs, path, or in Python arrays, x= and y=; there is neither.")
        elif isinstance(arrays, HandedOver) and arrays.kind != kind:
            check_shapes(arrays.pairs.x, arrays.pairs.y, kind)
        fields = (path, part, held_out_share, kind, arrays)
        for name, value in zip(("path", "part", "held_out_share", "kind", "arrays"), fields, strict=True):
            object.__setattr__(self, name, value)
        self.__post_init__()

    @property
    def handed_over(self) -> bool:
        """Whether there are arrays instead of a file."""
        return isinstance(self.arrays, HandedOver)

    @property
    def fingerprint(self) -> str | None:
        """The hash of arrays that were handed over; None of a file, which may grow."""
        return self.arrays.fingerprint if isinstance(self.arrays, HandedOver) else None

    def _stored(self) -> PairArrays:
        if isinstance(self.arrays, HandedOver):
            return self.arrays.pairs
        path = Path(self.path or "")
        if not self.path:
            raise ValueError("path is empty; pass an .npz or .csv file with arrays x and y.")
        if not path.is_dir():
            regular_file(path, f"there is no file {path}; pass an .npz or .csv file with arrays x and y.")
        return _read(path.resolve(), _changed(path), self.kind)


def rows_of(part: Part, samples: int, held_out_share: float, path: str) -> range:
    """The places of the pairs that a part holds, of so many: the last share of them is for testing.

    Raises:
        ValueError: If there are too few for both parts.
    """
    held_out = max(1, round(held_out_share * samples))
    if held_out >= samples:
        raise ValueError(f"{path} holds {samples} pairs: too few to train on some and test on others.")
    return range(samples - held_out) if part == "train" else range(samples - held_out, samples)


def pick_rows(part: Part, rows: range, n: int, generator: torch.Generator) -> Tensor:
    """`n` rows at random with replacement; of the test part each once at most: repeats would pass for fresh draws."""
    if part == "test":
        return rows.start + torch.randperm(len(rows), generator=generator)[:n]
    return rows.start + torch.randint(len(rows), (n,), generator=generator)


def load_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays x and y of an `.npz` file or of `.csv` files, and A and noise_var where they are there.

    Raises:
        ValueError: If the file cannot be read, holds anything but plain arrays, or has no x or no y.
    """
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _tables(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path} is no .npz or .csv file; store arrays x and y with numpy.savez.")
    names = held_arrays(path)
    arrays = {name: torch.as_tensor(array_of(path, name)) for name in ARRAYS if name in names}
    missing = {"x", "y"} - set(arrays)
    if missing:
        raise ValueError(f"{path} has no array {' or '.join(sorted(missing))}; it has {', '.join(names) or 'none'}.")
    return arrays


def _tables(path: Path) -> dict[str, Tensor]:
    """The arrays of a folder of `.csv` files, named after them, or of one file by the names of its columns."""
    if path.is_dir():
        files = {name: path / f"{name}.csv" for name in ARRAYS}
        tables = {name: read_csv(file).values for name, file in files.items() if file.is_file()}
    else:
        columns = read_csv(path)
        parts = {name: columns.named(name) for name in ("x", "y", "noise_var")}
        tables = {name: part for name, part in parts.items() if part is not None}
    if missing := {"x", "y"} - set(tables):
        raise ValueError(
            f"{path} has no {' and no '.join(sorted(missing))}: name the columns of a .csv file x1, x2, …, y1, y2, … "
            "in its first row, or pass a folder that holds x.csv and y.csv (and A.csv)."
        )
    return {name: torch.as_tensor(table) for name, table in tables.items()}


def _changed(path: Path) -> int:
    """When a file, or what a folder of tables holds, was last written, in nanoseconds."""
    return max(file.stat().st_mtime_ns for file in (path, *path.glob("*.csv")))


@lru_cache(maxsize=4)
def _read(path: Path, modified_ns: int, kind: Kind) -> PairArrays:
    pairs = checked_pairs(load_arrays(path), kind, str(path))
    return pairs._replace(unknowns=checked_unknowns(unknowns_in(path), pairs.x, str(path)))
