"""Unfolded network against model-based iterations: the error of each after as many layers or iterations.

Claim: with 16 layers, learned steps and thresholds reach what ISTA needs hundreds of iterations for; a single tuned
number in AMP does nearly as well, and both stay far from the Bayes limit. Source: Gregor & LeCun (2010), on a
Bernoulli-Gaussian problem with n = 200, m = 100, p = 0.1 and 20 dB.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import AMP, FISTA, ISTA, LISTA, Algorithm
from fanfold.bounds import bayes_limit
from fanfold.evaluate import TEST_STREAM, errors_db
from fanfold.experiments.base import Goal, Study
from fanfold.fit import Event, draw, fit
from fanfold.observation import Observation
from fanfold.peers import ALPHAS, lam_grid, tuned
from fanfold.problems import CompressedSensing
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.table import Table
from fanfold.unfold import Unfolded, iterate, unfold
from fanfold.units import db

LAYERS, ITERATIONS = 16, 1000
SCALARS, MATRICES = "unfolded ISTA (32 scalars)", "LISTA (W1, W2)"
CONVERGED, TUNED_ISTA, TUNED_FISTA, TUNED_AMP = "ISTA, λ for its end", "ISTA", "FISTA", "AMP, one α"
Watcher = Callable[[str], Callable[[Event], None]]


@dataclass(frozen=True)
class Curves:
    """NMSE in dB after each layer or iteration, by method; `limit_db` is the Bayes limit."""

    curves: dict[str, list[float]]
    settings: dict[str, str]
    limit_db: float
    operator: str


def problem(seed: int) -> CompressedSensing:
    """The text's figure, on the matrix with this seed."""
    return CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=20, seed=seed)


def train_scalars(on: CompressedSensing, start: Algorithm, steps: int, seed: int, watch: Watcher) -> Unfolded:
    """ISTA with a step and a threshold of each layer's own."""
    net = unfold(start, on, LAYERS, {"step": "per-layer", "threshold": "per-layer"})
    return fit(net, on, steps=steps, lr=4e-3, seed=seed, on_event=watch(SCALARS))


def train_matrices(on: CompressedSensing, lam: float, steps: int, seed: int, watch: Watcher) -> Unfolded:
    """LISTA with two matrices and a threshold of each layer's own."""
    net = unfold(LISTA(lam), on, LAYERS, {"W1": "per-layer", "W2": "per-layer", "threshold": "per-layer"})
    return fit(net, on, steps=steps, batch=128, lr=1e-3, seed=seed, on_event=watch(MATRICES))


@torch.no_grad()
def measure(seed: int, steps: int, matrix_steps: int, watch: Watcher) -> Curves:
    """Every method on one matrix."""
    on = problem(seed)
    lams = lam_grid(on, seed)
    end = tuned(FISTA, lams, on, 500, seed)  # FISTA ends where ISTA does, sooner
    ista, fista, amp = (
        tuned(kind, grid, on, LAYERS, seed) for kind, grid in ((ISTA, lams), (FISTA, lams), (AMP, ALPHAS))
    )
    assert isinstance(end, FISTA) and isinstance(ista, ISTA)
    with torch.enable_grad():
        scalars = train_scalars(on, ista, steps, seed, watch)
        matrices = train_matrices(on, ista.lam, matrix_steps, seed, watch)
    estimators = {
        CONVERGED: iterate(ISTA(end.lam), ITERATIONS),
        TUNED_ISTA: iterate(ista, LAYERS),
        TUNED_FISTA: iterate(fista, LAYERS),
        TUNED_AMP: iterate(amp, LAYERS),
        SCALARS: scalars,
        MATRICES: matrices,
    }
    x, obs = draw(on, 2000, seed, TEST_STREAM, 0)
    curves = {name: _curve(estimator, x, obs) for name, estimator in estimators.items()}
    settings = {name: str(getattr(e, "algorithm", e)) for name, e in estimators.items()}
    limit = bayes_limit(on)
    assert limit is not None
    return Curves(curves, settings, db(limit), on.A.fingerprint())


