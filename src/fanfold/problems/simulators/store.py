"""What a simulator has simulated, on disk: one file that is only appended to, so that no crash loses a good run.

problem.json   what decides the draws: another problem, command, prior or seed is refused
runs.bin       records: a head of 24 bytes, JSON, and the arrays of x and y

A record that was cut short or changed is recognised by its checksum, left out, and simulated again.
"""

import json
import math
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

from fanfold.core.data_files import json_object, regular_file
from fanfold.core.files import check_same, sole_writer, write_whole
from fanfold.core.strict_json import revived, strict_json
from fanfold.problems.simulators.outcome import Failure, Outcome

IDENTITY, RECORDS = "problem.json", "runs.bin"
MAGIC = b"fFR1"
HEAD = struct.Struct("<4sIQI4x")  # magic, length of the JSON, length of the arrays, checksum of both
SYNC_SECONDS = 1.0  # between two waits for the disk: a power failure costs no more


class Failed(NamedTuple):
    """A run without a result.

    Attributes:
        index: The number of the draw.
        kind: The kind of the failure.
        detail: What exactly went wrong, in one line.
        x: The parameters, `(d,)`.

    Example:
        >>> from fanfold.problems.simulators.store import Failed
        >>> Failed(17, "crash", "exit code 3", [0.5, 2.0]).kind
        'crash'
    """

    index: int
    kind: Failure
    detail: str
    x: list[float]


class Record(NamedTuple):
    """Runs whose observations have one shape, or runs that failed.

    Attributes:
        indices: The numbers of the draws that have an observation.
        x: Their parameters, `(runs, d)`.
        y: Their observations, `(runs, ...)`.
        failed: The runs that failed.

    Example:
        >>> import numpy as np
        >>> from fanfold.problems.simulators.outcome import Outcome
        >>> from fanfold.problems.simulators.store import records_of
        >>> (record,) = records_of([Outcome(k, np.zeros(1), np.ones(2)) for k in range(3)])
        >>> record.indices, record.y.shape
        ([0, 1, 2], (3, 2))
    """

    indices: list[int]
    x: np.ndarray
    y: np.ndarray
    failed: list[Failed]


