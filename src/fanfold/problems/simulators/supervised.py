"""Programs that end with the process that wants their output, whatever ends it: each thread has a supervisor."""

import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from pathlib import Path
from typing import IO, Any

from fanfold.problems.simulators import supervisor
from fanfold.problems.simulators.supervisor import PATIENCE, Result, remove

PREFIX, LOCK = "fanfold-program-", "lock"  # of the folders of supervisors, and of the file that a living one locks
ABANDONED = 86400.0  # seconds after which a folder that nobody came to lock is removed
ENDED = "the simulation has ended, and its programs with it"


class Supervisor:
    """A process beside this one that runs programs, one after another, and ends them when this one ends.

    Example:
        >>> from fanfold.problems.simulators.supervised import Supervisor
        >>> with_one = Supervisor()
        >>> with_one.run(["echo", "1.5"], b"", timeout=60.0, limit=1000).output.strip()
        b'1.5'
        >>> with_one.end()
    """

    def __init__(self):
        self._lock, self._use, self._ended = threading.Lock(), threading.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))

    @property
    def input_file(self) -> str:
        """Where a program finds its input, if it takes a file."""
        return str(self.folder / "run/input")

    @property
    def output_file(self) -> str:
        """Where a program is to write its output, if it writes a file."""
        return str(self.folder / "run/output")

    def run(
        self,
        words: Sequence[str],
        given: bytes,
        *,
        timeout: float,
        limit: int,
        takes_file: bool = False,
        writes_file: bool = False,
    ) -> Result:
        """Run a program to its end.

        Args:
            words: The program and its arguments.
            given: What it reads.
            timeout: Seconds after which it is killed.
            limit: Bytes of output at which it is killed.
            takes_file: Whether it reads `input_file` rather than its standard input.
            writes_file: Whether its output is `output_file` rather than what it prints.

        Returns:
            How it ended, with "lost" for a supervisor that was killed; the next run has another.

        Raises:
            RuntimeError: If `end` was called, before or meanwhile.
        """
        request = {"words": list(words), "timeout": timeout, "limit": limit, "size": len(given)}
        request |= {"input": takes_file, "output": writes_file}
        try:
            with self._use:
                process = self._started()
                facts, output = _answer(process, json.dumps(request).encode() + b"\n" + given, timeout + 2 * PATIENCE)
        except BaseException:
            self.end()
            raise
        if facts is not None:
            return Result(**facts, output=output)
        _wait(process)
        _close(process)
        with self._lock:
            self._process = None
            if self._ended:
                raise RuntimeError(ENDED)
        return Result("lost", None, "the process that watched over the program was killed")

    def end(self) -> None:
        """End this supervisor, with what it runs; no other follows it."""
        with self._lock:
            self._ended, process = True, self._process
        if process is not None:
            process.terminate()
            _wait(process)
            with self._use:  # a thread that waits for an answer hears that there is none, unless its pipe is closed
                _close(process)
        remove(str(self.folder))

    def _started(self) -> "subprocess.Popen[bytes]":
        """The process, which is started for the first run and after a loss."""
        with self._lock:
            if self._ended:
                raise RuntimeError(ENDED)
            if self._process is None:
                with _locked(self.folder) as lock:
                    self._process = subprocess.Popen(
                        [spawn.get_executable(), "-I", "-S", supervisor.__file__, str(os.getpid()), str(self.folder)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        start_new_session=True,  # it hears neither Ctrl-C nor the end of the terminal
                        pass_fds=[lock.fileno()],  # which it holds as long as it lives
                    )
            return self._process


def _answer(process: "subprocess.Popen[bytes]", request: bytes, patience: float) -> tuple[dict[str, Any] | None, bytes]:
    """What a supervisor answers, as facts and output; None if it ends first, or is silent for so many seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(patience):
            process.kill()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        return None, b""
    facts = json.loads(line)
    size = facts.pop("size")
    output = process.stdout.read(size)
    return (facts, output) if len(output) == size else (None, b"")


def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a supervisor that is about to end."""
    try:
        process.wait(2 * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()


class Supervisors:
    """The supervisors of an executor's threads, one for each that runs a program.

    Example:
        >>> from fanfold.problems.simulators.supervised import Supervisors
        >>> team = Supervisors()
        >>> team.of_this_thread() is team.of_this_thread()
        True
        >>> team.end()
    """

    def __init__(self):
        sweep()
        self._lock, self._ended = threading.Lock(), False
        self._of_threads: dict[int, Supervisor] = {}

    def of_this_thread(self) -> Supervisor:
        """The supervisor of the thread that asks.

        Raises:
            RuntimeError: If `end` was called.
        """
        with self._lock:
            if self._ended:
                raise RuntimeError(ENDED)
            thread = threading.get_ident()
            if thread not in self._of_threads:
                self._of_threads[thread] = Supervisor()
            return self._of_threads[thread]

    def end(self) -> None:
        """End the programs that run; none can be started afterwards."""
        with self._lock:
            self._ended = True
        for each in self._of_threads.values():
            each.end()

    def serve_this_thread(self) -> None:
        """Make `one_supervisor` give this thread's supervisor from now on."""
        _thread.team = self


class _Thread(threading.local):
    """What each thread has for itself."""

    team: Supervisors | None = None  # of the executor whose thread it is


_thread = _Thread()


@contextmanager
def one_supervisor() -> Iterator[Supervisor]:
    """The supervisor of an executor's thread, or one for this block alone."""
    team = _thread.team or Supervisors()
    try:
        yield team.of_this_thread()
    finally:
        if team is not _thread.team:
            team.end()


def sweep() -> None:
    """Remove the folders of supervisors that were killed together with the process that they worked for."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _sweep(Path(entry.path), entry.stat(follow_symlinks=False))


def _sweep(folder: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid():
        return
    try:
        with (folder / LOCK).open("r+") as lock:
            if _lock(lock, wait=False):
                remove(str(folder))
    except FileNotFoundError:  # it is being made
        if time.time() - facts.st_mtime > ABANDONED:
            remove(str(folder))


@contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """The lock of a folder, which is made if need be, held while the file is open, here or in another process."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError), (folder / LOCK).open("w") as lock:
            _lock(lock, wait=True)
            if (folder / LOCK).exists():  # nobody took it for a dead one in between
                yield lock
                return


def _lock(file: IO[str], *, wait: bool) -> bool:
    """Whether this process has locked a file now."""
    try:
        import fcntl
    except ImportError:  # a system without: folders of killed supervisors stay
        return wait
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