def _curve(estimator: Any, x: Tensor, obs: Observation) -> list[float]:
    return [errors_db(e.x, x)["nmse_db"] for e in estimator.trajectory(obs)]


def iterations_to_reach(curve: Sequence[float], level_db: float) -> int:
    """The first iteration at or below a level, one more than there are if it is never reached."""
    return next((i for i, value in enumerate(curve, start=1) if value <= level_db), len(curve) + 1)


def goals(measured: Sequence[Curves]) -> list[Goal]:
    """The numbers of the text's figure, mean over the matrices."""

    def at_16(name: str) -> list[float]:
        return [m.curves[name][LAYERS - 1] for m in measured]

    def goal(name: str, relation: Any, target: float, tolerance: float = 0.0) -> Goal:
        values = at_16(name)
        ci = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        return Goal(f"{name}, 16 layers", "dB", relation, target, statistics.mean(values), ci, tolerance)

    needed = [float(iterations_to_reach(m.curves[CONVERGED], m.curves[MATRICES][LAYERS - 1])) for m in measured]
    return [
        goal(CONVERGED, "=", -4.2, 0.5),
        goal(TUNED_ISTA, "=", -6.0, 0.5),
        goal(TUNED_FISTA, "=", -10.0, 0.5),
        goal(TUNED_AMP, "=", -16.8, 0.5),
        goal(SCALARS, "<=", -14.0),
        Goal(f"ISTA iterations to reach {MATRICES} at 16 layers", "", ">=", 150, statistics.mean(needed)),
    ]


def section(m: Curves) -> Section:
    """The figure of one matrix, with its data."""
    kinds = {SCALARS: "learned", MATRICES: "learned"}
    layers = list(range(1, LAYERS + 1))
    series = [Series(name, layers, curve[:LAYERS], kinds.get(name, "classical")) for name, curve in m.curves.items()]
    series.append(Series("Bayes limit", layers, [m.limit_db] * LAYERS, "limit"))
    rows = [{"layer": t, **{name: curve[t - 1] for name, curve in m.curves.items()}, "Bayes limit": m.limit_db} for t in layers]
    reach = iterations_to_reach(m.curves[CONVERGED], m.curves[MATRICES][LAYERS - 1])
    best = min(m.curves[CONVERGED])
    needs = f"needs {reach} iterations" if reach <= ITERATIONS else f"never gets there ({best:.1f} dB at its end)"
    text = (
        "Recovery of 200 unknowns, one in ten of them not zero, from 100 noisy projections at 20 dB.\n"
        f"To reach what LISTA has after 16 layers, ISTA {needs}."
    )
    return Section(
        "Unfolded network against model-based iterations",
        text,
        [line_chart(series, "layers or iterations", "NMSE in dB")],
        details=Table(rows),
    )


def verdict(m: Curves) -> str:
    """Who won, by how much, against which bound, and when not to trust it."""
    at_16 = {name: curve[LAYERS - 1] for name, curve in m.curves.items()}
    winner, second = sorted(at_16, key=at_16.__getitem__)[:2]
    return (
        f"{winner} wins after 16 layers with {at_16[winner]:.1f} dB, {at_16[second] - at_16[winner]:.1f} dB ahead of "
        f"{second} and {at_16[winner] - m.limit_db:.1f} dB short of the Bayes limit ({m.limit_db:.1f} dB); the networks "
        "hold for this matrix, sparsity and SNR, so do not trust them on others without evaluating there."
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: three matrices, or one with shorter training if quick."""
    began = time.perf_counter()
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    steps, matrix_steps = (400, 300) if quick else (1000, 1500)
    measured = [measure(s, steps, matrix_steps, watch) for s in seeds]
    first = measured[0]
    return Study(
        "unfolding-figure",
        "Learned steps reach in 16 layers what ISTA needs hundreds of iterations for.",
        verdict(first),
        time.perf_counter() - began,
        goals(measured),
        [section(first)],
        {"seeds": seeds, "operator": first.operator[:12], "settings": first.settings},
    )


