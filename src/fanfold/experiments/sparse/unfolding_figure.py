"""Unfolded network against model-based iterations: the error of each after as many layers or iterations.

Claim: with 16 layers, learned steps and thresholds reach what ISTA needs hundreds of iterations for; a single tuned
number in AMP does nearly as well, and OAMP that is told the prior does far better, at the Bayes limit. Source: Gregor &
LeCun (2010), on a Bernoulli-Gaussian problem with n = 200, m = 100, p = 0.1 and 20 dB.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import AMP, FISTA, ISTA, LISTA, OAMP, Algorithm
from fanfold.bounds import bayes_limit
from fanfold.core.abilities import offers
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db, nmse_db
from fanfold.estimators.base import OfAlgorithm
from fanfold.evaluation.evaluate import errors_db
from fanfold.evaluation.peers import ALPHAS, lam_grid, tuned
from fanfold.experiments.base import CAVEAT, Goal, Study, mean_goal
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing
from fanfold.problems.draws import draw
from fanfold.report.figure.section import live_sections
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.events import Event
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

LAYERS, ENOUGH, MOST_ITERATIONS = 16, 300, 400
SCALARS, MATRICES = "unfolded ISTA (32 scalars)", "LISTA (W1, W2)"
CONVERGED, TUNED_ISTA, SAME_FISTA, TUNED_FISTA, TUNED_AMP, INFORMED_OAMP = (
    "ISTA, λ for 300 iterations",
    "ISTA, best λ",
    "FISTA, ISTA's λ",
    "FISTA, best λ",
    "AMP, best α",
    "OAMP, told the prior",
)
Watcher = Callable[[str], Callable[[Event], None]]


@dataclass(frozen=True)
class Curves:
    """NMSE in dB after each layer or iteration, by method; `limit_db` is the Bayes limit."""

    curves: dict[str, list[float]]
    settings: dict[str, str]
    limit_db: float
    ista_needs: int  # iterations to reach LISTA's last layer with the best λ; one more than are tried if none does
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
    return fit(net, on, steps=steps, batch=256, lr=2e-3, seed=seed, on_event=watch(MATRICES))


@torch.no_grad()
def measure(seed: int, steps: int, matrix_steps: int, watch: Watcher) -> Curves:
    """Every method on one matrix."""
    on = problem(seed)
    lams = lam_grid(on, seed)
    converged = tuned(ISTA, lams, on, ENOUGH, seed)
    ista, fista, amp = (
        tuned(kind, grid, on, LAYERS, seed) for kind, grid in ((ISTA, lams), (FISTA, lams), (AMP, ALPHAS))
    )
    assert isinstance(ista, ISTA)
    with torch.enable_grad():
        scalars = train_scalars(on, converged, steps, seed, watch)
        matrices = train_matrices(on, ista.lam, matrix_steps, seed, watch)
    estimators = {
        CONVERGED: iterate(converged, LAYERS),
        TUNED_ISTA: iterate(ista, LAYERS),
        SAME_FISTA: iterate(FISTA(ista.lam), LAYERS),
        TUNED_FISTA: iterate(fista, LAYERS),
        TUNED_AMP: iterate(amp, LAYERS),
        INFORMED_OAMP: iterate(OAMP(on.prior), LAYERS),
        SCALARS: scalars,
        MATRICES: matrices,
    }
    x, obs = draw(on, 2000, seed, Stream.TESTING, 0)
    curves = {name: _curve(estimator, x, obs) for name, estimator in estimators.items()}
    settings = {name: str(e.algorithm if offers(e, OfAlgorithm) else e) for name, e in estimators.items()}
    needs = min(iterations_to_reach(curves[MATRICES][-1], ISTA(lam), x[:300], obs[:300]) for lam in lams)
    limit = bayes_limit(on)
    assert limit is not None
    return Curves(curves, settings, db(limit), needs, on.A.fingerprint())


def _curve(estimator: Any, x: Tensor, obs: Observation) -> list[float]:
    return [errors_db(e.x, x)["nmse_db"] for e in estimator.trajectory(obs)]


def iterations_to_reach(level_db: float, algorithm: Algorithm, x: Tensor, obs: Observation) -> int:
    """The first iteration at or below a level; `MOST_ITERATIONS + 1` if none is."""
    errors = (nmse_db(e.x, x) for e in iterate(algorithm, MOST_ITERATIONS).trajectory(obs))
    return next((i for i, value in enumerate(errors, start=1) if value <= level_db), MOST_ITERATIONS + 1)


def goals(measured: Sequence[Curves], ista_needs: float = 150) -> list[Goal]:
    """The numbers of the text's figure, mean over the matrices."""

    def at_16(name: str) -> list[float]:
        return [m.curves[name][LAYERS - 1] for m in measured]

    def goal(name: str, relation: Any, target: float, tolerance: float = 0.0) -> Goal:
        return mean_goal(f"{name}, 16 layers", "dB", relation, target, at_16(name), tolerance)

    needed = statistics.mean(float(m.ista_needs) for m in measured)
    return [
        goal(CONVERGED, "=", -4.2, 0.5),
        goal(TUNED_ISTA, "=", -6.0, 0.5),
        goal(SAME_FISTA, "=", -10.0, 0.5),  # both descend one objective
        goal(TUNED_FISTA, "=", -10.0, 0.5),
        goal(TUNED_AMP, "=", -16.8, 0.5),
        goal(SCALARS, "<=", -14.0),
        Goal(f"ISTA iterations, best λ, to reach {MATRICES} at 16 layers", "", ">=", ista_needs, needed),
    ]


