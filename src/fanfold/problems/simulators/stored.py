"""Simulated pairs as a problem, from the store that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fanfold.core.settings import check_table, checked_value
from fanfold.problems.kinds import Kind
from fanfold.problems.pairs import FromFile, PairArrays
from fanfold.problems.simulators.store import IDENTITY, Contents, reading


@dataclass(frozen=True)
class Simulations(FromFile):
    """The pairs that `simulate` made, in the folder where it kept them; failed runs are left out and counted.

    As with stored pairs, a draw picks some at random, with replacement; of the test part each once, and at most all.
    The last `held_out_share` of the draws, by their numbers, is kept for validation and testing.

    Raises:
        ValueError: If there is no such store, or it holds too few pairs.

    Example:
        >>> import tempfile, fanfold as ff
        >>> simulator = ff.problems.Simulator(ff.problems.Box((0.0,), (1.0,)), lambda x, generator: 2 * x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = ff.simulate(simulator, 50, folder)
        ...     pairs = ff.problems.Simulations(folder)
        ...     len(pairs.every()[0]), pairs.failures
        (40, {})
    """

    path: str

    @property
    def kind(self) -> Kind:
        """The kind of the simulator's observations."""
        return _read(*self._version())[2]

    @property
    def failures(self) -> Mapping[str, int]:
        """How many runs failed, by kind."""
        return self.contents.failures

    @property
    def contents(self) -> Contents:
        """What the store holds: numbers of the good draws, and each failed run with its detail."""
        return _read(*self._version())[1]

    def table(self) -> list[dict[str, Any]]:
        """Rows that say what became of the runs, of how many, and of which one for example."""
        contents = self.contents
        rows: list[dict[str, Any]] = [{"runs": "good", "count": len(contents.good), "example": ""}]
        for kind, count in contents.failures.items():
            first = next(failed for failed in contents.failed if failed.kind == kind)
            rows.append({"runs": kind, "count": count, "example": f"draw {first.index}: {first.detail}"})
        return rows

    def _stored(self) -> PairArrays:
        return _read(*self._version())[0]

    def _version(self) -> tuple[Path, int, int]:
        file = Path(self.path) / "runs.bin"
        if not file.is_file():
            raise ValueError(f"{self.path} holds no simulations; make some with fanfold simulate, or ff.simulate.")
        stat = file.stat()
        return file.parent.resolve(), stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4)
def _read(path: Path, size: int, modified_ns: int) -> tuple[PairArrays, Contents, Kind]:
    identity, contents = reading(path)
    try:
        x, y = contents.arrays()
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {sum(contents.failures.values())} failed.") from error
    problem = check_table(identity.get("problem"), f"problem in {path / IDENTITY}")
    kind = checked_value(str(path / IDENTITY), "kind", problem.get("kind"), Kind)
    return PairArrays(torch.from_numpy(x), torch.from_numpy(y), None, None), contents, kind
