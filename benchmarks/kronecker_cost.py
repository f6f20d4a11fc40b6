"""What an iteration of OAMP costs on a Kronecker product as scenes grow, in time and in memory.

Claim, put to the test below: a product with `A_1 ⊗ … ⊗ A_K` costs about `n Σ n_k` operations (Van Loan, 2000), so that
an iteration of OAMP takes `n (a + b Σ n_k)`, where a is the denoiser's share, and memory holds scenes and factors,
never A; at n = 4096 and m = 1728 that is at most 7.5 times as long as two products with the factors by hand, in turn
(390 µs for each scene on one thread, where those take 52).

Scenes with two and three axes, three quarters of the rows of a Fourier matrix on each, complex64; batches are such
that each size works on as many voxels. Times are the processor's. a and b are fitted to all sizes, and so is the power
of `n Σ n_k` as which the time of the two products alone grows: 1 by the claim. Memory is the most bytes of tensors that
one iteration on one scene makes. `--svg FILE` draws the times. Exit code 1 if that is missed, if that power is above
1.1, or if the largest scene takes more than a hundredth of its A.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fanfold.algorithms import OAMP
from fanfold.core.table import as_text
from fanfold.deploy.memory import PeakMemory
from fanfold.experiments.rf.rf_imaging import iteration_cost
from fanfold.observation import Observation
from fanfold.problems import RFImaging
from fanfold.report.plots import Series, line_chart
from fanfold.unfolding.unfold import iterate

TWO = [(16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]
THREE = [(8, 8, 8), (16, 16, 16), (32, 32, 32), (64, 64, 32)]
VOXELS = 2**18  # in a batch
DENSE = 2**24  # entries of a matrix that is multiplied by
GOAL_RATIO, GOAL_POWER, GOAL_SHARE, ITERATIONS = 7.5, 1.1, 100, 5


@dataclass(frozen=True)
class Cost:
    """Of one size; times in microseconds for each scene."""

    scene: tuple[int, ...]
    m: int
    iteration: float
    p99: float
    products: float
    dense: float | None  # two products with a matrix of that size
    held: int  # bytes that an iteration makes

    @property
    def n(self) -> int:
        return math.prod(self.scene)

    @property
    def work(self) -> int:
        return self.n * sum(self.scene)

    @property
    def bytes_of_A(self) -> int:  # noqa: N802
        return 8 * self.m * self.n

    def row(self, fitted: float) -> list:
        """Of the table."""
        dense = "" if self.dense is None else f"{self.dense:.0f}"
        times = [self.iteration, self.p99, self.iteration / fitted, self.products, dense]
        return [" x ".join(map(str, self.scene)), self.m, self.n, *times, self.held / 2**20, self.bytes_of_A / 2**20]


def microseconds(action: Callable[[], object], scenes: int, repetitions: int) -> list[float]:
    """Processor time for each scene, after one run to warm up."""
    action()
    times = []
    for _ in range(repetitions):
        began = time.process_time()
        action()
        times.append(1e6 * (time.process_time() - began) / scenes)
    return times


@torch.no_grad()
def cost(scene: tuple[int, ...], repetitions: int) -> Cost:
    """Measure one size."""
    on = RFImaging("fourier", scene, tuple(3 * side // 4 for side in scene))
    batch = max(1, VOXELS // on.A.n)
    x, obs = on.sample(batch, torch.Generator().manual_seed(0))
    assert on.prior is not None
    oamp, V = OAMP(on.prior), on.A.svd().V
    steps = microseconds(lambda: iterate(oamp, ITERATIONS)(obs), batch * ITERATIONS, repetitions)
    products = microseconds(lambda: V @ (V.H @ x), batch, repetitions)
    dense = None
    if on.A.m * on.A.n <= DENSE:
        matrix = V.matrix()
        dense = statistics.median(microseconds(lambda: (x @ matrix.conj()) @ matrix.mT, batch, 3))
    p99 = torch.tensor(steps).quantile(0.99).item()
    return Cost(scene, on.A.m, statistics.median(steps), p99, statistics.median(products), dense, held(oamp, obs[:1]))


def held(oamp: OAMP, obs: Observation) -> int:
    """Bytes that one iteration on one scene makes, at most at once."""
    theta, state = oamp.nominal_theta(obs), oamp.start(obs)
    with PeakMemory() as memory:
        oamp.step(state, obs, theta)
    return memory.peak


def fit(costs: list[Cost]) -> tuple[float, float]:
    """Of `n (a + b Σ n_k)` a and b, in microseconds, by least squares of relative errors."""
    rows = torch.tensor([[c.n / c.iteration, c.work / c.iteration] for c in costs], dtype=torch.float64)
    a, b = torch.linalg.lstsq(rows, torch.ones(len(costs), 1, dtype=torch.float64)).solution.flatten().tolist()
    return a, b


def power(costs: list[Cost]) -> float:
    """Of `n Σ n_k` as which the time of the products grows: the slope in logarithms."""
    rows = torch.tensor([[math.log(c.work), 1.0] for c in costs], dtype=torch.float64)
    times = torch.tensor([[math.log(c.products)] for c in costs], dtype=torch.float64)
    return torch.linalg.lstsq(rows, times).solution[0].item()


def chart(costs: list[Cost]) -> str:
    """Times against `n Σ n_k`, and a line of slope one through the products of the largest scene."""
    series = []
    for axes in (2, 3):
        some = [c for c in costs if len(c.scene) == axes]
        work = [c.work for c in some]
        series.append(Series(f"OAMP, {axes} axes", work, [c.iteration for c in some], "learned"))
        series.append(Series(f"its products, {axes} axes", work, [c.products for c in some]))
    first, last = min(costs, key=lambda c: c.work), max(costs, key=lambda c: c.work)
    slope = [last.products * c.work / last.work for c in (first, last)]
    series.append(Series("in proportion to n Σn_k", [first.work, last.work], slope, "limit"))
    dense = [c for c in costs if c.dense is not None and len(c.scene) == 2]
    series.append(Series("products by the matrix", [c.work for c in dense], [c.dense or 0.0 for c in dense]))
    return line_chart(series, "n Σn_k", "µs an iteration and scene", log_x=True, log_y=True)


def main() -> int:
    """Measure, print, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="scenes of 4096 voxels at most, without the largest")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--svg", type=Path, help="file for the picture")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [s for s in TWO + THREE if not flags.quick or math.prod(s) <= 4096]
    print(f"complex64, cpu, 1 thread, torch {torch.__version__}, {platform.machine()}; times in µs a scene")
    costs = [cost(scene, flags.repetitions) for scene in sizes]
    a, b = fit(costs)
    rows = [c.row(a * c.n + b * c.work) for c in costs]
    names = ["scene", "m", "n", "iteration", "p99", "of the fit", "products", "dense", "MiB made", "MiB of A"]
    print(as_text(names, rows))
    grows = power(costs)
    print(f"an iteration takes n ({1e3 * a:.1f} ns + {1e3 * b:.3f} ns Σn_k); its products grow as (n Σn_k)^{grows:.2f}")
    reference = iteration_cost()
    share = costs[-1].bytes_of_A / costs[-1].held
    judged = {
        f"n = 4096, m = 1728: {1e6 * reference.ours:.0f} µs, {reference.ratio:.1f} times its products by hand, "
        f"goal <= {GOAL_RATIO}": reference.ratio <= GOAL_RATIO,
        f"power of n Σn_k: {grows:.2f}, goal <= {GOAL_POWER}": grows <= GOAL_POWER,
        f"bytes of A for one made at n = {costs[-1].n}: {share:.0f}, goal >= {GOAL_SHARE}": share >= GOAL_SHARE,
    }
    for what, passed in judged.items():
        print(f"{what}: {'PASS' if passed else 'MISSED'}")
    if flags.svg:
        flags.svg.write_text(chart(costs))
    return 0 if all(judged.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