def section(m: Curves) -> Section:
    """The figure of one matrix, with its data."""
    kinds = {SCALARS: "learned", MATRICES: "learned"}
    layers = list(range(1, LAYERS + 1))
    series = [Series(name, layers, curve, kinds.get(name, "classical")) for name, curve in m.curves.items()]
    series.append(Series("Bayes limit", layers, [m.limit_db] * LAYERS, "limit"))
    rows = [
        {"layer": t, **{name: curve[t - 1] for name, curve in m.curves.items()}, "Bayes limit": m.limit_db}
        for t in layers
    ]
    needs = (
        f"needs {m.ista_needs} iterations"
        if m.ista_needs <= MOST_ITERATIONS
        else f"needs more than {MOST_ITERATIONS} iterations"
    )
    text = (
        "Recovery of 200 unknowns, one in ten of them not zero, from 100 noisy projections at 20 dB.\n"
        f"To reach what LISTA has after 16 layers, ISTA {needs}, with the λ that gets there first."
    )
    return Section(
        "Unfolded network against model-based iterations",
        text,
        [line_chart(series, "layers or iterations", "NMSE in dB")],
        details=Table(rows),
    )


def verdict(m: Curves) -> str:
    """Who won, by how much and against which bound: the first half of a sentence."""
    at_16 = {name: curve[-1] for name, curve in m.curves.items()}
    winner, second = sorted(at_16, key=at_16.__getitem__)[:2]
    return (
        f"after 16 layers {winner} wins with {at_16[winner]:.1f} dB, {at_16[second] - at_16[winner]:.1f} dB ahead of "
        f"{second} and {at_16[winner] - m.limit_db:.1f} dB short of the Bayes limit"
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: three matrices, or one with shorter training if quick."""
    began = time.perf_counter()
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    steps, matrix_steps = (400, 400) if quick else (1000, 1500)  # those of the demo if quick
    measured = [measure(s, steps, matrix_steps, watch) for s in seeds]
    first = measured[0]
    return Study(
        "unfolding-figure",
        "Learned steps reach in 16 layers what ISTA needs hundreds of iterations for.",
        f"On sparse signals, {verdict(first)}; {CAVEAT}.",
        time.perf_counter() - began,
        goals(measured, ista_needs=90 if quick else 150),
        [section(first), *live_sections(problem(seed))],
        {"seeds": seeds, "operator": first.operator[:12], "settings": first.settings},
    )
