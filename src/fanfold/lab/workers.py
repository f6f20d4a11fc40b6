"""How the lab has work done: in processes that it holds by a pipe, forked by a nursery that has imported torch."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from fanfold.lab.process import NURSERY

MODULE = "fanfold.lab.process"
WARM = (
    "fanfold.cli.training",
    "fanfold.cli.trained",
    "fanfold.report.figure.manifest",
)  # that work is mostly done with
FORKS = sys.platform == "linux"  # elsewhere libraries that torch uses do not bear it
GRACE_SECONDS = 10.0  # that a process has to end by itself before it is killed
LAST_WORDS = 20  # lines of what a process said that are kept
BLOCK = 2**16


class Work:
    """A process that works, or will once the nursery has forked it; it lives as long as the lab holds on to it.

    Attributes:
        process: Its number, once it has one.

    Example:
        >>> from fanfold.lab.workers import Work
        >>> work = Work()
        >>> work.process is None
        True
        >>> work.close()
    """

    def __init__(self):
        self.process: int | None = None
        read_life, self._life = os.pipe()
        out, write_out = os.pipe()
        said, write_said = os.pipe()
        self._unread = [out, said]
        self.given = [read_life, write_out, write_said]  # what becomes its standard input, output and error
        self.ended = asyncio.Event()

    def let_go(self) -> None:
        """Interrupt the work as by Ctrl-C."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1

    def shut(self) -> None:
        """Close the ends of the pipes that are the process's; once it has them."""
        for descriptor in self.given:
            os.close(descriptor)
        self.given = []

    def close(self) -> None:
        """Let go of it, and close what of its pipes nobody reads."""
        self.let_go()
        self.shut()
        for descriptor in self._unread:
            os.close(descriptor)
        self._unread = []

    async def read(self) -> tuple[bytes, list[str]]:
        """All that it prints, and the last lines of what it says on its standard error, until it closes both."""
        (out, said), self._unread = self._unread, []
        out, said = await asyncio.gather(_reader(out), _reader(said))
        return await asyncio.gather(out.read(), _last_lines(said))

    async def end(self) -> None:
        """Let go of it, and kill it if it does not end."""
        self.let_go()
        try:
            await asyncio.wait_for(self.ended.wait(), GRACE_SECONDS)
        except TimeoutError:
            if self.process is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.process, signal.SIGKILL)
                await self.ended.wait()


class Workers:
    """The processes of a lab.

    Args:
        forks: Whether a nursery forks them; else each imports for itself what it needs.

    Example:
        >>> from fanfold.lab.workers import Workers
        >>> Workers().working
        set()
    """

    def __init__(self, *, forks: bool = FORKS):
        self.forks = forks
        self.working: set[Work] = set()
        self._nursery: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._starting = asyncio.Lock()

    def hire(self) -> Work:
        """Work that is yet to be done, by `done`."""
        work = Work()
        self.working.add(work)
        return work

    async def done(self, work: Work, module: str, words: Sequence[str]) -> tuple[int, bytes, list[str]]:
        """Have a module run as a program: its exit code, what it printed, and the last lines of what it said.

        Args:
            work: What `hire` gave; whoever has it can end it at any time.
            module: A module of fanfold.
            words: Its words.

        Raises:
            OSError: If no process can be started.
        """
        try:
            ending = await (self._forked(work, module, words) if self.forks else self._spawned(work, module, words))
            reading = asyncio.create_task(work.read())
            try:
                code = await ending
                work.ended.set()
                out, said = await reading
            except asyncio.CancelledError:
                work.let_go()
                raise
            except OSError:
                await reading
                raise
            return code, out, said
        finally:
            work.ended.set()
            work.close()
            self.working.discard(work)

    async def _spawned(self, work: Work, module: str, words: Sequence[str]) -> asyncio.Task[int]:
        stdin, stdout, stderr = work.given
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", MODULE, module, *words, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True,  # so that Ctrl-C in the terminal ends the lab, and the lab its processes
        )  # fmt: skip
        work.process = process.pid
        work.shut()
        return asyncio.create_task(process.wait())

    async def _forked(self, work: Work, module: str, words: Sequence[str]) -> asyncio.Task[int]:
        asked = json.dumps([module, *words]).encode() + b"\n"
        async with self._starting:
            line = await self._line_to_nursery()
            reads, tells = os.pipe()
            reader = await _reader(reads)
            try:
                sent = socket.send_fds(line, [asked], [*work.given, tells])
                line.sendall(asked[sent:])
            finally:
                os.close(tells)
            work.shut()
        assert self._nursery is not None
        return asyncio.create_task(_ended(work, reader, self._nursery))

    async def _line_to_nursery(self) -> socket.socket:
        if self._nursery is not None and self._line is not None and self._nursery.returncode is None:
            return self._line
        if self._line is not None:
            self._line.close()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._nursery = await asyncio.create_subprocess_exec(
                sys.executable, "-m", MODULE, NURSERY, *WARM, stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self._line

    async def close(self) -> None:
        """End all work, and the nursery; no process is left then."""
        await asyncio.gather(*(work.end() for work in list(self.working)))
        if self._line is not None:
            self._line.close()
        if self._nursery is not None:
            try:
                await asyncio.wait_for(self._nursery.wait(), GRACE_SECONDS)
            except TimeoutError:
                self._nursery.kill()
                await self._nursery.wait()


async def _ended(work: Work, reader: asyncio.StreamReader, nursery: asyncio.subprocess.Process) -> int:
    """The exit code of forked work, as the nursery tells it; that of a killed process if the nursery was killed.

    Raises:
        OSError: If the nursery ended before it forked.
    """
    number = await reader.readline()
    if not number:
        await nursery.wait()  # so that the next work finds it gone, and starts another
        raise ChildProcessError(errno.ECHILD, "the process that imports torch ended; see what fanfold doctor says")
    work.process = int(number)
    number = await reader.readline()
    return int(number) if number else -signal.SIGKILL


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=BLOCK)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0))
    return reader


async def _last_lines(stream: asyncio.StreamReader) -> list[str]:
    """The last lines of a stream that is read to its end."""
    lines, rest = deque[str](maxlen=LAST_WORDS), b""
    while block := await stream.read(BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        rest = rest[-BLOCK:]
        lines.extend(line.decode(errors="replace") for line in whole)
    return [*lines, rest.decode(errors="replace")] if rest else [*lines]
