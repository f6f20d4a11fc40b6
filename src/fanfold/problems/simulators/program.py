"""Simulators that are programs: parameters in, an observation out, over a command line."""

import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from fanfold.observation import Observation
from fanfold.problems.simulators.answer import understood
from fanfold.problems.simulators.base import Numbered, as_parameters, parameters_of, seeds_of
from fanfold.problems.simulators.outcome import Failure, Outcome, judge, one_line
from fanfold.problems.simulators.parameters import Bounds, Box, Parameters
from fanfold.problems.simulators.supervised import Supervisor, Supervisors, one_supervisor
from fanfold.problems.simulators.supervisor import Ending

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

    A run is over when its program has ended and nothing holds its output any more; one that takes too long or writes
    too much is killed. Whatever a run has started, in sessions of its own too, ends with it, and with this process
    however that ends. A run that fails in any way is tried again with the same seed, then recorded as a failure:
    "crash", "time-out", "too large", "non-finite", "wrong shape" or "unreadable".

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
    output_limit: float = 64.0  # MiB of output at which a run is killed

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.timeout < float("inf") or self.retries < 0:
            raise ValueError(f"timeout is {self.timeout} and retries {self.retries}; pass seconds, and 0 or more.")
        if not 0 < self.output_limit < float("inf"):
            raise ValueError(f"output_limit is {self.output_limit}; pass a positive number of MiB.")
        self._words(dict.fromkeys(PLACEHOLDERS, ""), np.zeros(1))

    @staticmethod
    def commands_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The command."""
        return [settings["command"]]

    def restricted(self, low: Bounds, high: Bounds) -> Self:
        """The same program with parameters from its prior given that each lies between its bounds."""
        return replace(self, prior=self.prior.between(low, high))

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
        team = Supervisors()
        pool = ThreadPoolExecutor(workers, initializer=team.serve_this_thread)
        try:
            yield pool
        except BaseException:
            team.end()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            team.end()

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        with one_supervisor() as supervisor:
            return [self._outcome(seed, index, supervisor) for index in indices]

    def _outcome(self, seed: int, index: int, supervisor: Supervisor) -> Outcome:
        for_x, for_y = seeds_of(seed, index)
        return self._at(index, parameters_of(self.prior, 1, for_x, self.dtype)[0], for_y, supervisor)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Those of the given parameters `(samples, d)` whose runs succeeded, and their observation.

        Raises:
            ValueError: If all runs fail.
        """
        seed, rows = int(torch.randint(2**62, (), generator=generator)), as_parameters(x, self.dtype)

        def run(index: int) -> Outcome:
            with one_supervisor() as supervisor:
                return self._at(index, rows[index], seeds_of(seed, index)[1], supervisor)

        with self.executor(self.workers) as pool:
            return self._kept([job.result() for job in [pool.submit(run, index) for index in range(len(rows))]])

    def _at(self, index: int, x: np.ndarray, for_y: int, supervisor: Supervisor) -> Outcome:
        """One run at given parameters, with its further tries."""
        outcome = self._run(index, x, for_y, supervisor)
        for _ in range(self.retries):
            if outcome.y is not None:
                break
            outcome = self._run(index, x, for_y, supervisor)
        return outcome

    def _run(self, index: int, x: np.ndarray, seed: int, supervisor: Supervisor) -> Outcome:
        """One try of a run."""
        files = {"input": supervisor.input_file, "output": supervisor.output_file}
        result = supervisor.run(
            self._words(files | {"seed": str(seed), "index": str(index)}, x),
            self._parameters(x, seed, index),
            timeout=self.timeout,
            limit=int(self.output_limit * 2**20),
            takes_file="{input}" in self.command,
            writes_file="{output}" in self.command,
        )
        failure = self._failure(result)
        if failure is None:
            try:
                return judge(index, x, understood(result.output), self.kind, self.shape, self.dtype)
            except ValueError as error:
                failure = "unreadable", one_line(error)
        return Outcome(index, x, failure=failure[0], detail=failure[1])

    def _failure(self, result: Ending) -> tuple[Failure, str] | None:
        """The kind of failure of a run, and what exactly went wrong; None if there is an output to read."""
        if result.ending == "time-out":
            detail = f"killed after {self.timeout:g} s"
            if result.code is not None:
                detail += "; the program had ended, but what it started held its output: send that elsewhere"
            return "time-out", detail
        if result.ending == "too large":
            return "too large", f"killed at more than {self.output_limit:g} MiB of output"
        if result.ending == "unreadable":
            return "unreadable", one_line(result.detail)
        if result.ending == "exited" and result.code == 0:
            return None
        code, last_line = result.code, one_line(result.detail)
        if code is None:  # it did not start, or was lost
            return "crash", last_line
        ending = f"exit code {code}" if code > 0 else f"signal {-code}"
        return "crash", f"{ending}: {last_line}" if last_line else ending

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
