"""What depth costs: memory and time of a training step, plain, checkpointed and at a fixed point.

Claim, put to the test below: 200 checkpointed layers train in the memory of 15 plain ones, with the same gradients bit
for bit (Chen, Xu, Zhang & Guestrin, 2016), and a fixed point (Bai, Kolter & Koltun, 2019) in memory that does not grow
with its iterations. All run in turn in one process on the same draws, with a deviation of every scalar in every layer.

Memory is the most bytes of tensors that live at once in a forward and backward pass, counted at the allocation of
each; on a GPU the allocator's own count stands beside it. Time is that of the processor, median and slowest of the
repetitions. Exit code 1 if the goal is missed for an algorithm.
"""

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold.algorithms import FREE, REGISTRY, Algorithm
from fanfold.core.table import as_text
from fanfold.deploy.memory import PeakMemory
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing

SHALLOW, DEEP = 15, 200
PLAIN, REFERENCE, CHECKPOINTED, FIXED = f"{SHALLOW} plain", f"{DEEP} plain", f"{DEEP} checkpointed", "equilibrium"


def networks(algorithm: Algorithm, problem: CompressedSensing) -> dict[str, nn.Module]:
    """The same quantities in four ways."""
    names = [k for k, quantity in algorithm.nominals.items() if quantity.domain is not FREE]
    learn, tied = dict.fromkeys(names, "per-layer"), dict.fromkeys(names, "tied")
    return {
        PLAIN: ff.unfold(algorithm, problem, SHALLOW, learn),
        REFERENCE: ff.unfold(algorithm, problem, DEEP, learn),
        CHECKPOINTED: ff.unfold(algorithm, problem, DEEP, learn, checkpoint=True),
        FIXED: ff.equilibrium(algorithm, problem, tied),
    }


def step(net: nn.Module, x: Tensor, obs: Observation) -> None:
    """Forward and backward, without the optimiser."""
    net.zero_grad()
    (net(obs).x - x).abs().square().sum().backward()


def peak(net: nn.Module, x: Tensor, obs: Observation) -> tuple[int, int | None]:
    """Most bytes alive, counted here and, on a GPU, by its allocator."""
    step(net, x, obs)  # what derives from the operator is there before
    net.zero_grad()
    if obs.y.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if obs.y.is_cuda else 0
    with PeakMemory() as memory:
        step(net, x, obs)
    return memory.peak, torch.cuda.max_memory_allocated() - before if obs.y.is_cuda else None


def clock(run: Callable[[], None], repetitions: int) -> tuple[float, float]:
    """Median and slowest processor time, in milliseconds, after one run to warm up."""
    run()
    times = []
    for _ in range(repetitions):
        began = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times), max(times)


def measure(name: str, problem: CompressedSensing, batch: int, repetitions: int, device: str) -> list[list]:
    """One row a network."""
    x, obs = problem.sample(batch, torch.Generator().manual_seed(0))
    x, obs = x.to(device), obs.to(device)
    rows, first = [], 0
    nets = networks(REGISTRY[name](), problem)
    for way, net in nets.items():
        net.to(device)
        count, allocated = peak(net, x, obs)
        first = first or count
        median, slowest = clock(lambda net=net: step(net, x, obs), repetitions)
        iterations = getattr(net, "iterations", None) or net.layers
        extra = [] if allocated is None else [allocated / 2**20]
        rows.append([name, way, iterations, count / 2**20, count / first, *extra, median, slowest])
    same = zip(nets[REFERENCE].parameters(), nets[CHECKPOINTED].parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in same if a.grad is not None)
    return rows


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithms", nargs="*", default=["ista", "fista", "amp", "oamp"], help=", ".join(REGISTRY))
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of samples without a fixed point, which cost as much
    problem = CompressedSensing(n=flags.n, m=flags.n // 2, snr_db=30)
    rows = [r for a in flags.algorithms for r in measure(a, problem, flags.batch, flags.repetitions, flags.device)]
    extra = ["allocator MiB"] if flags.device != "cpu" else []
    print(
        f"n = {flags.n}, batch {flags.batch}, {flags.device}, 1 thread, torch {torch.__version__}, {platform.machine()}"
    )
    columns = ["algorithm", "network", "steps", "MiB", f"of {PLAIN}", *extra, "ms, median", "ms, slowest"]
    print(as_text(columns, rows))
    missed = [row[0] for row in rows if row[1] == CHECKPOINTED and row[4] > 1]
    print(f"{DEEP} layers in the memory of {SHALLOW}: " + (f"MISSED by {', '.join(missed)}" if missed else "PASS"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
