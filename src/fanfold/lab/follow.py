"""The events of a run as they are logged: read once for all who follow, and from where each of them left off."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from fanfold.core.files import is_regular

FILE = "metrics.jsonl"  # in a run directory


class News(NamedTuple):
    """What a follower has missed.

    Attributes:
        anew: Whether what the follower has is of another training and the events are all there are.
        events: Lines of JSON.
        mark: Where the follower is now.

    Example:
        >>> from fanfold.lab.follow import News
        >>> News(True, [], "0.0-0").events
        []
    """

    anew: bool
    events: list[str]
    mark: str


class EventLog:
    r"""The log of a run, which grows, and begins anew where a run is resumed from a checkpoint.

    A follower's mark says of which file, by its inode and the attempt, and how many of its events the follower has.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fanfold.lab.follow import EventLog
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.jsonl").write_text('{"event": "stepped", "step": 1}\n{"event": "st')
        >>> log = EventLog(folder)
        >>> first = log.since("", attempt=1)
        >>> first.anew, first.events
        (True, ['{"event": "stepped", "step": 1}'])
        >>> log.since(first.mark, attempt=1).events
        []
    """

    def __init__(self, folder: Path):
        self.file = folder / FILE
        self.lines: list[str] = []
        self.damage = ""  # what is wrong with the file, in a sentence
        self._inode, self._read, self._rest = 0, 0, b""

    def since(self, mark: str, attempt: int) -> News:
        """The events after a mark; all of them if it is empty or of another training.

        Args:
            mark: What `News` said last, or nothing.
            attempt: How many times the training began here, so that a file that takes the place of another is told.
        """
        self._refresh()
        place = f"{self._inode:x}.{attempt}"
        before, _, count = mark.partition("-")
        known = int(count) if before == place and count.isdecimal() else -1
        anew = not 0 <= known <= len(self.lines)
        return News(anew, self.lines[0 if anew else known :], f"{place}-{len(self.lines)}")

    def _refresh(self) -> None:
        if not is_regular(self.file):
            self.lines, self.damage, self._inode, self._read, self._rest = [], "", 0, 0, b""
            return
        with self.file.open("rb") as stream:
            facts = os.fstat(stream.fileno())
            if facts.st_ino != self._inode or facts.st_size < self._read:
                self.lines, self.damage, self._inode, self._read, self._rest = [], "", facts.st_ino, 0, b""
            if facts.st_size == self._read or self.damage:
                return
            stream.seek(self._read)
            block = stream.read()
        self._read += len(block)
        *whole, self._rest = (self._rest + block).split(b"\n")
        for line in whole:
            try:
                event = json.loads(line)
                self.lines.append(json.dumps(event, allow_nan=False))
            except (ValueError, RecursionError):
                self.damage = f"{self.file} is damaged: line {len(self.lines) + 1} is no JSON."
                return
