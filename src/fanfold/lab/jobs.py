"""Processes that work for the lab: trainings that wait for a core, run, are cancelled and end, and short helpers."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fanfold.core.files import is_regular

Condition = Literal["waiting", "training", "cancelled", "failed", "finished", "stopped"]
LIVE = ("waiting", "training")
GRACE_SECONDS = 10.0  # that a process has to end by itself before it is killed
MOST_WAITING = 100  # trainings
LAST_WORDS = 20  # lines of what a process said that are kept
LONGEST_LINE = 2**16  # bytes of what a process says
INTERRUPTED = 130  # the exit code of a command that was interrupted


class Job:
    """A training of a run, as far as this lab knows it.

    Attributes:
        name: The name of the run's folder.
        words: The command that makes the run, or goes on with it.
        condition: Where it is.
        message: Why it failed, in a sentence; empty otherwise.
        attempt: How many times its training began.

    Example:
        >>> from fanfold.lab.jobs import Job
        >>> job = Job("first", ["train", "compressed-sensing", "ista"])
        >>> job.condition, job.live
        ('waiting', True)
    """

    def __init__(self, name: str, words: Sequence[str]):
        self.name, self.words = name, list(words)
        self.condition: Condition = "waiting"
        self.message = ""
        self.attempt = 0
        self.task: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None

    @property
    def live(self) -> bool:
        """Whether it waits or trains."""
        return self.condition in LIVE


class Jobs:
    """The trainings of a folder of runs; so many at once, the others wait for one to end.

    Args:
        folder: Where the runs are.
        at_once: How many train at once; one for each core, and four at most, if not given.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.jobs import Jobs
        >>> Jobs(Path("runs")).condition("nowhere")
        'stopped'
    """

    def __init__(self, folder: Path, at_once: int | None = None):
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.processes: set[asyncio.subprocess.Process] = set()
        self.ending = False
        self._room = asyncio.Semaphore(at_once or max(1, min(4, os.cpu_count() or 1)))

    def condition(self, name: str) -> Condition:
        """Where a run is; of one that this lab did not train, by its files."""
        job = self.jobs.get(name)
        if job is not None:
            return job.condition
        return "finished" if is_regular(self.folder / name / "weights.safetensors") else "stopped"

    def free_name(self, stem: str) -> str:
        """A name that no run has: `stem-1`, `stem-2`, …."""
        number = 1
        while f"{stem}-{number}" in self.jobs or os.path.lexists(self.folder / f"{stem}-{number}"):
            number += 1
        return f"{stem}-{number}"

    def begin(self, name: str, words: Sequence[str]) -> Job:
        """Let a training wait for its turn, a new one or one that goes on.

        Args:
            name: The name of the run.
            words: The words of the command after `fanfold`.

        Raises:
            ValueError: If it is live already, too many wait, or the lab ends.
        """
        self.check_idle(name)
        job = self.jobs.get(name) or Job(name, words)
        if self.ending:
            raise ValueError("the lab is ending; start it again: fanfold lab.")
        if sum(other.live for other in self.jobs.values()) >= MOST_WAITING:
            raise ValueError(f"{MOST_WAITING} trainings are waiting; cancel some, or wait for some to end.")
        job.words, job.condition, job.message = list(words), "waiting", ""
        self.jobs[name] = job
        job.task = asyncio.get_running_loop().create_task(self._train(job))
        return job

    def check_idle(self, name: str) -> None:
        """Refuse to begin what waits or trains.

        Raises:
            ValueError: If it does.
        """
        job = self.jobs.get(name)
        if job is not None and job.live:
            raise ValueError(f"{name} is {job.condition} already; wait for it, or cancel it.")

    async def _train(self, job: Job) -> None:
        try:
            async with self._room:
                job.condition, job.attempt = "training", job.attempt + 1
                job.process = await self._process("fanfold", job.words)
                code, _, said = await self._heard(job.process)
        except asyncio.CancelledError:
            job.condition = "cancelled"
            raise
        except OSError as error:
            job.condition, job.message = "failed", f"no process could be started: {error.strerror}."
            return
        finally:
            job.process = None
        if code == 0:
            job.condition = "finished"
        elif code == INTERRUPTED or self.ending:
            job.condition = "cancelled"
        else:
            job.condition, job.message = "failed", sentence_of(said, code)

    async def cancel(self, name: str) -> None:
        """Take a training out of the queue, or interrupt it; it keeps its last checkpoint, and can be resumed.

        Raises:
            ValueError: If it neither waits nor trains.
        """
        job = self.jobs.get(name)
        if job is None or not job.live or job.task is None:
            raise ValueError(f"{name} does not train here; there is nothing to cancel.")
        process = job.process
        if process is None:
            job.task.cancel()
        else:
            await self._end(process)
        with suppress(asyncio.CancelledError):
            await job.task
        if job.condition != "finished":  # which it was at that moment
            job.condition, job.message = "cancelled", ""

    async def help(self, module: str, words: Sequence[str]) -> bytes:
        """What a module of fanfold prints on its standard output, in a process of its own.

        Raises:
            ValueError: If it fails, with what it said last.
        """
        process = await self._process(module, words)
        code, out, said = await self._heard(process)
        if code:
            raise ValueError(sentence_of(said, code))
        return out

    async def close(self) -> None:
        """End all processes, trainings at their last checkpoints, and wait until none is left."""
        self.ending = True
        waiting = [job.task for job in self.jobs.values() if job.live and job.process is None and job.task]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*(self._end(process) for process in list(self.processes)))
        tasks = [job.task for job in self.jobs.values() if job.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _process(self, module: str, words: Sequence[str]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fanfold.lab.process", module, *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # so that Ctrl-C in the terminal ends the lab, and the lab its processes
        )  # fmt: skip
        self.processes.add(process)
        return process

    async def _heard(self, process: asyncio.subprocess.Process) -> tuple[int, bytes, list[str]]:
        """The exit code of a process, what it printed and the last lines of what it said."""
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            out, said = await asyncio.gather(process.stdout.read(), _last_lines(process.stderr))
            return await process.wait(), out, said
        except asyncio.CancelledError:
            await self._end(process)
            raise
        finally:
            self.processes.discard(process)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """Let go of a process, which ends as by Ctrl-C; kill it if it does not."""
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _last_lines(stream: asyncio.StreamReader) -> list[str]:
    """The last lines of a stream that is read to its end."""
    lines, rest = deque[str](maxlen=LAST_WORDS), b""
    while block := await stream.read(LONGEST_LINE):
        *whole, rest = (rest + block).split(b"\n")
        rest = rest[-LONGEST_LINE:]
        lines.extend(line.decode(errors="replace") for line in whole)
    return [*lines, rest.decode(errors="replace")] if rest else [*lines]


def sentence_of(said: Sequence[str], code: int) -> str:
    """Why a process failed: its last line, without the name of the program; or its exit code if it said nothing.

    Example:
        >>> from fanfold.lab.jobs import sentence_of
        >>> sentence_of(["runs/a: step 10", "fanfold: m is 9 and n is 4; compressed sensing takes 0 < m <= n."], 2)
        'm is 9 and n is 4; compressed sensing takes 0 < m <= n.'
        >>> sentence_of([], -9)
        'the process was killed by signal 9; is there too little memory?'
    """
    if code < 0:
        return f"the process was killed by signal {-code}; is there too little memory?"
    lines = [line for line in said if line.strip()]
    return lines[-1].removeprefix("fanfold: ").strip() if lines else f"the process ended with exit code {code}."
