"""Simulation ahead of training: so many draws of any problem, made in parallel and kept on disk.

A generator of typed events that the API and the command line consume. What was simulated once is not simulated again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fanfold.core.streams import Stream
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.simulators import Numbered, Simulations
from fanfold.problems.simulators.base import FIRST, grouped, refusal
from fanfold.problems.simulators.outcome import Outcome, judge, one_line
from fanfold.problems.simulators.python import source_of
from fanfold.problems.simulators.store import Contents, writing
from fanfold.runs import recipe

CHUNK = 64  # draws of a problem that are made, and stored, together


@dataclass(frozen=True)
class SimulationStarted:
    """Simulation begins; so many of the `count` draws are there already, good or failed."""

    store: str
    count: int
    good: int
    failed: dict[str, int]  # by kind
    workers: int


@dataclass(frozen=True)
class Simulated:
    """Some draws were made and are stored; the numbers are of all draws so far."""

    done: int
    failed: dict[str, int]  # by kind


@dataclass(frozen=True)
class SimulationFinished:
    """All draws are there; `made` is how many of them this call made."""

    store: str
    good: int
    failed: dict[str, int]  # by kind
    made: int
    seconds: float


SimulationEvent = SimulationStarted | Simulated | SimulationFinished


def simulate(
    problem: Problem,
    count: int,
    store: str | Path,
    *,
    on_event: Callable[[SimulationEvent], None] | None = None,
    **settings: Any,
) -> Simulations:
    """Draws 0 … count - 1 of a problem, simulated and kept in a folder; those that are there are not made again.

    Args:
        problem: A simulator, or any problem without an operator.
        count: How many draws, failed ones included.
        store: The folder; made if there is none.
        on_event: Called with each event.
        **settings: As of `simulation_events`.

    Returns:
        The pairs as a problem to train on; its `failures` counts the runs that failed, by kind.

    Raises:
        ValueError: If the folder holds draws of something else or is in use, or the simulator fails at its first runs.
        OSError: If the disk is full or a worker process dies; what was made is kept.
    """
    for event in simulation_events(problem, count, store, **settings):
        if on_event:
            on_event(event)
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
) -> Iterator[SimulationEvent]:
    """The simulation beneath `simulate`; if it is left early, programs that run are ended and nothing good is lost.

    Args:
        problem: A simulator, or any problem without an operator.
        count: How many draws, failed ones included.
        store: The folder.
        workers: Runs at once. A program is started from threads, one for each core if not given; Python runs in this
            process if not given or 1, else in so many others, which import it.
        executor: Where to run instead, such as a cluster's; `workers` is then how many runs it may have at once.
        seed: Of the draws; the simulator's own if not given, so that its `draw` repeats them.
        retry_failed: Make those again that are stored as failed.
    """
    if count < 1:
        raise ValueError(f"count is {count}; pass a positive number of draws.")
    simulator = problem if isinstance(problem, Numbered) else Drawn(problem)
    seed = simulator.seed if seed is None else seed
    workers, began = workers or simulator.workers, time.perf_counter()
    if workers < 1:
        raise ValueError(f"workers is {workers}; pass a positive number.")
    with writing(Path(store), {"problem": simulator.identity(), "seed": seed}) as kept:
        tally = Tally(count, kept.contents, retry_failed=retry_failed)
        yield SimulationStarted(str(store), count, tally.good, tally.failed, workers)
        jobs = grouped(tally.missing, simulator.together)
        with nullcontext(executor) if executor else simulator.executor(workers) as pool:
            for outcomes in completed(pool, simulator, seed, jobs, 2 * workers):
                kept.append(outcomes)
                tally.add(outcomes)
                yield Simulated(tally.done, tally.failed)
    seconds = time.perf_counter() - began
    yield SimulationFinished(str(store), tally.good, tally.failed, tally.made, seconds)


def completed(
    pool: Executor, simulator: Numbered, seed: int, jobs: Iterator[list[int]], most: int
) -> Iterator[list[Outcome]]:
    """What becomes of the jobs, in the order in which they end; at most so many wait at once.

    Raises:
        OSError: If a worker process dies.
    """
    waiting: set[Future[list[Outcome]]] = set()
    try:
        while True:
            waiting |= {pool.submit(simulator.outcomes, seed, job) for job in islice(jobs, most - len(waiting))}
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
    """How many draws there are by now, which are missing, and how many failed, by kind."""

    def __init__(self, count: int, contents: Contents, *, retry_failed: bool):
        again = {f.index for f in contents.failed if f.index < count} if retry_failed else set()
        kept = [f for f in contents.failed if f.index not in again]
        there = {*contents.good, *(f.index for f in kept)}
        self.missing = [index for index in range(count) if index not in there]
        self.made, self._first, self._before = 0, list[Outcome](), count - len(self.missing)
        self._failed = Counter(str(f.kind) for f in kept)
        self._shapes = Counter({contents.shape: len(contents.good)}) if contents.good else Counter()

    @property
    def done(self) -> int:
        """Of the draws that were asked for, how many were made, now or before."""
        return self._before + self.made

    @property
    def good(self) -> int:
        """Draws with an observation of the shape that most have."""
        return max(self._shapes.values(), default=0)

    @property
    def failed(self) -> dict[str, int]:
        """Draws without, by kind."""
        other = self._shapes.total() - self.good
        return dict(self._failed + Counter({"wrong shape": other}))

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count what was made.

        Raises:
            ValueError: If all of the first runs failed.
        """
        self.made += len(outcomes)
        self._failed.update(o.failure for o in outcomes if o.failure)
        self._shapes.update(o.y.shape for o in outcomes if o.y is not None)
        if len(self._first) < FIRST:
            self._first += outcomes
            if len(self._first) >= FIRST and all(o.failure for o in self._first):
                raise ValueError(refusal(self._first))


@dataclass(frozen=True)
class Drawn(Numbered):
    """Any problem as a simulator of numbered draws, which are made in chunks.

    Raises:
        ValueError: If the problem has an operator, which a store of pairs does not keep.
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
        object.__setattr__(self, "kind", getattr(self.problem, "kind", "vector"))
        super().__post_init__()

    @property
    def together(self) -> int:
        return CHUNK

    def identity(self) -> dict[str, Any]:
        facts = {"kind": self.kind, "together": CHUNK}
        try:
            return recipe.describe_problem(self.problem) | facts
        except ValueError:  # a class of the user's own
            return {"problem": source_of(self.problem)} | facts

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        found = []
        for some in grouped(indices, CHUNK):
            chunk = self._chunk(seed, some[0] // CHUNK)
            found += [chunk[index % CHUNK] for index in some]
        return found

    def _chunk(self, seed: int, number: int) -> list[Outcome]:
        first = number * CHUNK
        try:
            x, obs = draw(self.problem, CHUNK, seed, Stream.SIMULATION, number)
        except Exception as error:
            none = np.empty(0)
            return [Outcome(first + i, none, failure="crash", detail=one_line(error)) for i in range(CHUNK)]
        precision = str(obs.y.real.dtype).removeprefix("torch.")
        rows = zip(x.numpy(), obs.y.numpy())
        return [judge(first + i, a, b, self.kind, None, precision) for i, (a, b) in enumerate(rows)]
