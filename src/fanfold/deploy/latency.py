"""The time of one call in each backend against the slot, and against what this machine needs for the bare work.

The floor is measured beside it: a plain read of the weights in the order in which the program uses them, and the same
number of multiply-accumulates out of the first cache. A budget is a fifth of a slot of 5G NR, 3GPP TS 38.211, 4.3.2.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from fanfold.core.abilities import ability
from fanfold.deploy.backends import INTEGER_RUNNERS, NEEDS, RUNNERS, missing
from fanfold.deploy.codegen.bench import measure_c
from fanfold.deploy.codegen.compiled import CompiledC, compiled
from fanfold.deploy.cost import Timing, multiply_accumulates, stored_numbers, timed_us
from fanfold.deploy.integer import drafted
from fanfold.estimators.base import InWholeNumbers
from fanfold.observation import Estimator, Observation

SLOT_US = 1000.0  # at numerology 0; each further one halves it
SHARE = 0.2  # of a slot
NUMEROLOGIES = (0, 1, 2, 3)
BACKENDS = tuple(NEEDS)
NOT_INSTALLED = "not installed"


class BackendLatency(NamedTuple):
    """What one backend takes for a call.

    Attributes:
        backend: Its name.
        timing: The times; None where the backend cannot run the estimator, and `note` says why.
        budget_us: What a call may take.
        memory_floor_us, arithmetic_floor_us: What this machine takes to read the weights, and for as many products;
            None where no C compiler measures it.
        multiply_accumulates: Of a call, in real numbers.
        weight_bytes: Of what is stored.
        workspace_bytes, stack_bytes: Of the C program; None elsewhere.
        note: Why there is no time, or nothing.

    Example:
        >>> import fanfold as ff
        >>> late = ff.deploy.BackendLatency("c", ff.deploy.Timing.of([80.0, 120.0]), budget_us=100.0)
        >>> late.within, late.as_row()["median_us"]
        (False, 80.0)
    """

    backend: str
    timing: Timing | None
    budget_us: float
    memory_floor_us: float | None = None
    arithmetic_floor_us: float | None = None
    multiply_accumulates: float | None = None
    weight_bytes: int | None = None
    workspace_bytes: int | None = None
    stack_bytes: int | None = None
    note: str = ""

    @property
    def floor_us(self) -> float | None:
        """The higher of the two floors."""
        floors = [f for f in (self.memory_floor_us, self.arithmetic_floor_us) if f is not None]
        return max(floors, default=None)

    @property
    def within(self) -> bool | None:
        """Whether 99 % of the calls are within the budget."""
        return None if self.timing is None else self.timing.p99 <= self.budget_us

    def as_row(self) -> dict[str, Any]:
        """The row of a table."""
        t, floor = self.timing, self.floor_us
        return {
            "backend": self.backend,
            "min_us": None if t is None else t.minimum,
            "median_us": None if t is None else t.median,
            "p99_us": None if t is None else t.p99,
            "p99.9_us": None if t is None else t.p999,
            "budget_us": self.budget_us,
            "within": self.within,
            "memory_floor_us": self.memory_floor_us,
            "arithmetic_floor_us": self.arithmetic_floor_us,
            "median_over_floor": None if t is None or not floor else t.median / floor,
            "multiply_accumulates": self.multiply_accumulates,
            "weight_bytes": self.weight_bytes,
            "workspace_bytes": self.workspace_bytes,
            "stack_bytes": self.stack_bytes,
            "note": self.note,
        }


def slot_budget_us(numerology: int) -> float:
    """The microseconds that an estimator may take: a fifth of the slot of a numerology, 0 to 3.

    Raises:
        ValueError: If there is no such numerology.

    Example:
        >>> import fanfold as ff
        >>> ff.deploy.slot_budget_us(1)
        100.0
    """
    if numerology not in NUMEROLOGIES:
        raise ValueError(f"numerology is {numerology}; choose 0, 1, 2 or 3, for slots of 1000, 500, 250 or 125 µs.")
    return SHARE * SLOT_US / 2**numerology


def checked_backends(backends: Sequence[str], calls: int = 1) -> list[str]:
    """The names of backends, all of which are known.

    Raises:
        ValueError: If one is not, there are none, or there are no calls to be timed.
    """
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise ValueError(f"no backend {unknown[0]!r}; there are {', '.join(BACKENDS)}.")
    if not backends:
        raise ValueError(f"no backend is named; choose some of {', '.join(BACKENDS)}.")
    if calls < 1:
        raise ValueError(f"calls is {calls}; time at least one call.")
    return list(backends)


def time_backends(
    estimator: Estimator,
    example: Observation,
    backends: Sequence[str] = ("eager", "onnx", "c"),
    *,
    numerology: int = 1,
    calls: int = 1000,
) -> list[BackendLatency]:
    """The time of a call for one sample in each backend: warmed up, on one core and one thread.

    Args:
        estimator: Any estimator.
        example: An observation of at least two samples; the first is timed.
        backends: Some of eager, onnx, c and openvino. One that is not installed, or cannot run the estimator, says so
            in its row.
        numerology: µ of the slot, of which a fifth is the budget.
        calls: How many calls are timed, after a tenth as many.

    Raises:
        ValueError: If a backend or the numerology is not known, or there are no calls.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> (eager,) = ff.deploy.time_backends(ff.iterate(ff.algorithms.ISTA(), 3), obs, ["eager"], calls=20)
        >>> eager.budget_us, eager.timing.calls
        (100.0, 20)
    """
    checked_backends(backends, calls)
    budget = slot_budget_us(numerology)
    with one_core(), torch.no_grad():
        return [_timed(name, estimator, example, budget, calls) for name in backends]


def _timed(backend: str, estimator: Estimator, example: Observation, budget: float, calls: int) -> BackendLatency:
    if lacks := missing(backend):
        return BackendLatency(backend, None, budget, note=f"{NOT_INSTALLED}: {', '.join(lacks)}")
    try:
        if backend in INTEGER_RUNNERS and (whole := ability(estimator, InWholeNumbers)) is not None:
            return _timed_in_integers(backend, whole, example, budget, calls)
        if backend == "c":
            return time_c(compiled(estimator, example), example, budget, calls)
        call = RUNNERS[backend](estimator, example)
    except (ValueError, RuntimeError) as error:
        return BackendLatency(backend, None, budget, note=str(error).splitlines()[0])
    return BackendLatency(
        backend,
        Timing.of(timed_us(call, calls)),
        budget,
        multiply_accumulates=multiply_accumulates(estimator, example[:1]),
        weight_bytes=4 * stored_numbers(estimator),
    )


def _timed_in_integers(
    backend: str, whole: InWholeNumbers, example: Observation, budget: float, calls: int
) -> BackendLatency:
    """The times of an integer program, called from Python."""
    program = drafted(whole)
    numbers = {name: value[:1].resolve_conj().numpy() for name, value in whole.form.numbers(example).items()}
    call = INTEGER_RUNNERS[backend](program, {port.name: port.integers(numbers[port.name]) for port in program.inputs})
    return BackendLatency(
        backend,
        Timing.of(timed_us(call, calls)),
        budget,
        multiply_accumulates=program.multiply_accumulates,
        weight_bytes=program.weight_bytes,
        note="in whole numbers",
    )


def time_c(network: CompiledC, example: Observation, budget: float, calls: int) -> BackendLatency:
    """The times of a C program, taken in C, with its floors in turn; see `time_backends`."""
    network.load(example)
    taken = measure_c(network, calls)
    program = network.files.program
    return BackendLatency(
        "c",
        Timing.of(taken.program_us),
        budget,
        memory_floor_us=Timing.of(taken.memory_us).median,
        arithmetic_floor_us=Timing.of(taken.arithmetic_us).median,
        multiply_accumulates=program.products,
        weight_bytes=program.weight_bytes,
        workspace_bytes=program.workspace_bytes,
        stack_bytes=taken.stack_bytes,
    )


@contextmanager
def one_core() -> Generator[None]:
    """A block on one core, where the system can pin, and on one thread of torch."""
    threads = torch.get_num_threads()
    pinned = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(1)
    try:
        if pinned:
            os.sched_setaffinity(0, {max(pinned)})
        yield
    finally:
        torch.set_num_threads(threads)
        if pinned:
            os.sched_setaffinity(0, pinned)
