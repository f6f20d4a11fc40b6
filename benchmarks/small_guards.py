"""Guards of networks on small operators: under every shift, where the network itself went wrong, and at home.

Run `python benchmarks/small_guards.py` for three sets, 1000 calls a cell, some ninety seconds of a core, or name some.
`python benchmarks/small_guards.py home` is for what guards cost at home, beside weak baselines and good ones: errors
over those of the network in 16 fresh streams of 1000 calls, calibrated on draws of a problem and on pairs, a minute.
For each set: the worst guarded risks, that is squared errors over those of the baseline with a 95 % interval, and those
of the network, with the rule that measures noise and with the claim believed. Beside the shifts of `ff.guard.shifts`
there are more noise than is claimed (x3, x5), dense signals that look like noise (x2 to x10), and four ways in which a
network errs, in noise x1 to x10.
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import fanfold as ff
from fanfold.evaluation.evaluate import Z95, energies, ratio_of
from fanfold.guard.fallback.noise_levels import least_norm
from fanfold.observation import Estimate, Estimator, Observation

CALLS = 1000
UNCLAIMED = "noise, not known"
SHOWN = 3  # worst cells of each set
STREAMS = 16  # at home


def sensing(m: int, n: int, iterations: int, lam: float) -> tuple[ff.problems.CompressedSensing, Estimator, Estimator]:
    """A problem at 30 dB, OAMP of eight layers, and FISTA."""
    problem = ff.problems.CompressedSensing(n=n, m=m, sparsity=0.1, snr_db=30.0)
    net = ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 8)
    return problem, net, ff.iterate(ff.algorithms.FISTA(lam=lam), iterations)


SETS = {
    "40x60, lam .01": lambda: sensing(40, 60, 50, 0.01),
    "40x60, lam .05": lambda: sensing(40, 60, 50, 0.05),
    "60x100": lambda: sensing(60, 100, 60, 0.01),
}


def drawn(problem, seed: int = 1) -> tuple[Tensor, Observation]:
    """The calls of a cell."""
    return problem.sample(CALLS, torch.Generator().manual_seed(seed))


def cells_of(problem) -> Iterator[tuple[str, Tensor, Observation]]:
    """The name of every cell with its signals and measurements."""
    for shift in ff.guard.shifts(problem):
        if not shift.untouched:
            yield shift.name, *drawn(shift.problem)
    for factor in (3.0, 5.0):
        yield f"{UNCLAIMED}, x{factor:g}", *drawn(ff.guard.Noisier(problem, factor))
    x, obs = drawn(problem)
    normal = torch.randn(obs.y.shape, generator=torch.Generator().manual_seed(3))
    for factor in (2.0, 3.0, 5.0, 10.0):
        w = (factor**2 - 1) ** 0.5 * obs.noise_var.sqrt() * normal
        yield (
            f"dense signal like noise x{factor:g}",
            x + least_norm(obs, w),
            Observation(obs.y + w, obs.A, obs.noise_var),
        )


def wrong_networks(net: Estimator, n: int) -> dict[str, Callable[[Observation], Estimate]]:
    """Networks that were right when the guard was made."""
    offset = 0.075 * torch.randn(n, generator=torch.Generator().manual_seed(5))
    return {
        "offset": lambda o: Estimate(net(o).x + offset),
        "shrunk": lambda o: Estimate(0.65 * net(o).x),
        "early": ff.iterate(ff.algorithms.OAMP(prior=ff.priors.BernoulliGaussian(0.1)), 1),
        "linear": lambda o: Estimate(0.65 * net(o).x + 0.1 * (o.A.H @ o.y)),
    }


class Cell(NamedTuple):
    """Risks in one cell: errors over those of the baseline."""

    guarded: float
    spread: float  # half of the 95 % interval
    network: float
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.guarded:.3f} ± {self.spread:.3f} (network {self.network:.3f})"


@torch.no_grad()
def cells(name: str, judge: ff.guard.NoiseSplit) -> list[Cell]:
    """Every cell of a set, worst first."""
    problem, net, safe = SETS[name]()
    guard = ff.guard.guarded(net, safe, problem, judge=judge)

    def cell(what: str, network: Estimator, x: Tensor, obs: Observation) -> Cell:
        guard.reset()
        guard.estimator = network
        of_guarded, of_network, of_baseline = (energies(path(obs).x, x)[0] for path in (guard, network, safe))
        risk, deviation = ratio_of(of_guarded, of_baseline)
        return Cell(risk, Z95 * deviation, ratio_of(of_network, of_baseline)[0], what)

    rows = [cell(what, net, x, obs) for what, x, obs in cells_of(problem)]
    for factor in (1.0, 3.0, 5.0, 10.0):
        x, obs = drawn(ff.guard.Noisier(problem, factor))
        for kind, network in wrong_networks(net, problem.n).items():
            rows.append(cell(f"{kind} network, noise x{factor:g}", network, x, obs))
    return sorted(rows, reverse=True)


def trained(problem: ff.problems.CompressedSensing) -> Estimator:
    """Unfolded ISTA of eight layers, trained for seconds: its errors have long tails."""
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), problem, 8, {"step": "per-layer", "threshold": "per-layer"})
    return ff.fit(net, problem, steps=300, batch=64, lr=1e-2, seed=0, threads=1).requires_grad_(False)


def at_home() -> None:
    """Print what guards cost where the network is at home."""
    small, other = (ff.problems.CompressedSensing(n=n, m=m, sparsity=0.1, snr_db=30.0) for n, m in ((60, 40), (50, 30)))
    sparse = ff.problems.CompressedSensing(n=80, m=50, sparsity=0.05, snr_db=25.0, seed=3)
    dense = ff.problems.CompressedSensing(n=120, m=80, sparsity=0.15, snr_db=30.0, seed=5)
    complex_ = ff.problems.CompressedSensing(n=40, m=30, sparsity=0.1, snr_db=35.0, seed=6, dtype="complex64")
    for problem, kind, (lam, iterations) in (
        (small, "ISTA", (0.05, 8)), (small, "ISTA", (0.02, 30)), (other, "ISTA", (0.05, 8)),
        (small, "OAMP", (0.05, 8)), (small, "OAMP", (0.01, 50)), (small, "OAMP", (0.05, 50)),
        (sparse, "OAMP", (0.02, 40)), (dense, "OAMP", (0.02, 60)), (complex_, "OAMP", (0.02, 40)),
    ):  # fmt: skip
        safe = ff.iterate(ff.algorithms.FISTA(lam=lam), iterations)
        prior = ff.priors.BernoulliGaussian(problem.sparsity)
        net = trained(problem) if kind == "ISTA" else ff.iterate(ff.algorithms.OAMP(prior=prior), 8)
        print(f"{kind} beside FISTA, {iterations} iterations, λ = {lam:g}, {problem.m}x{problem.n}", flush=True)
        for given in (problem, problem.sample(1500, torch.Generator().manual_seed(777))):
            print(f"    {cost_at_home(net, safe, problem, given)}", flush=True)


@torch.no_grad()
def cost_at_home(net: Estimator, safe: Estimator, problem: ff.problems.CompressedSensing, given) -> str:
    """The errors of a guard and of its baseline over those of the network."""
    guard = ff.guard.guarded(net, safe, given)
    x, obs = problem.sample(STREAMS * CALLS, torch.Generator().manual_seed(4242))
    of_network, of_baseline = (energies(path(obs).x, x)[0] for path in (net, safe))
    parts = []
    for first in range(0, len(x), CALLS):
        guard.reset()
        calls = slice(first, first + CALLS)
        parts.append(energies(guard(obs[calls]).x, x[calls])[0])
    of_guarded, usual = torch.cat(parts), of_network <= of_network.quantile(0.99)
    paths = of_guarded, of_baseline
    over = [(path[rows].sum() / of_network[rows].sum()).item() for rows in (slice(None), usual) for path in paths]
    return (
        f"guarded {over[0]:.3f}, baseline {over[1]:.2f} times the network; without where that errs most {over[2]:.3f}, "
        f"{over[3]:.2f}; rate {guard.trusting.rate:.2f} from {guard.trusting.first:g}, said of home {guard.at_home:.2f}"
    )


def main(names: list[str]) -> None:
    """Print the worst cells of some sets, and those of noise that nobody claims and of what looks like it."""
    for name in names:
        for rule, judge in (("measured", ff.guard.NoiseSplit()), ("claimed", ff.guard.NoiseSplit(noise="claimed"))):
            rows = cells(name, judge)
            shown = rows[:SHOWN]
            if rule == "measured":
                shown += [cell for cell in rows[SHOWN:] if cell.name.startswith((UNCLAIMED, "dense"))]
            print(f"{name}, noise {rule}, {len(rows)} cells", *shown, sep="\n    ", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or [*SETS]
    if wanted == ["home"]:
        sys.exit(at_home())
    if unknown := [name for name in wanted if name not in SETS]:
        sys.exit(f"there is no set {unknown[0]!r}; name some of {[*SETS]}, or home.")
    main(wanted)
