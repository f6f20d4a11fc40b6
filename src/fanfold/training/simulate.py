"""Simulation ahead of training: so many draws of any problem, made in parallel and kept on disk.

A generator of typed events that the API and the command line consume. What was simulated once is not simulated again.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import singledispatch
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fanfold.core.events import DrawingEvent, DrawingFinished, DrawingStarted, DrawsKept, exhaust
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import kind_of
from fanfold.problems.simulators import Numbered, Simulations
from fanfold.problems.simulators.base import TRIAL_RUNS, grouped, refusal
from fanfold.problems.simulators.outcome import Outcome, judge, one_line
from fanfold.problems.simulators.python import code_identity
from fanfold.problems.simulators.store import Contents, writing
from fanfold.runs import recipe

GROUP_DRAWS = 64  # draws of a problem that are made, and stored, together: part of what decides them
JOBS_A_WORKER = 2  # that are handed out at once: one that runs, one that waits


@checks_arguments
def simulate(
    problem: Problem,
    count: int,
    store: str | Path,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    seed: int | None = None,
    retry_failed: bool = False,
    on_event: Callable[[DrawingEvent], None] | None = None,
) -> Simulations:
    """Draws 0 … count - 1 of a problem, simulated and kept in a folder; those that are there are not made again.

    Args:
        problem: A simulator, or any problem without an operator.
        count: How many draws to make, failed ones included.
        store: The folder; it is made if there is none.
        workers: How many runs go on at once. A program is started from threads, one for each core if not given; Python
            runs in this process if not given or 1, else in so many others, which import it.
        executor: An executor to run on instead, such as a cluster's; `workers` is then how many runs it may have at
            once.
        seed: The seed of the draws; the simulator's own if not given, so that its `draw` repeats them.
        retry_failed: Whether to make those draws again that are stored as failed.
        on_event: Called with each event.

    Returns:
        The pairs as a problem to train on; its `failures` counts the runs that failed, by kind.

    Raises:
        ValueError: If the folder holds draws of something else or is in use, or the simulator fails at its first runs.
        OSError: If the disk is full or a worker process dies; what was made is kept.
    """
    events = simulation_events(
        problem, count, store, workers=workers, executor=executor, seed=seed, retry_failed=retry_failed
    )
    exhaust(events, on_event)
    return Simulations(str(store))


def simulation_events(
    problem: Problem,
    count: int,
    store: str | Path,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    seed: int | None = None,
    retry_failed: bool = False,
) -> Generator[DrawingEvent, None, None]:
    """The simulation beneath `simulate`; if it is left early, programs that run are ended and nothing good is lost.

    Args:
        problem: A simulator, or any problem without an operator.
        count: How many draws to make, failed ones included.
        store: The folder; it is made if there is none.
        workers: How many runs go on at once, as in `simulate`.
        executor: An executor to run on instead, as in `simulate`.
        seed: The seed of the draws; the simulator's own if not given.
        retry_failed: Whether to make those draws again that are stored as failed.
    """
    if count < 1:
        raise ValueError(f"count is {count}; pass a positive number of draws.")
    simulator = numbered(problem)
    seed = simulator.seed if seed is None else seed
    workers, began = simulator.workers if workers is None else workers, time.perf_counter()
    if seed < 0:
        raise ValueError(f"the seed of the draws is {seed}; pass one from 0 on.")
    if workers < 1:
        raise ValueError(f"workers is {workers}; pass a positive number.")
    with writing(Path(store), {"problem": simulator.identity(), "seed": seed}) as kept:
        tally = Tally(count, kept.contents, retry_failed=retry_failed)
        yield DrawingStarted(str(store), count, tally.done, tally.failures, workers)
        jobs = grouped(tally.missing, simulator.together)
        with nullcontext(executor) if executor else simulator.executor(workers) as pool:
            for outcomes in completed(pool, simulator, seed, jobs, JOBS_A_WORKER * workers):
                kept.append(outcomes)
                tally.add(outcomes)
                yield DrawsKept(tally.done, tally.failures)
    yield DrawingFinished(str(store), tally.good, tally.made, time.perf_counter() - began, tally.failures)


def completed(
    pool: Executor, simulator: Numbered, seed: int, jobs: Iterator[list[int]], at_once: int
) -> Iterator[list[Outcome]]:
    """What becomes of the jobs, in the order in which they end.

    Args:
        pool: Where they run.
        simulator: What makes the draws.
        seed: The seed of the draws.
        jobs: The numbers of the draws of each job.
        at_once: How many jobs run or wait in the pool at most.

    Raises:
        OSError: If a worker process dies.
    """
    waiting: set[Future[list[Outcome]]] = set()
    try:
        while True:
            waiting |= {pool.submit(simulator.outcomes, seed, job) for job in islice(jobs, at_once - len(waiting))}
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenExecutor as error:
        raise OSError(
            "a worker process died, and with it the draws that it was making; those before are kept. A script that "
            "simulates with several workers needs `if __name__ == '__main__':`; a simulator that takes its process "
            "down is better a program (ff.problems.Program), whose crashes are recorded."
        ) from error
    finally:
        for future in waiting:
            future.cancel()


class Tally:
    """How many draws there are by now, which are missing, and how many failed, by kind.

    Args:
        count: How many draws were asked for.
        contents: What the store holds already.
        retry_failed: Whether stored failures count as missing.

    Example:
        >>> from fanfold.problems.simulators.store import Contents
        >>> from fanfold.training.simulate import Tally
        >>> Tally(3, Contents([]), retry_failed=False).missing
        [0, 1, 2]
    """

    def __init__(self, count: int, contents: Contents, *, retry_failed: bool):
        self._again = {f.index for f in contents.failed if f.index < count} if retry_failed else set[int]()
        kept = [f for f in contents.failed if f.index not in self._again]
        there = {*contents.good, *(f.index for f in kept)}
        self.missing = [index for index in range(count) if index not in there]
        self.made, self._first, self._before = 0, list[Outcome](), count - len(self.missing)
        self._failures = Counter(str(f.kind) for f in kept)
        self._shapes = Counter({contents.shape: len(contents.good)}) if contents.good else Counter()

    @property
    def done(self) -> int:
        """How many of the draws that were asked for were made, now or before."""
        return self._before + self.made

    @property
    def good(self) -> int:
        """How many draws have an observation of the shape that most have."""
        return max(self._shapes.values(), default=0)

    @property
    def failures(self) -> dict[str, int]:
        """How many draws have none, by kind."""
        other = self._shapes.total() - self.good
        return dict(self._failures + Counter({"wrong shape": other}))

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count what was made.

        Args:
            outcomes: What became of the runs.

        Raises:
            ValueError: If all of the first runs failed, but for those that are tried again.
        """
        self.made += len(outcomes)
        self._failures.update(o.failure for o in outcomes if o.failure)
        self._shapes.update(o.y.shape for o in outcomes if o.y is not None)
        if len(self._first) < TRIAL_RUNS:
            self._first += [o for o in outcomes if o.index not in self._again]  # those may well fail once more
            if len(self._first) >= TRIAL_RUNS and all(o.failure for o in self._first):
                raise ValueError(refusal(self._first))


