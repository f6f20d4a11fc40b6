"""Simulators that are programs: parameters in, an observation out, over a command line."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fanfold.problems.simulators.base import Numbered, parameters_of, seeds_of
from fanfold.problems.simulators.outcome import Outcome, judge, one_line
from fanfold.problems.simulators.parameters import Box, Parameters

Format = Literal["json", "npy", "text"]
PLACEHOLDERS = ("input", "output", "seed", "index", "x")  # words that a command may have in braces


@dataclass(frozen=True)
class Program(Numbered):
    """A program that is started once for each draw: `solver --in {input} --out {output} --seed {seed}`.

    In the command, which no shell reads, `{input}` is a file with the parameters, `{output}` the file that the program
    writes, `{seed}` the draw's seed, of 31 bits, `{index}` its number and `{x}` the parameters, as words of their own.
    Without `{input}` the parameters come on the standard input; without `{output}` the observation is what the program
    prints. Parameters are JSON, `{"x": [...], "seed": ..., "index": ...}`, an `.npy` array, or numbers in a line. The
    observation may be an `.npy` array (the only form with complex numbers), JSON (lists of numbers, or an object with
    the entry "y"), or numbers as text, one row a line.

    A run that takes too long is killed, with all that it started; one that fails in any way is tried again with the
    same seed, then recorded as a failure: "crash", "time-out", "non-finite", "wrong shape" or "unreadable".

    Raises:
        ValueError: If the command is empty or has an unknown word in braces, or a setting is out of range.

    Example:
        >>> import fanfold as ff
        >>> program = ff.problems.Program("echo {x}", ff.problems.Box((0.0, 0.0), (1.0, 1.0)))
        >>> x, obs = program.draw(0)
        >>> bool((obs.y == x).all())
        True
    """

    command: str  # program and its arguments, as above
    prior: Parameters = field(default_factory=Box)  # distribution of the parameters
    timeout: float = 60.0  # seconds after which a run is killed
    retries: int = 1  # further tries of a run that failed
    parameters_as: Format = "json"  # form in which the program reads its parameters

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.timeout < float("inf") or self.retries < 0:
            raise ValueError(f"timeout is {self.timeout} and retries {self.retries}; pass seconds, and 0 or more.")
        if self.parameters_as not in ("json", "npy", "text"):
            raise ValueError(f"parameters_as is {self.parameters_as!r}; pass json, npy or text.")
        self._words(dict.fromkeys(PLACEHOLDERS, ""), np.zeros(1))

    def identity(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "kind": self.kind,
            "shape": self.shape,
            "parameters_as": self.parameters_as,
            "dtype": self.dtype,
            "prior": repr(self.prior),
        }

    @property
    def workers(self) -> int:
        """One run at once for each core that this process may use."""
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:  # a system that does not say
            return os.cpu_count() or 1

    @contextmanager
    def executor(self, workers: int) -> Iterator[Executor]:
        """Threads, each of which waits for its program; an exception ends the programs that run."""
        leash = Leash()
        pool = ThreadPoolExecutor(workers, initializer=_hold_with, initargs=(leash,))
        try:
            yield pool
        except BaseException:
            leash.let_none_run()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        return [self._outcome(seed, index) for index in indices]

    def _outcome(self, seed: int, index: int) -> Outcome:
        for_x, for_y = seeds_of(seed, index)
        x = parameters_of(self.prior, 1, for_x, self.dtype)[0]
        outcome = self._run(index, x, for_y)
        for _ in range(self.retries):
            if outcome.y is not None:
                break
            outcome = self._run(index, x, for_y)
        return outcome

    def _run(self, index: int, x: np.ndarray, seed: int) -> Outcome:
        """One try of a run."""
        with tempfile.TemporaryDirectory(prefix="fanfold-", ignore_cleanup_errors=True) as folder:
            files = {"input": f"{folder}/input", "output": f"{folder}/output"}
            words = self._words(files | {"seed": str(seed), "index": str(index)}, x)
            given = self._parameters(x, seed, index)
            if "{input}" in self.command:
                Path(files["input"]).write_bytes(given)
                given = b""
            try:
                code, printed, complaint = completed(words, given, self.timeout)
            except subprocess.TimeoutExpired:
                return Outcome(index, x, failure="time-out", detail=f"killed after {self.timeout:g} s")
            except OSError as error:  # no such program, or not allowed
                return Outcome(index, x, failure="crash", detail=one_line(error))
            if code:
                ending = f"exit code {code}" if code > 0 else f"signal {-code}"
                last_line = one_line(complaint.decode(errors="replace"))
                return Outcome(index, x, failure="crash", detail=f"{ending}: {last_line}" if last_line else ending)
            try:
                answer = understood(_written(Path(folder)) if "{output}" in self.command else printed)
            except (OSError, ValueError) as error:
                return Outcome(index, x, failure="unreadable", detail=one_line(error))
        return judge(index, x, answer, self.kind, self.shape, self.dtype)

    def _words(self, values: dict[str, str], x: np.ndarray) -> list[str]:
        """The command for one draw."""
        for name in re.findall(r"\{(\w+)\}", self.command):
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"the command has {{{name}}}; what is filled in is {', '.join(f'{{{w}}}' for w in PLACEHOLDERS)}. "
                    "Put a command that needs braces itself into a script."
                )
        words: list[str] = []
        try:
            parts = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"the command {self.command!r} has a quotation mark that is not closed.") from error
        for word in parts:
            filled = re.sub(r"\{(input|output|seed|index)\}", lambda match: values[match[1]], word)
            words += [repr(float(v)) for v in x] if word == "{x}" else [filled]
        if not words:
            raise ValueError("the command is empty; pass a program and its arguments, such as 'solver --seed {seed}'.")
        return words

    def _parameters(self, x: np.ndarray, seed: int, index: int) -> bytes:
        """The parameters as the program reads them."""
        if self.parameters_as == "npy":
            file = io.BytesIO()
            np.save(file, x)
            return file.getvalue()
        values = [float(v) for v in x]
        if self.parameters_as == "text":
            return (" ".join(map(repr, values)) + "\n").encode()
        return json.dumps({"x": values, "seed": seed, "index": index}).encode()


def _written(folder: Path) -> bytes:
    """The output file, with an ending if the program gave it one, as `numpy.save` does.

    Raises:
        FileNotFoundError: If there is none.
    """
    files = sorted(folder.glob("output*"))
    if not files:
        raise FileNotFoundError("the program wrote no file {output}")
    return files[0].read_bytes()


def understood(content: bytes) -> Any:
    """What a program wrote: an `.npy` array, JSON, or numbers as text.

    Raises:
        ValueError: If it is none of these.
    """
    if content.startswith(b"\x93NUMPY"):
        try:
            return np.load(io.BytesIO(content), allow_pickle=False)
        except (EOFError, OSError) as error:
            raise ValueError(f"the .npy array is cut short: {error}") from error
    text = content.decode().strip()
    if not text:
        raise ValueError("the observation is empty")
    if text[0] in "[{":
        answer = json.loads(text)
        if isinstance(answer, dict) and "y" not in answer:
            raise ValueError(f"the JSON object has no entry y; it has {', '.join(answer) or 'none'}")
        return answer["y"] if isinstance(answer, dict) else answer
    return np.loadtxt(io.StringIO(text), ndmin=1)


class Leash:
    """The programs that run now, so that a simulation which is interrupted leaves none behind."""

    def __init__(self):
        self._lock, self._held, self._off = threading.Lock(), set[subprocess.Popen](), False

    def hold(self, process: subprocess.Popen) -> None:
        """Remember a process that has started, so that it can be ended."""
        with self._lock:
            self._held.add(process)
            if self._off:
                end_group(process)

    def release(self, process: subprocess.Popen) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._held.discard(process)

    def let_none_run(self) -> None:
        """End the processes that run, and those that are yet to start."""
        with self._lock:
            self._off = True
            for process in self._held:
                end_group(process)


class _Thread(threading.local):
    """What each thread has for itself."""

    leash: Leash | None = None  # that of the executor whose thread it is


_thread = _Thread()


def _hold_with(leash: Leash) -> None:
    _thread.leash = leash


def completed(words: Sequence[str], given: bytes, timeout: float) -> tuple[int, bytes, bytes]:
    """The exit code, output and complaints of a program, which is killed with all that it started if it takes too long.

    Raises:
        subprocess.TimeoutExpired: If it took too long.
        OSError: If it cannot be started.
    """
    pipe, leash = subprocess.PIPE, _thread.leash or Leash()
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        leash.hold(process)
        try:
            printed, complaint = process.communicate(given, timeout=timeout)
        except BaseException:
            end_group(process)
            raise
        finally:
            leash.release(process)
    return process.returncode, printed, complaint


def end_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a session of its own, and all in its group."""
    with suppress(ProcessLookupError, PermissionError):  # the leader may be gone, and what it started not
        os.killpg(process.pid, signal.SIGKILL)
