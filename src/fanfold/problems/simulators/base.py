"""Simulators whose draws are numbered: each has a seed of its own and can be repeated alone."""

import os
import pickle
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from multiprocessing import get_context, parent_process
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fanfold.core.precision import dtype_named
from fanfold.observation import Observation
from fanfold.problems.base import Described
from fanfold.problems.kinds import AXES, Kind
from fanfold.problems.simulators.outcome import Outcome

TRIAL_RUNS = 10  # a simulator that fails at so many first runs, all of them, is refused
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Numbered(Described, ABC):
    """A simulator as a problem. Failed runs are counted, left out, and replaced by further draws.

    Where failures depend on the parameters, what is left is drawn from the prior given that the run succeeds.

    Raises:
        ValueError: If the kind is unknown or the shape has not its axes.

    Example:
        >>> import fanfold as ff
        >>> simulator = ff.problems.Simulator(ff.problems.Box((0.0,), (1.0,)), lambda x, generator: 2 * x)
        >>> isinstance(simulator, ff.problems.simulators.Numbered), simulator.draw(3)[1].y.shape
        (True, torch.Size([1, 1]))
    """

    kind: Kind = field(default="vector", kw_only=True)  # kind of an observation
    shape: tuple[int, ...] | None = field(default=None, kw_only=True)  # its shape; that of most draws if not given
    dtype: Precision = field(default="float32", kw_only=True)  # precision of parameters and observations
    seed: int = field(default=0, kw_only=True)  # seed of the draws, as `draw` and `simulate` number them

    A = None

    def __post_init__(self):
        axes, shape = AXES[self.kind], self.shape
        if shape is not None and (len(shape) != axes or min(shape) < 1):
            raise ValueError(
                f"shape is {shape} and the kind {self.kind!r}, which has {axes} axes; pass the shape of one "
                "observation, without the batch."
            )

    @abstractmethod
    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        """The draws with these numbers, one after another; the same numbers give the same."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the draws, as plain data: simulators with the same identity and seed draw the same."""

    @property
    def together(self) -> int:
        """How many draws are always made together: those whose numbers have one quotient by it."""
        return 1

    @property
    def workers(self) -> int:
        """How many runs go on at once if nobody says otherwise."""
        return 1

    @contextmanager
    def executor(self, workers: int) -> Iterator[Executor]:
        """An executor for runs: in this process for one worker, else in so many others, which import the simulator.

        Raises:
            ValueError: If others cannot import it.
        """
        if workers == 1:
            yield InThisThread()
            return
        try:
            pickle.dumps(self)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"worker processes cannot import the simulator ({error}); define its functions at the top of a module, "
                "or take workers=1."
            ) from error
        spawn = get_context("spawn")  # torch's threads do not survive a fork
        pool = ProcessPoolExecutor(workers, spawn, initializer=begin_worker)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)

    @property
    def failures(self) -> Mapping[str, int]:
        """How many runs failed in `sample` since this object was made, by kind."""
        return dict(self._failures)

    @cached_property
    def _failures(self) -> Counter[str]:
        return Counter()

    def expected_shape(self) -> tuple[int, ...]:
        """The shape of an observation: the given one, or that of most of the first draws, which are made once for it.

        Raises:
            ValueError: If all of them fail.
        """
        return self._shape_of_most if self.shape is None else tuple(self.shape)

    @cached_property
    def _shape_of_most(self) -> tuple[int, ...]:
        with self.executor(self.workers) as pool:
            groups = grouped(range(TRIAL_RUNS), self.together)
            jobs = [pool.submit(self.outcomes, self.seed, indices) for indices in groups]
            outcomes = [outcome for job in jobs for outcome in job.result()]
        shapes = Counter(o.y.shape for o in outcomes if o.y is not None)
        if not shapes:
            raise ValueError(refusal(outcomes))
        return shapes.most_common(1)[0][0]

    def draw(self, index: int) -> tuple[Tensor, Observation]:
        """Draw number `index` of this simulator's seed alone, as a batch of one, bit for bit as among others.

        Raises:
            ValueError: If the run fails.
        """
        (outcome,) = self.outcomes(self.seed, [index])
        if outcome.y is None:
            raise ValueError(f"draw {index} of seed {self.seed} fails, {outcome.failure}: {outcome.detail}")
        return stacked([outcome])

    def _kept(self, outcomes: Sequence[Outcome]) -> tuple[Tensor, Observation]:
        """What succeeded of runs at given parameters; the others are counted.

        Raises:
            ValueError: If none did.
        """
        outcomes = [of_shape(outcome, self.expected_shape()) for outcome in outcomes]
        self._failures.update(o.failure for o in outcomes if o.failure)
        good = [o for o in outcomes if o.y is not None]
        if not good:
            last = outcomes[-1]
            raise ValueError(
                f"all {len(outcomes)} runs at given parameters failed, the last: {last.failure}, {last.detail}."
            )
        return stacked(good)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs whose runs succeeded: x `(n, d)` and their observation.

        Raises:
            ValueError: If all of the first runs fail.
        """
        seed, tried, shape = int(torch.randint(2**62, (), generator=generator)), 0, self.expected_shape()
        good: list[Outcome] = []
        with self.executor(self.workers) as pool:
            while len(good) < n:
                groups = grouped(range(tried, tried + n - len(good)), self.together)
                jobs = [pool.submit(self.outcomes, seed, indices) for indices in groups]
                outcomes = [of_shape(o, shape) for job in jobs for o in job.result()]
                self._failures.update(o.failure for o in outcomes if o.failure)
                good += [o for o in outcomes if o.y is not None]
                tried += len(outcomes)
                if tried >= TRIAL_RUNS and not good:
                    raise ValueError(refusal(outcomes))
        return stacked(good)


def as_parameters(x: Tensor, dtype: Precision) -> np.ndarray:
    """Given parameters as a simulator takes them, `(samples, d)`.

    Raises:
        ValueError: If they are anything else than real, finite numbers of that shape.
    """
    if x.ndim != 2 or x.numel() == 0 or x.is_complex() or not torch.isfinite(x).all():
        raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}; pass real, finite parameters (samples, d).")
    return x.detach().to(dtype_named(dtype)).numpy()


def seeds_of(seed: int, index: int) -> tuple[int, int]:
    """Two independent seeds of a draw: of its parameters, and of its run, the latter of 31 bits as programs take it."""
    for_x, for_y = np.random.SeedSequence((seed, index)).generate_state(2, np.uint64)
    return int(for_x >> np.uint64(1)), int(for_y >> np.uint64(33))


def parameters_of(prior: Any, n: int, seed: int, dtype: Precision) -> np.ndarray:
    """`n` draws of the parameters, `(n, d)`.

    Raises:
        ValueError: If the prior gives anything else than real, finite numbers of that shape.
    """
    x = torch.as_tensor(prior(n, torch.Generator().manual_seed(seed)))
    if x.ndim != 2 or len(x) != n or x.shape[-1] == 0 or x.is_complex() or not torch.isfinite(x).all():
        raise ValueError(
            f"the prior gave {x.dtype} of shape {tuple(x.shape)} for {n} draws; it must give real, finite parameters "
            f"of shape ({n}, d)."
        )
    return x.to(dtype_named(dtype)).numpy()


def grouped(indices: Iterable[int], chunk: int) -> Iterator[list[int]]:
    """The numbers of draws in lists, those of a chunk together.

    Args:
        indices: The numbers, rising.
        chunk: How many draws are always made together.
    """
    return (list(group) for _, group in groupby(indices, key=lambda index: index // chunk))


def of_shape(outcome: Outcome, shape: tuple[int, ...]) -> Outcome:
    """The outcome, as a failure if its observation has another shape."""
    if outcome.y is None or outcome.y.shape == shape:
        return outcome
    return outcome._replace(y=None, failure="wrong shape", detail=f"{outcome.y.shape} instead of {shape}")


def stacked(good: Sequence[Outcome]) -> tuple[Tensor, Observation]:
    """Successful outcomes as pairs; real where all are, else complex."""
    x, y = np.stack([o.x for o in good]), np.stack([o.y for o in good if o.y is not None])
    return torch.from_numpy(x), Observation(torch.from_numpy(y))


def refusal(outcomes: Sequence[Outcome]) -> str:
    """The sentence that says why a simulator, whose first runs all failed, is of no use."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(o.failure for o in outcomes).items())
    last = outcomes[-1]
    return (
        f"all of the first {len(outcomes)} runs failed ({kinds}); the last, draw {last.index} with x = "
        f"{np.array2string(last.x, precision=4)}: {last.failure}, {last.detail}. Mend the simulator first; "
        f"its draw({last.index}) repeats this run alone."
    )


def begin_worker() -> None:
    """Prepare a worker process: one thread for its sums, and another that ends it when the process it works for ends.

    The pool's queue would keep it waiting for work, as the workers hold the queue open for each other.
    """
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class InThisThread(Executor):
    """An executor that does each thing at once, in the thread that asks.

    Example:
        >>> from fanfold.problems.simulators.base import InThisThread
        >>> InThisThread().submit(pow, 2, 10).result()
        1024
    """

    def submit(self, fn, /, *args, **kwargs):
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