@dataclass(frozen=True)
class AsSimulator(Numbered):
    """Any problem as a simulator of numbered draws, which are made in groups.

    Raises:
        ValueError: If the problem has an operator, or a noise variance for each draw, which a store does not keep.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.training.simulate import AsSimulator
        >>> AsSimulator(ff.problems.Modulation(symbols=8)).draw(3)[1].y.shape
        torch.Size([1, 8, 2])
    """

    problem: Problem = field()

    def __post_init__(self):
        if self.problem.A is not None:
            raise ValueError(
                f"{type(self.problem).__name__} has an operator A, which a store of simulations does not keep; its "
                "draws are cheap: train on the problem itself."
            )
        noise_var = self.problem.sample(2, torch.Generator().manual_seed(0))[1].noise_var
        if noise_var is not None and noise_var.ndim:
            raise ValueError(
                f"each draw of {type(self.problem).__name__} has a noise variance of its own, which a store does "
                "not keep: train on the problem itself, or put it among the measurements."
            )
        object.__setattr__(self, "kind", kind_of(self.problem))
        super().__post_init__()

    @property
    def together(self) -> int:
        return GROUP_DRAWS

    def identity(self) -> dict[str, Any]:
        facts = {"kind": self.kind, "together": GROUP_DRAWS}
        data = recipe.describe_problem(self.problem)
        if recipe.is_whole(data):
            return data | facts
        return {"problem": code_identity(self.problem)} | facts  # of a class of the user's own

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        outcomes = []
        for group in grouped(indices, GROUP_DRAWS):
            whole = self._group(seed, group[0] // GROUP_DRAWS)
            outcomes += [whole[index % GROUP_DRAWS] for index in group]
        return outcomes

    def _group(self, seed: int, number: int) -> list[Outcome]:
        """All draws of a group."""
        first = number * GROUP_DRAWS
        try:
            x, obs = draw(self.problem, GROUP_DRAWS, seed, Stream.SIMULATION, number)
        except (Exception, SystemExit) as error:
            no_x = np.empty(0)
            return [Outcome(first + i, no_x, failure="crash", detail=one_line(error)) for i in range(GROUP_DRAWS)]
        precision = str(obs.y.real.dtype).removeprefix("torch.")
        rows = zip(x.numpy(), obs.y.numpy())
        return [judge(first + i, a, b, self.kind, None, precision) for i, (a, b) in enumerate(rows)]


@singledispatch
def numbered(problem: Problem) -> Numbered:
    """The simulator of a problem's numbered draws: the problem itself if it is one."""
    return AsSimulator(problem)


@numbered.register
def _(problem: Numbered) -> Numbered:
    return problem
