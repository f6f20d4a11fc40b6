"""Throughput of OAMP at 64 x 64 x 32 voxels on a GPU, or on the processor where there is none.

Measures, without a goal: scenes a second, milliseconds an iteration of a batch, and memory, of classical OAMP (Ma &
Ping, 2017) and of an unfolded network with seven numbers a layer, which is asked and trained. The operator is a
Kronecker product of three partial Fourier matrices, 48 x 48 x 24 measurements in complex64; its matrix would take
54 GiB.

Memory is the most bytes of tensors that a call makes; on a GPU the allocator's own peak, the input included, stands
beside it. On the processor one thread is used and times are wall-clock, as they are on the GPU, after it has finished.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

import fanfold as ff
from fanfold.algorithms import OAMP
from fanfold.core.table import as_text
from fanfold.deploy.memory import PeakMemory
from fanfold.problems import RFImaging
from fanfold.unfolding.unfold import iterate

LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")


def wait(device: str) -> None:
    """Until the device has done all that it was asked to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def clock(call: Callable[[], object], device: str, repetitions: int) -> list[float]:
    """Seconds, after two calls to warm up."""
    times = []
    for _ in range(repetitions + 2):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return times[2:]


def memory(call: Callable[[], object], device: str) -> list[float]:
    """MiB that a call makes at most; on a GPU the allocator's peak too."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with PeakMemory() as made:
        call()
    return [made.peak / 2**20] + ([torch.cuda.max_memory_allocated(device) / 2**20] if cuda else [])


def measure(problem: RFImaging, batch: int, layers: int, repetitions: int, device: str) -> list[list]:
    """A row for each use: the classical run, the network asked, the network in training."""
    x, obs = problem.sample(batch, torch.Generator().manual_seed(0))
    x, obs = x.to(device), obs.to(device)
    oamp = OAMP(problem.prior, noise="estimated")  # type: ignore[arg-type]
    net = ff.unfold(oamp, problem, layers, dict.fromkeys(LEARNED, "per-layer")).to(device)

    def train() -> None:
        net.zero_grad()
        (net(obs).x - x).abs().square().sum().backward()

    @torch.no_grad()
    def run_oamp() -> None:
        iterate(oamp, layers)(obs)

    @torch.no_grad()
    def ask() -> None:
        net(obs)

    calls = {"OAMP": run_oamp, "unfolded, asked": ask, "unfolded, a training step": train}
    rows = []
    for name, call in calls.items():
        times = clock(call, device, repetitions)
        middle, p99 = statistics.median(times), torch.tensor(times).quantile(0.99).item()
        per_layer = (1e3 * seconds / layers for seconds in (middle, p99))
        rows.append([name, batch, layers, batch / middle, *per_layer, *memory(call, device)])
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one batch, two layers, three repetitions")
    parser.add_argument("--batches", type=int, nargs="+", help="scenes at a time; 1 and 64 on a GPU, else 1 and 4")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    flags = parser.parse_args()
    found = torch.cuda.is_available()
    device = flags.device or ("cuda" if found else "cpu")
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()}, 1 thread"
    print(f"{device}: {name}, torch {torch.__version__}, complex64")
    if not found:
        print("No GPU was found: these are the processor's numbers, and say nothing of a GPU.")
    batches = flags.batches or ([1, 64] if device.startswith("cuda") else [1, 4])
    layers, repetitions = (2, 3) if flags.quick else (flags.layers, flags.repetitions)
    problem = RFImaging("fourier", (64, 64, 32), (48, 48, 24))
    rows = [r for b in batches[: 1 if flags.quick else None] for r in measure(problem, b, layers, repetitions, device)]
    columns = ["use", "batch", "layers", "scenes/s", "ms a layer", "p99", "MiB made"]
    print(as_text([*columns, "MiB allocated"][: len(rows[0])], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
