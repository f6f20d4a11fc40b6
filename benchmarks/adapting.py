"""What adapting wins back from 100 pairs at every shift, and that measurements alone never lose.

Run `python benchmarks/adapting.py pairs` for the table of pairs: three draws of 100 pairs of each shift, some four
minutes of a core for ISTA, and for OAMP by `pairs oamp`; `pairs oamp "gain 1.5" home` measures these alone. `python
benchmarks/adapting.py alone` is for the 60 cells of measurements alone: ten places, three SNRs, two networks, half a
minute; `large` for OAMP of ten layers on 250x500, where the gains have drifted, two minutes. Errors are NMSE in dB on
fresh draws.
"""

import sys

import torch
from torch import nn

import fanfold as ff
from fanfold.core.units import nmse_db

PROBLEM = ff.problems.CompressedSensing(n=100, m=50, sparsity=0.1, snr_db=30.0)
SHIFTS = {
    "drift of 2 dB": ff.guard.CalibrationDrift(PROBLEM, 2.0),
    "drift of 0.5 dB": ff.guard.CalibrationDrift(PROBLEM, 0.5),
    "A wrong by 10 %": ff.guard.Misbelieved(PROBLEM, 0.1),
    "A wrong by 3 %": ff.guard.Misbelieved(PROBLEM, 0.03),
    "noise x3, not known": ff.guard.Noisier(PROBLEM, 3.0),
    "gain 1.5": ff.guard.Amplified(PROBLEM, 1.5),
    "sparsity 0.2": PROBLEM.shifted(sparsity=0.2),
    "SNR 10 dB": PROBLEM.shifted(snr_db=10.0),
    "home": PROBLEM,
}
SEEDS = (100, 101, 102)  # of the pairs
FRESH, TESTED = 4000, 999  # draws, and their seed
SPECIALIST_PAIRS = 1000


def ista() -> nn.Module:
    """Unfolded ISTA with 16 numbers."""
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), PROBLEM, 8, {"step": "per-layer", "threshold": "per-layer"})
    return ff.fit(net, PROBLEM, steps=200, batch=64, lr=1e-2, seed=0, threads=1)


def oamp() -> nn.Module:
    """Unfolded OAMP, from a wrong guess of the prior."""
    start = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3))
    net = ff.unfold(start, PROBLEM, 6, {"prior": "per-layer", "noise_var": "per-layer"})
    return ff.fit(net, PROBLEM, steps=150, batch=64, seed=0, threads=1)


def draws(place, count: int, seed: int):
    """Pairs of a place."""
    return place.sample(count, torch.Generator().manual_seed(seed))


@torch.no_grad()
def error_db(net: nn.Module, place, count: int = FRESH) -> float:
    """The error on fresh draws."""
    x, obs = draws(place, count, TESTED)
    return nmse_db(net(obs).x, x)


def specialist_db(net: nn.Module, place) -> float:
    """The error after adapting to ten times as many pairs."""
    return error_db(ff.guard.adapt(net, draws(place, SPECIALIST_PAIRS, 7)).network, place)


def of_pairs(net: nn.Module, names: list[str]) -> None:
    """Print what 100 pairs win back of a network's loss at these shifts."""
    for name in names:
        place = SHIFTS[name]
        before, best = error_db(net, place), specialist_db(net, place)
        adapted = [error_db(ff.guard.adapt(net, draws(place, 100, seed)).network, place) for seed in SEEDS]
        mean = sum(adapted) / len(adapted)
        back = f"{100 * (before - mean) / (before - best):.0f} %" if name != "home" else ""
        print(
            f"{name:16s} {before:6.2f} -> {mean:6.2f} ({max(adapted):.2f})  specialist {best:6.2f}  {back}", flush=True
        )


def large() -> None:
    """Print what 100 pairs win back of gains that drifted by 2 dB, 250x500, and the error at home."""
    problem = ff.problems.CompressedSensing()
    start = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3))
    net = ff.unfold(start, problem, 10, {"prior": "per-layer", "noise_var": "per-layer"})
    net = ff.fit(net, problem, steps=150, batch=64, seed=0, threads=1)
    place = ff.guard.CalibrationDrift(problem, 2.0)
    home, before = (error_db(net, where, 2000) for where in (problem, place))
    adapted = [error_db(ff.guard.adapt(net, draws(place, 100, seed)).network, place, 2000) for seed in SEEDS]
    print(f"home {home:.2f}; drifted {before:.2f} -> {sum(adapted) / len(adapted):.2f} ({max(adapted):.2f})")


def alone() -> None:
    """Print by how much measurements alone change the error, at ten places and three SNRs, of two networks."""
    places = {f"gain {g:g}": lambda p, g=g: ff.guard.Amplified(p, g) for g in (0.5, 1.5, 3.0, 10.0)}
    places |= {f"sparsity {s:g}": lambda p, s=s: p.shifted(sparsity=s) for s in (0.05, 0.2, 0.4)}
    places |= {f"A wrong by {100 * e:g} %": lambda p, e=e: ff.guard.Misbelieved(p, e) for e in (0.1, 0.3)}
    places |= {"home": lambda p: p}
    worst, changed = -torch.inf, 0
    for kind, net in (("ISTA", ista()), ("OAMP", oamp())):
        for snr_db in (10.0, 20.0, 30.0):
            for name, there in places.items():
                place = there(PROBLEM.shifted(snr_db=snr_db))
                adapted = ff.guard.adapt(net, draws(place, 100, 3)[1])
                rise = error_db(adapted.network, place, 1000) - error_db(net, place, 1000)
                worst, changed = max(worst, rise), changed + (adapted.level != "nothing")
                if adapted.level != "nothing":
                    print(f"{kind}, {name}, {snr_db:g} dB: {adapted.level}, {rise:+.2f} dB", flush=True)
    print(f"of {6 * len(places)} cells {changed} changed, and none rose by more than {worst:+.3f} dB")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["alone"]:
            alone()
        case ["large"]:
            large()
        case [] | ["pairs"]:
            of_pairs(ista(), [*SHIFTS])
        case ["pairs", ("ista" | "oamp") as kind, *names] if {*names} <= {*SHIFTS}:
            of_pairs({"ista": ista, "oamp": oamp}[kind](), names or [*SHIFTS])
        case _:
            sys.exit(__doc__)
