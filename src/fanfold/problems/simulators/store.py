"""What a simulator has simulated, on disk: one file that is only appended to, so that no crash loses a good run.

problem.json   what tells the draws: another problem, command, prior or seed is refused
runs.bin       records: a head of 24 bytes, JSON, and the arrays of x and y

A record that was cut short or changed is told by its checksum, left out, and simulated again.
"""

import json
import os
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fanfold.problems.simulators.outcome import Failure, Outcome

MAGIC = b"fFR1"
HEAD = struct.Struct("<4sIQI4x")  # magic, length of the JSON, length of the arrays, checksum of both
SYNC_SECONDS = 1.0  # between two waits for the disk: a power failure costs no more


class Failed(NamedTuple):
    """A run without a result."""

    index: int
    kind: Failure
    detail: str
    x: list[float]


class Record(NamedTuple):
    """Runs whose observations have one shape, and some that failed."""

    indices: list[int]
    x: np.ndarray  # (runs, d)
    y: np.ndarray  # (runs, ...)
    failed: list[Failed]


class Contents:
    """All that a store holds; a later record of a draw counts, and observations have the shape that most have."""

    def __init__(self, records: Sequence[Record]):
        self._records = records
        self._place: dict[int, tuple[int, int]] = {}
        self._failed: dict[int, Failed] = {}
        for number, record in enumerate(records):
            for row, index in enumerate(record.indices):
                self._place[index] = number, row
            self._failed |= {failed.index: failed for failed in record.failed}

    @cached_property
    def shape(self) -> tuple[int, ...] | None:
        """Of one observation; None if there is none."""
        shapes = Counter(self._records[number].y.shape[1:] for number, _ in self._place.values())
        return shapes.most_common(1)[0][0] if shapes else None

    @cached_property
    def good(self) -> list[int]:
        """Numbers of the draws that have a pair, rising."""
        return sorted(i for i, (number, _) in self._place.items() if self._records[number].y.shape[1:] == self.shape)

    @cached_property
    def failed(self) -> list[Failed]:
        """The runs that failed, in the order of their numbers."""
        good, found = set(self.good), {i: f for i, f in self._failed.items() if i not in self._place}
        for index, (number, row) in self._place.items():
            if index not in good:
                record = self._records[number]
                detail = f"{record.y.shape[1:]} instead of {self.shape}"
                found[index] = Failed(index, "wrong shape", detail, record.x[row].tolist())
        return [found[index] for index in sorted(found)]

    def counts(self) -> dict[str, int]:
        """How many runs failed, by kind."""
        return dict(Counter(str(failed.kind) for failed in self.failed))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters `(good, d)` and observations `(good, ...)`, in the order of the draws' numbers.

        Raises:
            ValueError: If there is none.
        """
        if not self.good:
            raise ValueError("no run has succeeded yet")
        places = [self._place[index] for index in self.good]
        x = np.stack([self._records[number].x[row] for number, row in places])
        return x, np.stack([self._records[number].y[row] for number, row in places])


class Store:
    """A store that is being written, by one process alone."""

    def __init__(self, path: Path, contents: Contents):
        self.path, self.contents = path, contents
        self._file = (path / "runs.bin").open("ab")
        self._synced = time.monotonic()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes; they survive the end of this process at once, and of the machine within a second."""
        self._file.write(b"".join(packed(record) for record in records_of(outcomes)))
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Wait until all is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def writing(path: Path, identity: Mapping[str, Any]) -> Iterator[Store]:
    """A store to append to, made if there is none; a record that was cut short is removed from its end.

    Raises:
        ValueError: If it holds draws of something else, another process writes to it, or it is no store.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as lock:
        _lock(lock, path)
        _check_identity(path, identity)
        records, end = _scan(path / "runs.bin")
        if (path / "runs.bin").exists():
            os.truncate(path / "runs.bin", end)
        store = Store(path, Contents(records))
        try:
            yield store
        finally:
            store.close()


def reading(path: Path) -> tuple[dict[str, Any], Contents]:
    """What tells the draws of a store, and what it holds by now; another process may be writing to it.

    Raises:
        ValueError: If there is no store.
    """
    return _identity(path), Contents(_scan(path / "runs.bin")[0])


def records_of(outcomes: Sequence[Outcome]) -> list[Record]:
    """Outcomes as records: one for each shape of the observations."""
    failed = [Failed(o.index, o.failure, o.detail, o.x.tolist()) for o in outcomes if o.failure]
    records = [Record([], np.empty((0, 0)), np.empty((0, 0)), failed)] if failed else []
    for _, group in groupby((o for o in outcomes if o.y is not None), key=lambda o: (o.y.shape, o.y.dtype)):  # type: ignore[union-attr]
        some = list(group)
        records.append(Record([o.index for o in some], np.stack([o.x for o in some]), _stacked(some), []))
    return records


def _stacked(outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.stack([o.y for o in outcomes if o.y is not None])


def packed(record: Record) -> bytes:
    """A record as bytes."""
    facts = {
        "indices": record.indices,
        "failed": record.failed,
        "x": [record.x.dtype.str, record.x.shape],
        "y": [record.y.dtype.str, record.y.shape],
    }
    text, arrays = json.dumps(facts).encode(), record.x.tobytes() + record.y.tobytes()
    return HEAD.pack(MAGIC, len(text), len(arrays), zlib.crc32(text + arrays)) + text + arrays


def _scan(path: Path) -> tuple[list[Record], int]:
    """All whole records of a file, and where the last one ends."""
    content = path.read_bytes() if path.exists() else b""
    records, at, end = [], 0, 0
    while (at := content.find(MAGIC, at)) >= 0:
        record, after = _unpacked(content, at)
        if record is None:
            at += 1  # cut short, changed, or no record: the next one may be whole
        else:
            records.append(record)
            at = end = after
    return records, end


def _unpacked(content: bytes, at: int) -> tuple[Record | None, int]:
    """The record at a place, if it is whole, and where it ends."""
    if at + HEAD.size > len(content):
        return None, at
    _, text_size, arrays_size, checksum = HEAD.unpack_from(content, at)
    begin = at + HEAD.size
    end = begin + text_size + arrays_size
    if end > len(content) or zlib.crc32(memoryview(content)[begin:end]) != checksum:
        return None, at
    facts = json.loads(content[begin : begin + text_size])
    (x_dtype, x_shape), (y_dtype, y_shape) = facts["x"], facts["y"]
    x = np.frombuffer(content, x_dtype, int(np.prod(x_shape)), begin + text_size).reshape(x_shape)
    y = np.frombuffer(content, y_dtype, int(np.prod(y_shape)), begin + text_size + x.nbytes).reshape(y_shape)
    return Record(facts["indices"], x, y, [Failed(*failed) for failed in facts["failed"]]), end


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without: two writers at once are the user's affair
        return
    end = time.monotonic() + 1.0  # a program that a killed writer was starting lets go of the lock a moment later
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"another process simulates into {path}; wait for it, or choose another folder."
                ) from error
        time.sleep(0.05)


def _identity(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "problem.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} holds no simulations; make some with fanfold simulate, or ff.simulate.") from error
    except ValueError as error:
        raise ValueError(f"{path / 'problem.json'} is damaged: {error}; restore it from a copy.") from error


def _check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Write what tells the draws, or compare it with what was written.

    Raises:
        ValueError: If that differs.
    """
    wanted = json.loads(json.dumps(identity))  # tuples are lists there
    if not (path / "problem.json").exists():
        others = sorted(p.name for p in path.iterdir() if p.name != "lock" and not p.name.startswith("."))
        if others:
            raise ValueError(f"{path} holds other things ({', '.join(others[:3])}); choose a folder of its own.")
        temporary = path / f".problem.json.{os.getpid()}"
        temporary.write_text(json.dumps(wanted, indent=1))
        temporary.replace(path / "problem.json")
        return
    there, here = _leaves(_identity(path)), _leaves(wanted)
    for name in [*there, *here]:
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{path} holds simulations with {name} = {there.get(name)!r} and these have {here.get(name)!r}; "
                "choose another folder."
            )


def _leaves(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as flat ones, `problem.command` and so on."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
