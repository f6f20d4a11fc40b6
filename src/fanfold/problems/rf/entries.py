"""Reading one table of a user's TOML file, so that every mistake is named with its place."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.core.array_files import array_of
from fanfold.core.data_files import beside, regular_file
from fanfold.core.suggest import did_you_mean

MOST_ENTRIES = 2**25  # of a factor or a wave field: half a gigabyte


class Entries:
    """One table of the file. Its keys are taken one by one; `done` refuses what nobody took.

    Args:
        where: What errors call the place.
        values: The keys and their values.
        folder: The folder that names of files start from.

    Example:
        >>> import pathlib
        >>> from fanfold.problems.rf.entries import Entries
        >>> table = Entries("array.toml, axis 1", {"voxels": 5}, pathlib.Path("."))
        >>> table.count("voxels")
        5
    """

    def __init__(self, where: str, values: dict[str, Any], folder: Path):
        self.where, self._values, self._folder, self._taken = where, values, folder, []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def wrong(self, message: str) -> ValueError:
        """An error that says where in the file something is wrong."""
        return ValueError(f"{self.where}: {message}")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key; an error if there is none and no default."""
        self._taken.append(key)
        value = self._values.get(key, default)
        if value is None:
            hint = did_you_mean(key, [k for k in self._values if k not in self._taken])
            raise self.wrong(f"{key} is missing.{hint}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(f"{key} is {value!r}; give a finite number.")
        return float(value)

    def count(self, key: str, beside: int = 1) -> int:
        """A whole number of 1 or more, few enough that a matrix of so many by `beside` fits into memory."""
        value = self._whole(key, self.take(key))
        if value * beside > MOST_ENTRIES:
            raise self.wrong(f"{key} is {value} beside {beside}: the matrix has more than {MOST_ENTRIES} entries.")
        return value

    def counts(self, key: str, length: int) -> tuple[int, ...]:
        """Whole numbers of 1 or more."""
        values = self.take(key)
        if not isinstance(values, list) or len(values) != length:
            raise self.wrong(f"{key} is {values!r}; give {length} whole numbers.")
        return tuple(self._whole(key, value) for value in values)

    def _whole(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(f"{key} is {value!r}; give a whole number of 1 or more.")
        return value

    def array(self, key: str, axes: int, form: str) -> Tensor:
        """Finite real numbers, a list or an .npy file, with so many axes; `form` says what is wanted."""
        values = self.take(key)
        if isinstance(values, str):
            values = self.file(values)
        try:
            array = torch.as_tensor(np.asarray(values, dtype=np.float64))
        except (ValueError, TypeError, OverflowError) as error:
            raise self.wrong(f"{key} is no {form}: {error}") from error
        if array.ndim != axes or array.numel() == 0 or not torch.isfinite(array).all():
            raise self.wrong(f"{key} has shape {tuple(array.shape)}; give {form}, finite and not empty.")
        return array

    def file(self, name: str) -> np.ndarray:
        """The numbers of an .npy file beside the geometry file."""
        try:
            path = regular_file(beside(self._folder, name))
            if path.suffix.lower() != ".npy":
                raise ValueError(f"{path} is no .npy file of numbers.")
            return array_of(path)
        except ValueError as error:
            raise self.wrong(str(error)) from error

    def done(self) -> None:
        """Refuse keys that have no meaning in this table."""
        for key in self._values:
            if key not in self._taken:
                known = ", ".join(self._taken)
                raise self.wrong(f"there is no setting {key!r}; there are {known}.{did_you_mean(key, self._taken)}")
