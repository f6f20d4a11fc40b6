"""Processes and threads: `torchrun` ranks, sums over them, and how many threads a busy machine can bear."""

import atexit
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among those that train together; a lone process is rank 0 of 1.

    Example:
        >>> from fanfold.core.machine import World
        >>> World(rank=1, size=4).share(100)
        slice(25, 50, None)
    """

    rank: int = 0  # number of this process
    size: int = 1  # number of processes

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's rows of a batch of `total`, which all processes draw alike."""
        each = total // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, local: Tensor) -> Tensor:
        """The sum of a number over all processes, for a loss whose gradients are then averaged over them.

        The value is the global sum. The gradient to the local term is `size`, which the averaging of
        DistributedDataParallel turns into the gradient of the global sum.
        """
        if self.size == 1:
            return local
        value = local.detach().clone()
        dist.all_reduce(value)
        return self.size * local - (self.size * local).detach() + value

    def of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the first process's tensors, of the same names and shapes everywhere."""
        copies = {name: t.detach().clone() for name, t in tensors.items()}
        if self.size > 1:
            for t in copies.values():
                dist.broadcast(torch.view_as_real(t) if t.is_complex() else t, 0)
        return copies


@cache
def processor_lines() -> tuple[str, ...]:
    """What Linux says of the processors, in `/proc/cpuinfo`; nothing elsewhere."""
    try:
        return tuple(Path("/proc/cpuinfo").read_text().splitlines())
    except OSError:
        return ()


def join_world(device: torch.device) -> World:
    """The world that `torchrun` set up, joined if need be (NCCL on GPUs, gloo elsewhere); else a lone process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        # its functions name the group of that moment as a default, and so would hold on to it were they imported later
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type != "cuda":
            atexit.register(_leave_world)
    return World(dist.get_rank(), dist.get_world_size())


def _leave_world() -> None:
    """Leave while the interpreter still runs: threads of gloo abort a process that ends before them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sensible_threads(watch_seconds: float = 0.05) -> int:
    """How many threads fit on the cores that other processes leave idle, at least one.

    Two OpenMP threads that share a core with another program wait for each other at every barrier, at many
    times the cost of one thread. The idle share is read from `/proc/stat` while this process sleeps; where there is
    none, all cores count as idle. Processes that `torchrun` started here divide the cores, and `OMP_NUM_THREADS` is the
    most where it is set.
    """
    cores = _allowed_cores()
    wished = os.environ.get("OMP_NUM_THREADS", "")
    cores = min(cores, int(wished)) if wished.isdigit() and int(wished) > 0 else cores
    before = _idle_seconds()
    if before is None:
        idle = float(cores)
    else:
        time.sleep(watch_seconds)
        after = _idle_seconds() or before
        idle = (after[0] - before[0]) / max(after[1] - before[1], 1e-9) * (os.cpu_count() or 1)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, round(min(idle, cores) / processes))


def _allowed_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # systems other than Linux do not say
        return os.cpu_count() or 1


def _idle_seconds() -> tuple[float, float] | None:
    """Idle and total time of all cores so far, in ticks; None where the system does not tell."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return ticks[3] + ticks[4], sum(ticks)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A block inside which torch has `count` threads; after it, torch has as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