class Contents:
    """All that a store holds; of a draw the latest record counts, and observations have the shape that most have.

    Args:
        records: The records of the store, in the order in which they were written.

    Example:
        >>> import numpy as np
        >>> from fanfold.problems.simulators.outcome import Outcome
        >>> from fanfold.problems.simulators.store import Contents, records_of
        >>> outcomes = [Outcome(0, np.zeros(1), np.ones(2)), Outcome(1, np.ones(1), failure="crash", detail="no mesh")]
        >>> contents = Contents(records_of(outcomes))
        >>> contents.good, contents.failures
        ([0], {'crash': 1})
    """

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
        """The shape of one observation; None if there is none."""
        shapes = Counter(self._records[number].y.shape[1:] for number, _ in self._place.values())
        return shapes.most_common(1)[0][0] if shapes else None

    @cached_property
    def good(self) -> list[int]:
        """The numbers of the draws that have a pair, rising."""
        return sorted(i for i, (number, _) in self._place.items() if self._records[number].y.shape[1:] == self.shape)

    @cached_property
    def failed(self) -> list[Failed]:
        """The runs that failed, in the order of their numbers."""
        good, failed = set(self.good), {i: f for i, f in self._failed.items() if i not in self._place}
        for index, (number, row) in self._place.items():
            if index not in good:
                record = self._records[number]
                detail = f"{record.y.shape[1:]} instead of {self.shape}"
                failed[index] = Failed(index, "wrong shape", detail, record.x[row].tolist())
        return [failed[index] for index in sorted(failed)]

    @property
    def failures(self) -> dict[str, int]:
        """How many runs failed, by kind."""
        return dict(Counter(str(failed.kind) for failed in self.failed))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The parameters `(good, d)` and observations `(good, ...)`, in the order of the draws' numbers.

        Raises:
            ValueError: If there is none.
        """
        if not self.good:
            raise ValueError("no run has succeeded yet")
        places = [self._place[index] for index in self.good]
        x = np.stack([self._records[number].x[row] for number, row in places])
        return x, np.stack([self._records[number].y[row] for number, row in places])


class Store:
    """A store that is being written, by one process alone; `writing` opens it.

    Args:
        path: The folder.
        contents: What the store held when it was opened.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from fanfold.problems.simulators.outcome import Outcome
        >>> from fanfold.problems.simulators.store import reading, writing
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with writing(pathlib.Path(folder), {"seed": 0}) as store:
        ...         store.append([Outcome(0, np.zeros(1), np.ones(2))])
        ...     reading(pathlib.Path(folder))[1].good
        [0]
    """

    def __init__(self, path: Path, contents: Contents):
        self.path, self.contents = path, contents
        self._file = (path / RECORDS).open("ab")
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
    with sole_writer(path):
        begun = (path / IDENTITY).exists()
        check_same(path, _identity(path) if begun else None, identity)
        if not begun:
            write_whole(path / IDENTITY, strict_json(identity, indent=1).encode(), follow=False)
        records, end = _scan(path / RECORDS)
        if (path / RECORDS).exists():
            os.truncate(path / "runs.bin", end)
        store = Store(path, Contents(records))
        try:
            yield store
        finally:
            store.close()


def reading(path: Path) -> tuple[dict[str, Any], Contents]:
    """What decides the draws of a store, and what it holds by now; another process may be writing to it.

    Raises:
        ValueError: If there is no store.
    """
    return _identity(path), Contents(_scan(path / RECORDS)[0])


def records_of(outcomes: Sequence[Outcome]) -> list[Record]:
    """Outcomes as records: one for each shape of the observations."""
    failed = [Failed(o.index, o.failure, o.detail, o.x.tolist()) for o in outcomes if o.failure]
    records = [Record([], np.empty((0, 0)), np.empty((0, 0)), failed)] if failed else []
    good = [(o.index, o.x, o.y) for o in outcomes if o.y is not None]
    for _, group in groupby(good, key=lambda run: (run[2].shape, run[2].dtype)):
        indices, x, y = zip(*group)
        records.append(Record(list(indices), np.stack(x), np.stack(y), []))
    return records


def packed(record: Record) -> bytes:
    """A record as bytes."""
    facts = {
        "indices": record.indices,
        "failed": record.failed,
        "x": [record.x.dtype.str, record.x.shape],
        "y": [record.y.dtype.str, record.y.shape],
    }
    text, arrays = strict_json(facts).encode(), record.x.tobytes() + record.y.tobytes()
    return HEAD.pack(MAGIC, len(text), len(arrays), zlib.crc32(text + arrays)) + text + arrays


def _scan(path: Path) -> tuple[list[Record], int]:
    """All whole records of a file, and where the last one ends."""
    content = regular_file(path).read_bytes() if path.exists() else b""
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
    try:
        return _record(content[begin:end], text_size), end
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError):  # its checksum is right, and it is none
        return None, at


def _record(content: bytes, text_size: int) -> Record:
    """The record that a JSON text and the bytes of two arrays after it say."""
    facts = json.loads(content[:text_size])
    (x_dtype, x_shape), (y_dtype, y_shape) = facts["x"], facts["y"]
    x = np.frombuffer(content, x_dtype, math.prod(x_shape), text_size).reshape(x_shape)
    y = np.frombuffer(content, y_dtype, math.prod(y_shape), text_size + x.nbytes).reshape(y_shape)
    failed = [Failed(index, kind, detail, revived(x)) for index, kind, detail, x in facts["failed"]]
    indices = facts["indices"]
    if len(x) != len(indices) or len(y) != len(indices) or not all(isinstance(i, int) for i in indices):
        raise ValueError("a record has one row a draw")
    return Record(indices, x, y, failed)


def _identity(path: Path) -> dict[str, Any]:
    missing = f"{path} holds no simulations; make some with fanfold simulate, or ff.simulate."
    return revived(json_object(path / IDENTITY, missing))
