"""Runs programs, one after another, and leaves nothing of them behind. One file, as a script has no package around it.

    python -I -S supervisor.py PARENT FOLDER

`supervised.Supervisor` starts it beside its own process, and asks it over pipes: a request and its answer are a line of
JSON each, with bytes after it. However the parent ends, by SIGKILL too, the pipe of requests ends with it; then this
process kills what runs, with all that it started, removes the folder and leaves. On Linux what loses its parent becomes
a child of this process ("child subreaper"), so that nothing gets away, in a session of its own neither; elsewhere it is
the program's process group that is killed.
"""

import ctypes
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # options of prctl(2)
TURN = 0.25  # seconds between two looks at the parent, and at the size of a file that is being written
PATIENCE = 10.0  # seconds in which the killed must be gone: those of another user, or of a dead disk, never are
CHUNK = 1 << 20  # bytes that are read at once
COMPLAINT = 1 << 16  # bytes of complaints that are kept, the last ones
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Result(NamedTuple):
    """How a run ended.

    Attributes:
        ending: "exited", "time-out", "too large", "unreadable" (there is no output file), "not started", or "lost" with
            the supervisor.
        code: The exit code, negative for a signal; None if the program did not end by itself.
        detail: The last complaints, or what exactly went wrong.
        output: What the program printed, or wrote to its output file.

    Example:
        >>> from fanfold.problems.simulators.supervisor import Result
        >>> Result("exited", 0, "", b"1.0").output
        b'1.0'
    """

    ending: str
    code: int | None
    detail: str
    output: bytes = b""


def main(parent: int, folder: str) -> None:
    """Answer the requests of the parent until it ends, then remove the folder."""
    wakeup, alarm = os.pipe()
    for end in (wakeup, alarm):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that a child's end wakes the loop
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    prctl(SET_CHILD_SUBREAPER, 1)
    try:
        while line := next_line(parent):
            request = json.loads(line)
            given = sys.stdin.buffer.read(request["size"])
            result = run(request, given, folder, parent, wakeup)
            facts = {"ending": result.ending, "code": result.code, "detail": result.detail, "size": len(result.output)}
            sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n")
            sys.stdout.buffer.write(result.output)
            sys.stdout.buffer.flush()
    except BrokenPipeError:  # the parent is gone
        return
    finally:
        end_descendants()
        remove(folder)


