"""One network for several conditions, beside a specialist for each: what being prepared for all of them costs.

Claim: a network that estimates the noise and the prior of each sample anew, trained on all conditions alike, is within
1 dB of every specialist. Source: Sagawa, Koh, Hashimoto & Liang (2020), worst groups.
"""

import time
from dataclasses import dataclass

import torch

from fanfold.algorithms import OAMP
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import nmse_db
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.priors import BernoulliGaussian
from fanfold.problems import Broad, CompressedSensing
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.training.fit import fit
from fanfold.training.settings import NMSEOver
from fanfold.unfolding.unfold import Unfolded, unfold

CONDITIONS: dict[str, tuple[float, ...]] = {
    "snr_db": (10.0, 20.0, 40.0, 30.0, 30.0, 20.0, 30.0, 30.0),
    "sparsity": (0.1, 0.1, 0.1, 0.05, 0.2, 0.2, 0.1, 0.1),
    "gain": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 3.0),
}
GUESS, LAYERS, LR = 0.3, 6, 6e-3
FIXED = ("prior", "noise_scale")  # what is learned, where settings of the prior are the same for all samples
CONDITIONED = (*FIXED, "trust", "v_linear", "v_denoised")  # where each sample has its own


@dataclass(frozen=True)
class Size:
    """How large the problem is, and how much is trained and tested."""

    n: int
    steps: int
    batch: int  # of all conditions together; a specialist has half of it
    tests: int  # draws of each condition


QUICK, FULL = Size(100, 30, 128, 500), Size(200, 200, 256, 4000)


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment, on one matrix; quick trains for 30 steps on 50 x 100 instead of for 200 on 100 x 200."""
    began, size = time.perf_counter(), QUICK if quick else FULL
    sensing = CompressedSensing(n=size.n, m=size.n // 2, snr_db=30.0, seed=seed)
    broad = Broad(sensing, CONDITIONS)
    columns = {
        "fixed prior, over conditions": of_one(broad, "fixed", "condition", size, seed, watch),
        "own prior, over samples": of_one(broad, "conditioned", "sample", size, seed, watch),
        "own prior, over conditions": of_one(broad, "conditioned", "condition", size, seed, watch),
        "specialists": of_specialists(broad, size, seed, watch),
    }
    rows = [
        {name: values[k] for name, values in CONDITIONS.items()} | {name: c[k] for name, c in columns.items()}
        for k in range(broad.count)
    ]
    gaps = {
        name: max(one - best for one, best in zip(column, columns["specialists"]))
        for name, column in columns.items()
        if name != "specialists"
    }
    worst = gaps["own prior, over conditions"]
    return Study(
        "broad-training",
        "One network that estimates noise and prior of each sample is within 1 dB of a specialist for each condition.",
        f"It is {worst:.2f} dB from the specialist in its worst condition; with one prior for all samples "
        f"{gaps['fixed prior, over conditions']:.2f} dB. Do not trust either far from these conditions.",
        time.perf_counter() - began,
        [
            Goal("worst gap to a specialist, own prior, trained over conditions", "dB", "<=", 1.0, worst),
            Goal(
                "what an own prior gains in the worst condition over one for all",
                "dB",
                ">=",
                0.0,
                gaps["fixed prior, over conditions"] - worst,
            ),
        ],
        [Section("NMSE in dB under each condition", about(gaps), table=Table(rows))],
        {"seed": seed, "operator": sensing.A.fingerprint()[:12], "steps": size.steps},
    )


def about(gaps: dict[str, float]) -> str:
    """The largest gaps, in words."""
    said = ", ".join(f"{name} {gap:.2f} dB" for name, gap in gaps.items())
    return (
        f"Largest gaps to the specialists: {said}. Each network is unfolded OAMP of {LAYERS} layers that measures the "
        "noise; with an own prior it estimates the share and the variance of non-zeros of each sample too. A "
        "specialist has the same layers, steps and settings as the last network, and its condition alone."
    )


def untrained(broad: Broad, kind: str) -> Unfolded:
    """Unfolded OAMP with a wrong guess of the prior, which it keeps for all samples or estimates for each."""
    oamp = OAMP(BernoulliGaussian(GUESS), noise="estimated", settings="given" if kind == "fixed" else "estimated")
    return unfold(oamp, broad, LAYERS, dict.fromkeys(FIXED if kind == "fixed" else CONDITIONED, "per-layer"))


def of_one(broad: Broad, kind: str, over: NMSEOver, size: Size, seed: int, watch: Watcher) -> list[float]:
    """The errors in dB, under each condition, of one network for all."""
    net = untrained(broad, kind)
    fit(
        net, broad, steps=size.steps, batch=size.batch, lr=LR, nmse_over=over, seed=seed, threads=1,
        on_event=watch(f"one network, {kind}, over {over}s"),
    )  # fmt: skip
    return [error_db(net, broad.condition(k), size, seed) for k in range(broad.count)]


def of_specialists(broad: Broad, size: Size, seed: int, watch: Watcher) -> list[float]:
    """The errors in dB of a network for each condition, under it."""
    errors = []
    for k in range(broad.count):
        net, alone = untrained(broad, "conditioned"), broad.condition(k)
        shown = watch(f"specialist {k + 1} of {broad.count}")
        fit(net, alone, steps=size.steps, batch=size.batch // 2, lr=LR, seed=seed, threads=1, on_event=shown)
        errors.append(error_db(net, alone, size, seed))
    return errors


@torch.no_grad()
def error_db(net: Unfolded, on: Broad, size: Size, seed: int) -> float:
    """The NMSE over test draws."""
    x, obs = draw(on, size.tests, seed, Stream.TESTING, 0)
    return nmse_db(net(obs).x, x)
