"""The user's own pairs of signals and measurements, from an `.npz` file."""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from fanfold.core.array_files import array_of, held_arrays
from fanfold.core.data_files import regular_file
from fanfold.core.units import power
from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Observation, check_finite
from fanfold.problems.base import Described
from fanfold.problems.kinds import AXES, Kind

Part = Literal["train", "test"]
UNEXPLAINED = 1.2  # share of ‖y‖² beyond which A x has nothing to do with y, by more than chance


class PairArrays(NamedTuple):
    """The contents of a file of pairs."""

    x: Tensor  # (samples, n)
    y: Tensor  # (samples, m), or of the kind's shape
    A: LinearOperator | None
    noise_var: Tensor | None  # () or (samples, 1)


@dataclass(frozen=True)
class FromFile(Described):
    """A problem whose pairs are stored.

    A draw picks pairs at random, with replacement; of the test part each once, and at most all. The last
    `held_out_share` of the pairs is kept for validation and testing: `part="test"` draws from there alone. A subclass
    says how they are read: `Pairs` from a file, `Simulations` from a store.

    Raises:
        ValueError: If there are too few pairs for both parts, or they cannot be read.
    """

    path: str
    part: Part = "train"
    held_out_share: float = 0.2  # share of the pairs, from the end, that is kept for tests

    def __post_init__(self):
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; pass a share between 0 and 1.")
        self.rows()

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802
        """The stored operator, if any."""
        return self._stored().A

    @property
    def noise_var(self) -> Tensor | None:
        """The stored noise variance, if there is one for all samples."""
        var = self._stored().noise_var
        return None if var is None or var.ndim else var

    def rows(self) -> range:
        """The places of the samples that this part holds."""
        return rows_of(self.part, len(self._stored().x), self.held_out_share, self.path)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs of this part, picked at random."""
        stored = self._stored()
        pick, var = pick_rows(self.part, self.rows(), n, generator), stored.noise_var
        if var is not None and var.ndim:
            var = var[pick]
        return stored.x[pick], Observation(stored.y[pick], stored.A, var)

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


@dataclass(frozen=True)
class Pairs(FromFile):
    """Stored pairs: arrays `x` (samples, n), `y` (samples, m), optionally `A` (m, n) and `noise_var`.

    `noise_var` is `E|w|²`, one number or one for each sample, `(samples, 1)`. Observations that are no vectors say so
    by their `kind`: sequences `(samples, channels, length)`, images `(samples, channels, h, w)`, sets
    `(samples, count, features)`; these have no A and at most one noise variance for all.

    A draw picks pairs at random, with replacement; of the test part each once, and at most all. The last
    `held_out_share` of the file is kept for validation and testing: `part="test"` draws from there alone.

    Raises:
        ValueError: If the file cannot be read, its arrays do not fit, or there are too few pairs for both parts.

    Example:
        >>> import fanfold as ff, numpy as np, pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "pairs.npz")
        >>> np.savez(file, x=np.ones((10, 3)), y=np.ones((10, 2)))
        >>> problem = ff.problems.Pairs(str(file))
        >>> problem.rows(), problem.held_out().rows()
        (range(0, 8), range(8, 10))
    """

    kind: Kind = "vector"  # what one observation is

    def _stored(self) -> PairArrays:
        path = regular_file(self.path, f"there is no file {self.path}; pass an .npz file with arrays x and y.")
        return _read(path.resolve(), path.stat().st_mtime_ns, self.kind)


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
    """The arrays x and y of an `.npz` file, and A and noise_var where it has them.

    Raises:
        ValueError: If the file cannot be read, holds anything but plain arrays, or has no x or no y.
    """
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path} is no .npz file; store arrays x and y with numpy.savez.")
    names = held_arrays(path)
    arrays = {name: torch.as_tensor(array_of(path, name)) for name in PairArrays._fields if name in names}
    missing = {"x", "y"} - set(arrays)
    if missing:
        raise ValueError(f"{path} has no array {' or '.join(sorted(missing))}; it has {', '.join(names) or 'none'}.")
    return arrays


@lru_cache(maxsize=4)
def _read(path: Path, modified_ns: int, kind: Kind) -> PairArrays:
    arrays = load_arrays(path)
    x, y = arrays["x"], arrays["y"]
    _check_shapes(x, y, kind)
    precisions = (x.dtype, y.dtype) if "A" in arrays else (x.real.dtype, y.real.dtype)  # real x may give complex y
    if precisions[0] != precisions[1]:
        raise ValueError(f"x is {x.dtype} and y is {y.dtype}; store both in one precision.")
    check_finite("x", x)
    check_finite("y", y)
    A = Dense(arrays["A"]) if "A" in arrays else None
    if A is not None and A.n != x.shape[-1]:
        raise ValueError(f"A maps {A.n} -> {A.m} but x has {x.shape[-1]} entries; store A of shape (m, n). Transposed?")
    noise_var = arrays.get("noise_var")
    if noise_var is not None and noise_var.numel() == 1:
        noise_var = noise_var.reshape(())
    Observation(y, A, noise_var)  # the same checks as for any observation
    notice_unrelated(x, y, A, str(path))
    return PairArrays(x, y, A, noise_var)


def _check_shapes(x: Tensor, y: Tensor, kind: Kind) -> None:
    if x.ndim == 2 and y.ndim == 1 + AXES[kind] and len(x) == len(y):
        return
    wanted = {
        "vector": "(samples, m)",
        "sequence": "(samples, channels, length)",
        "image": "(samples, channels, h, w)",
        "set": "(samples, count, features)",
    }
    fits = [name for name in AXES if y.ndim == 1 + AXES[name]]
    hint = f" Or say what y is: kind={' or '.join(map(repr, fits))}." if fits and kind not in fits else ""
    raise ValueError(f"x is {tuple(x.shape)} and y is {tuple(y.shape)}; pass (samples, n) and {wanted[kind]}.{hint}")


def notice_unrelated(x: Tensor, y: Tensor, A: LinearOperator | None, where: str) -> None:
    """Warn where an operator does not explain what was measured: with `y = A x + w`, `E‖y - Ax‖²` is below `E‖y‖²`.

    An operator that has nothing to do with the pairs leaves twice as much. The first thousand pairs are looked at.

    Args:
        x: Signals `(samples, n)`.
        y: Measurements `(samples, m)`.
        A: The operator that they are said to be measured with.
        where: What the pairs are called in the warning.
    """
    x, y = x[:1000], y[:1000]
    if A is None or not y.any():
        return
    scale = y.abs().max().clamp_min(torch.finfo(y.real.dtype).tiny)  # squares neither overflow nor vanish
    share = (power((y - A @ x.to(A.dtype)) / scale).sum() / power(y / scale).sum()).item()
    if share > UNEXPLAINED:
        warnings.warn(
            f"{where}: ‖y - Ax‖² is {100 * share:.0f} % of ‖y‖², and below 100 % wherever y = A x + noise: is this the "
            "right A, in the units of x and y?",
            stacklevel=2,
        )