def leave(number: int, _: Any) -> None:
    """End this process in order, once."""
    for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def next_line(parent: int) -> bytes:
    """The first line of the next request; empty if the parent ends first."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while os.getppid() == parent:  # who forked from the parent may hold the pipe open
            if selector.select(TURN):
                return sys.stdin.buffer.readline()
    return b""


def run(request: dict[str, Any], given: bytes, folder: str, parent: int, wakeup: int) -> Result:
    """Run one program to its end, and kill what it leaves behind.

    Args:
        request: The `words` of the command, its `timeout` in seconds, the `limit` of its output in bytes, and whether
            it takes an input file and writes an output file (`input`, `output`).
        given: What it reads, from its standard input or the file.
        folder: Where its files are, in a folder `run`, which is removed.
        parent: The process that asks.
        wakeup: A pipe that can be read when a child has ended.
    """
    files = os.path.join(folder, "run")
    os.makedirs(files, exist_ok=True)
    try:
        if request["input"]:
            with open(os.path.join(files, "input"), "wb") as file:
                file.write(given)
        try:
            program = subprocess.Popen(
                request["words"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=die_with_parent,  # this process has one thread
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # no such program, or not allowed
            return Result("not started", None, f"{type(error).__name__}: {error}")
        streams = Pipes(program, b"" if request["input"] else given, wakeup, keep=not request["output"])
        try:
            ending = watch(request, streams, files, parent)
            end_descendants(program.pid)
            streams.take_complaints()
        finally:
            streams.close()
        if ending == "exited" and not streams.code and request["output"]:
            return written(files, request["limit"])
        return Result(ending, streams.code, streams.complaint.decode(errors="replace"), bytes(streams.printed))
    finally:
        end_descendants()
        remove(files)


class Pipes:
    """The pipes of a program.

    Args:
        program: The program, just started.
        given: What it is to read.
        wakeup: A pipe that can be read when a child has ended.
        keep: Whether what it prints is kept.
    """

    def __init__(self, program: subprocess.Popen, given: bytes, wakeup: int, *, keep: bool):
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        self.stdin, self.stdout, self.stderr = program.stdin, program.stdout, program.stderr
        self.program, self.given, self.wakeup, self.keep = program, given, wakeup, keep
        self.code: int | None = None
        self.printed, self.complaint = bytearray(), bytearray()
        self.selector = selectors.DefaultSelector()
        for stream, action, event in (
            (self.stdin, self._give, selectors.EVENT_WRITE),
            (self.stdout, self._print, selectors.EVENT_READ),
            (self.stderr, self._complain, selectors.EVENT_READ),
        ):
            os.set_blocking(stream.fileno(), False)
            self.selector.register(stream, event, action)
        self.selector.register(wakeup, selectors.EVENT_READ, self._reap)
        self.selector.register(0, selectors.EVENT_READ, leave_with_parent)

    @property
    def over(self) -> bool:
        """Whether the program has ended and all that it printed is here, if that is wanted."""
        return self.code is not None and (not self.keep or self.stdout.closed)

    def turn(self, seconds: float) -> None:
        """Do what there is to do, or wait so long for it."""
        for key, _ in self.selector.select(seconds):
            key.data()

    def take_complaints(self) -> None:
        """Read what is left of the complaints, now that nobody adds to them."""
        for _ in range(COMPLAINT // 4096):
            if not self.stderr.closed:
                self._complain()

    def close(self) -> None:
        """Close all pipes."""
        for stream in (self.stdin, self.stdout, self.stderr):
            with suppress(OSError):
                stream.close()
        self.selector.close()
        self.program.returncode = self.code  # it was waited for here

    def _give(self) -> None:
        """Write a piece of what the program reads."""
        with suppress(BlockingIOError):
            try:
                written = os.write(self.stdin.fileno(), self.given[:CHUNK]) if self.given else 0
            except OSError:  # it does not read
                written = len(self.given)
            self.given = self.given[written:]
            if not self.given:
                self._drop(self.stdin)

    def _print(self) -> None:
        piece = self._read(self.stdout)
        if self.keep:
            self.printed += piece

    def _complain(self) -> None:
        self.complaint += self._read(self.stderr)
        del self.complaint[:-COMPLAINT]

    def _read(self, stream: Any) -> bytes:
        """What there is to read; the stream is closed at its end."""
        try:
            piece = os.read(stream.fileno(), CHUNK)
        except BlockingIOError:
            return b""
        if not piece:
            self._drop(stream)
        return piece

    def _drop(self, stream: Any) -> None:
        self.selector.unregister(stream)
        with suppress(OSError):
            stream.close()

    def _reap(self) -> None:
        """Take note of the children that have ended."""
        with suppress(BlockingIOError):
            os.read(self.wakeup, CHUNK)
        for pid, status in reaped():
            if pid == self.program.pid:
                self.code = os.waitstatus_to_exitcode(status)


def watch(request: dict[str, Any], streams: Pipes, files: str, parent: int) -> str:
    """How a program ends: "exited", "time-out" or "too large".

    What a program leaves behind with its output in hand may still print, so that the run is over at the output's end.
    """
    end = time.monotonic() + request["timeout"]
    while not streams.over:
        left = end - time.monotonic()
        if left <= 0:
            return "time-out"
        streams.turn(min(left, TURN))
        size = largest(files) if request["output"] else len(streams.printed)
        if size > request["limit"]:
            return "too large"
        if os.getppid() != parent:
            leave_with_parent()
    return "exited"


def leave_with_parent() -> None:
    """End this process: the parent is gone, as nothing else ends the pipe of requests while a program runs."""
    sys.exit(0)


def output_files(files: str) -> list[str]:
    """The output file, with an ending if the program gave it one, as `numpy.save` does."""
    with suppress(OSError):
        return sorted(os.path.join(files, name) for name in os.listdir(files) if name.startswith("output"))
    return []


def largest(files: str) -> int:
    """Bytes of the largest output file."""
    sizes = [0]
    for path in output_files(files):
        with suppress(OSError):
            sizes.append(os.stat(path).st_size)
    return max(sizes)


def written(files: str, limit: int) -> Result:
    """What stands in the output file, if it is a regular one."""
    paths = output_files(files)
    if not paths:
        return Result("unreadable", 0, "the program wrote no file {output}")
    try:
        if not stat.S_ISREG(os.stat(paths[0]).st_mode):  # a pipe would never end, and a device neither
            return Result("unreadable", 0, "{output} is not a regular file")
        with os.fdopen(os.open(paths[0], os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        return Result("unreadable", 0, f"{{output}} cannot be read ({error.strerror})")
    return Result("exited", 0, "", content) if len(content) <= limit else Result("too large", 0, "")


def prctl(option: int, value: int) -> None:
    """Ask the Linux kernel for something; other systems have nothing like it."""
    if LIBC is not None:
        LIBC.prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """In a program about to begin: die when this supervisor does, by whatever hand."""
    prctl(SET_PDEATHSIG, signal.SIGKILL)


def reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended, and how."""
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            yield child


def end_descendants(leader: int | None = None) -> None:
    """Kill everything that was started from here, until there is nothing.

    Args:
        leader: A program that leads a group, which is killed even where nothing is known of its members.
    """
    give_up = time.monotonic() + PATIENCE
    if leader is not None:
        kill(-leader)
    while time.monotonic() < give_up:
        for _ in reaped():
            pass
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # there is no child; on Linux, no descendant either
            return
        for pid, group in descendants():
            kill(pid)
            if group != os.getpgrp():
                kill(-group)  # in one stroke, so that none forks away
        time.sleep(0.001)


def kill(pid: int) -> None:
    """Kill a process, or a group if the number is negative."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def descendants() -> list[tuple[int, int]]:
    """All processes that were started from here, with their groups, as Linux's `/proc` shows them."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        with suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat", "rb") as file:
            _, parent, group = file.read().rpartition(b")")[2].split()[:3]
            children.setdefault(int(parent), []).append((int(name), int(group)))
    family, waiting = [], [os.getpid()]
    while waiting:
        born = children.pop(waiting.pop(), [])
        family += born
        waiting += [pid for pid, _ in born]
    return family


def remove(folder: str) -> None:
    """Remove a folder and all in it, however deep it is and whatever its permissions are; what resists stays."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
    with suppress(FileNotFoundError):
        try:
            os.rmdir(folder)
        except OSError:  # there are folders in it; shutil would call itself for each level
            for words in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
                subprocess.run([*words, "--", folder], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    with suppress(SystemExit):
        main(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # nobody reads what may be left of an answer
