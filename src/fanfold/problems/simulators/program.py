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
WORDS = ("input", "output", "seed", "index", "x")


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
    """

    command: str
    # pyrefly: ignore[bad-override]
    prior: Parameters = field(default_factory=Box)  # where the parameters come from
    timeout: float = 60.0  # seconds
    retries: int = 1  # further tries of a run that failed
    parameters_as: Format = "json"  # how the program reads them

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.timeout < float("inf") or self.retries < 0:
            raise ValueError(f"timeout is {self.timeout} and retries {self.retries}; pass seconds, and 0 or more.")
        if self.parameters_as not in ("json", "npy", "text"):
            raise ValueError(f"parameters_as is {self.parameters_as!r}; pass json, npy or text.")
        self._words(dict.fromkeys(WORDS, ""), np.zeros(1))

    def identity(self) -> dict[str, Any]:
        own = ("command", "kind", "shape", "parameters_as", "dtype")
        return {name: getattr(self, name) for name in own} | {"prior": repr(self.prior)}

    @property
    def workers(self) -> int:
        """One for each core that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @contextmanager
    def executor(self, workers: int) -> Iterator[Executor]:
        """Threads, each of which waits for its program; an exception ends the programs that run."""
        leash = Leash()
        pool = ThreadPoolExecutor(workers, initializer=_take, initargs=(leash,))
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
        """One try."""
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
                said = one_line(complaint.decode(errors="replace"))
                return Outcome(index, x, failure="crash", detail=f"{ending}: {said}" if said else ending)
            try:
                answer = understood(_written(Path(folder)) if "{output}" in self.command else printed)
            except (OSError, ValueError) as error:
                return Outcome(index, x, failure="unreadable", detail=one_line(error))
        return judge(index, x, answer, self.kind, self.shape, self.dtype)

    def _words(self, values: dict[str, str], x: np.ndarray) -> list[str]:
        """The command for one draw."""
        for name in re.findall(r"\{(\w+)\}", self.command):
            if name not in WORDS:
                raise ValueError(
                    f"the command has {{{name}}}; what is filled in is {', '.join(f'{{{w}}}' for w in WORDS)}. "
                    "Put a command that needs braces itself into a script."
                )
        words: list[str] = []
        for word in shlex.split(self.command):
            filled = re.sub(r"\{(input|output|seed|index)\}", lambda found: values[found[1]], word)
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
    found = sorted(folder.glob("output*"))
    if not found:
        raise FileNotFoundError("the program wrote no file {output}")
    return found[0].read_bytes()


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
    """Programs that run now, so that a simulation which is interrupted leaves none behind."""

    def __init__(self):
        self._lock, self._held, self._off = threading.Lock(), set[subprocess.Popen](), False

    def hold(self, process: subprocess.Popen) -> None:
        """From now on it can be ended."""
        with self._lock:
            self._held.add(process)
            if self._off:
                end_group(process)

    def release(self, process: subprocess.Popen) -> None:
        """It has ended."""
        with self._lock:
            self._held.discard(process)

    def let_none_run(self) -> None:
        """End those that run, and those that are yet to start."""
        with self._lock:
            self._off = True
            for process in self._held:
                end_group(process)


_thread = threading.local()


def _take(leash: Leash) -> None:
    _thread.leash = leash


def completed(words: Sequence[str], given: bytes, timeout: float) -> tuple[int, bytes, bytes]:
    """Exit code, output and complaints of a program; if it takes too long it is killed with all that it started.

    Raises:
        subprocess.TimeoutExpired: If it took too long.
        OSError: If it cannot be started.
    """
    pipe, leash = subprocess.PIPE, getattr(_thread, "leash", None) or Leash()
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
