"""Processes that work for the lab: trainings that wait for a core, run, are cancelled and end, and short helpers."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fanfold.core.files import is_regular
from fanfold.lab.workers import Work, Workers

Condition = Literal["waiting", "training", "cancelled", "failed", "finished", "stopped"]
LIVE = ("waiting", "training")
MOST_WAITING = 100  # trainings
FURTHER = "--quantise"
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
        self.work: Work | None = None
        self.ending = False  # whether it was cancelled

    @property
    def live(self) -> bool:
        """Whether it waits or trains."""
        return self.condition in LIVE

    @property
    def further(self) -> list[str]:
        """The flag by which the run is then trained on in whole numbers, and its value; empty if it is not."""
        if FURTHER not in self.words:
            return []
        at = self.words.index(FURTHER)
        return self.words[at : at + 2]

    @property
    def integers(self) -> str | None:
        """The name of the run that this one is trained on into, if there is one."""
        return f"{self.name}-{self.further[1]}" if self.further else None


class Jobs:
    """The trainings of a folder of runs; so many at once, the others wait for one to end.

    Args:
        folder: Where the runs are.
        at_once: How many train at once; one for each core, and four at most, if not given.
        workers: The processes that do the work.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.lab.jobs import Jobs
        >>> Jobs(Path("runs")).condition("nowhere")
        'stopped'
    """

    def __init__(self, folder: Path, at_once: int | None = None, workers: Workers | None = None):
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.workers = Workers() if workers is None else workers
        self.ending = False
        self._room = asyncio.Semaphore(at_once or max(1, min(4, os.cpu_count() or 1)))

    def condition(self, name: str) -> Condition:
        """Where a run is; of one that this lab did not train, by its files."""
        job, trained = self._job_of(name), is_regular(self.folder / name / "weights.safetensors")
        if job is not None and not (
            job.condition == "cancelled" and trained
        ):  # in whole numbers, after its own training
            return job.condition
        return "finished" if trained else "stopped"

    def stopped(self) -> dict[str, list[str]]:
        """Trainings that were begun here and cancelled, by run, with the flags that go on with each."""
        runs = dict[str, list[str]]()
        for name, job in self.jobs.items():
            if self.condition(name) == "cancelled":
                runs[name] = job.further
            elif job.integers is not None and self.condition(job.integers) == "stopped":
                runs[job.integers] = []
        return runs

    def _job_of(self, name: str) -> Job | None:
        """The job of a run, or the one that is training another run on into it."""
        training = (job for job in self.jobs.values() if job.condition == "training" and job.integers == name)
        return self.jobs.get(name) or next(training, None)

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
        job.words, job.condition, job.message, job.ending = list(words), "waiting", "", False
        self.jobs[name] = job
        job.task = asyncio.get_running_loop().create_task(self._train(job))
        return job

    def check_idle(self, name: str) -> None:
        """Refuse to begin what waits or trains.

        Raises:
            ValueError: If it does.
        """
        job = self._job_of(name)
        if job is not None and job.live:
            raise ValueError(f"{name} is {job.condition} already; wait for it, or cancel it.")

    async def _train(self, job: Job) -> None:
        try:
            async with self._room:
                job.condition, job.attempt, job.work = "training", job.attempt + 1, self.workers.hire()
                code, _, said = await self.workers.done(job.work, "fanfold", job.words)
        except asyncio.CancelledError:
            job.condition = "cancelled"
            raise
        except OSError as error:
            job.condition, job.message = "failed", f"no process could be started: {error.strerror}."
            return
        finally:
            job.work = None
        if code == 0:
            job.condition = "finished"
        elif code == INTERRUPTED or job.ending or self.ending:
            job.condition = "cancelled"
        else:
            job.condition, job.message = "failed", sentence_of(said, code)

    async def cancel(self, name: str) -> None:
        """Take a training out of the queue, or interrupt it; it keeps its last checkpoint, and can be resumed.

        Raises:
            ValueError: If it neither waits nor trains.
        """
        job = self._job_of(name)
        if job is None or not job.live or job.task is None:
            raise ValueError(f"{name} does not train here; there is nothing to cancel.")
        job.ending = True
        if job.work is None:
            job.task.cancel()
        else:
            await job.work.end()
        with suppress(asyncio.CancelledError):
            await job.task
        _settle(job)

    async def help(self, module: str, words: Sequence[str]) -> bytes:
        """What a module of fanfold prints on its standard output, in a process of its own.

        Raises:
            ValueError: If it fails, with what it said last.
        """
        code, out, said = await self.workers.done(self.workers.hire(), module, words)
        if code:
            raise ValueError(sentence_of(said, code))
        return out

    async def close(self) -> None:
        """End all processes, trainings at their last checkpoints, and wait until none is left."""
        self.ending = True
        tasks = [job.task for job in self.jobs.values() if job.task]
        for job in self.jobs.values():
            if job.live and job.work is None and job.task:
                job.task.cancel()
        await self.workers.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in self.jobs.values():
            _settle(job)


def _settle(job: Job) -> None:
    """Say of a training whose turn never came that it was cancelled."""
    if job.live:
        job.condition = "cancelled"


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
