"""The cost of one call: multiply-accumulates of its matrix products, numbers it stores, microseconds it takes."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fanfold.deploy.backends import RUNNERS, missing
from fanfold.observation import Estimator, Observation

REAL_PER_COMPLEX = 4  # multiply-accumulates
FIRST_FACTOR = {torch.ops.aten.mv: 0, torch.ops.aten.dot: 0, torch.ops.aten.addmv: 1}  # position among the arguments


class Timing(NamedTuple):
    """The time of repeated calls, in microseconds.

    Attributes:
        minimum, median, p99, p999: The fastest, and those that half, 99 % and 99.9 % of the calls do not exceed.
        calls: How many there were.

    Example:
        >>> import fanfold as ff
        >>> ff.deploy.Timing.of([1.0] * 99 + [5.0]).median
        1.0
    """

    minimum: float
    median: float
    p99: float
    p999: float
    calls: int

    @classmethod
    def of(cls, times_us: Sequence[float] | np.ndarray) -> "Timing":
        """Of the times of calls."""
        ordered = np.sort(np.asarray(times_us, float))
        median, p99, p999 = (float(ordered[int(np.ceil(q * len(ordered))) - 1]) for q in (0.5, 0.99, 0.999))
        return cls(float(ordered[0]), median, p99, p999, len(ordered))


class _Count(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        each = REAL_PER_COMPLEX if isinstance(out, Tensor) and out.is_complex() else 1
        if packet in flop_registry:
            self.total += each * flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        elif packet in FIRST_FACTOR:
            self.total += each * args[FIRST_FACTOR[packet]].numel()
        return out


@torch.no_grad()
def multiply_accumulates(estimator: Estimator, obs: Observation) -> float:
    """The real multiply-accumulates a sample in matrix products and convolutions; a complex one counts as four.

    What else a call does is not counted, element by element or in solvers, eigenvectors and Fourier transforms; nor
    what was computed before and kept: the estimator is called once beforehand.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> ff.deploy.multiply_accumulates(ff.iterate(ff.algorithms.ISTA(), 10), obs)  # 10 steps of 2 products
        16000.0
    """
    estimator(obs)
    with _Count() as count:
        estimator(obs)
    return count.total / max(1, obs.y[..., 0].numel())


def stored_numbers(estimator: Estimator) -> int:
    """The real numbers in the parameters and buffers of a module; 0 of anything else."""
    if not isinstance(estimator, nn.Module):
        return 0
    tensors = [*estimator.parameters(), *estimator.buffers()]
    return sum(t.numel() * (2 if t.is_complex() else 1) for t in tensors if t.is_floating_point() or t.is_complex())


def timed_us(call: Callable[[], object], calls: int) -> list[float]:
    """The microseconds of each call, after a tenth as many to warm up."""
    for _ in range(max(3, calls // 10)):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times


@torch.no_grad()
def latency_us(call: Callable[[], object], calls: int = 200) -> Timing:
    """The time of a call after a tenth as many to warm up, on as many threads as are set.

    Example:
        >>> import fanfold as ff
        >>> latency = ff.deploy.latency_us(lambda: sum(range(100)), calls=20)
        >>> 0 < latency.median <= latency.p99
        True
    """
    return Timing.of(timed_us(call, calls))


def call_costs(estimator: Estimator, obs: Observation) -> dict[str, float | None]:
    """The costs of a call with the first of these observations: trained and stored numbers, products, time.

    Numbers and multiply-accumulates are real; times are microseconds on one thread, and that of ONNX Runtime is None
    for what has learned nothing, or cannot be exported, and where the runtime is not installed.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> ff.deploy.call_costs(ff.iterate(ff.algorithms.ISTA(), 10), obs)["thousand multiply-accumulates"]
        16.0
    """
    obs = _first(obs)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        latency = latency_us(lambda: estimator(obs), 30)
    finally:
        torch.set_num_threads(before)
    trained = estimator.parameters() if isinstance(estimator, nn.Module) else ()
    return {
        "parameters": sum(p.numel() * (2 if p.is_complex() else 1) for p in trained),
        "stored kB, float32": 4e-3 * stored_numbers(estimator),
        "thousand multiply-accumulates": 1e-3 * multiply_accumulates(estimator, obs),
        "µs a call, PyTorch": latency.median,
        "µs a call, ONNX Runtime": runtime_latency_us(estimator, obs),
    }


def _first(obs: Observation) -> Observation:
    """The first of these observations, as a batch `(1, m)`."""
    noise_var = obs.noise_var
    if noise_var is not None and noise_var.ndim:
        noise_var = noise_var.expand(*obs.y.shape[:-1], 1).reshape(-1, 1)[:1]
    return Observation(obs.y.reshape(-1, obs.y.shape[-1])[:1], obs.A, noise_var)


def runtime_installed() -> bool:
    """Whether ONNX, what writes it and its runtime are there: the extra `export`."""
    return not missing("onnx")


def runtime_latency_us(estimator: Estimator, obs: Observation) -> float | None:
    """The median microseconds of a call in ONNX Runtime on one thread.

    It is None for an estimator that has learned nothing or cannot be exported, and where ONNX or its runtime is not
    installed.
    """
    call = runtime_call(estimator, obs)
    return None if call is None else latency_us(call).median


def runtime_call(estimator: Estimator, obs: Observation) -> Callable[[], object] | None:
    """A call of an estimator in ONNX Runtime on one thread, with the first of these observations.

    It is None for an estimator that has learned nothing or cannot be exported, and where ONNX or its runtime is not
    installed.
    """
    learned = isinstance(estimator, nn.Module) and any(True for _ in estimator.parameters())
    if not learned or not runtime_installed():
        return None
    obs = _first(obs)
    noise_var = obs.noise_var if obs.noise_var is None or not obs.noise_var.ndim else obs.noise_var.expand(2, 1)
    try:
        # a batch of one would be traced as such
        return RUNNERS["onnx"](estimator, Observation(obs.y.expand(2, -1), obs.A, noise_var))
    except ValueError:
        return None
