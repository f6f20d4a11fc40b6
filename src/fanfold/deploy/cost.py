"""What one call costs: multiply-accumulates of its matrix products, numbers it stores, microseconds it takes."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fanfold.observation import Estimate, Observation

COMPLEX = 4  # real multiply-accumulates in a complex one


class Latency(NamedTuple):
    """Of repeated calls, in microseconds."""

    median: float
    p99: float


class _Count(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            complex_valued = isinstance(out, Tensor) and out.is_complex()
            each = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            self.total += each * (COMPLEX if complex_valued else 1)
        return out


@torch.no_grad()
def multiply_accumulates(estimator: Callable[[Observation], Estimate], obs: Observation) -> float:
    """Real multiply-accumulates a sample in matrix products and convolutions; a complex one counts as four.

    What else a call does, element by element, is not counted; nor what was computed before and kept: the estimator is
    called once beforehand.
    """
    estimator(obs)
    with _Count() as count:
        estimator(obs)
    return count.total / max(1, obs.y[..., 0].numel())


def stored_numbers(estimator: Callable[[Observation], Estimate]) -> int:
    """Real numbers in the parameters and buffers of a module; 0 of anything else."""
    if not isinstance(estimator, nn.Module):
        return 0
    tensors = [*estimator.parameters(), *estimator.buffers()]
    return sum(t.numel() * (2 if t.is_complex() else 1) for t in tensors if t.is_floating_point() or t.is_complex())


@torch.no_grad()
def latency_us(call: Callable[[], object], calls: int = 200) -> Latency:
    """Time of a call after a tenth as many to warm up, on as many threads as are set."""
    for _ in range(max(3, calls // 10)):
        call()
    spent = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        spent.append(1e6 * (time.perf_counter() - began))
    return Latency(statistics.median(spent), sorted(spent)[int(0.99 * (len(spent) - 1))])
