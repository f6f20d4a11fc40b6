"""Five layers of LISTA against a hundred iterations of ISTA.

Claim: five layers with learned matrices and thresholds are at least as good as 100 iterations of ISTA with its best λ.
Source: the LISTA example of Shlezinger, Whang, Eldar & Dimakis, "Model-Based Deep Learning" (2023): 150 x 200, four
non-zeros. The SNR of 20 dB, the Gaussian amplitudes and the peers are chosen here.
"""

import time
from collections.abc import Sequence

import torch

from fanfold.algorithms import ALISTAAT, AMP, FISTA, ISTA, LISTA, LISTACP, OAMP, Algorithm
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.estimators import LMMSE
from fanfold.evaluation.evaluate import errors_db
from fanfold.evaluation.peers import ALPHAS, lam_grid, tuned
from fanfold.experiments.base import CAVEAT, Goal, Study, mean_goal
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.problems import ExactlySparse
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

LAYERS, LONG = 5, 100
NETWORK, COUPLED, SCALARS = "LISTA (W1, W2)", "LISTA-CP (W)", "adaptive ALISTA (4 scalars)"
PEER, QUICK_PEER, FAST, AMP_PEER, INFORMED = (
    "ISTA, best λ for 100",
    "ISTA, best λ for 5",
    "FISTA",
    "AMP, best α",
    "OAMP, told the prior",
)


def train(on: ExactlySparse, start: Algorithm, steps: int, seed: int, watch: Watcher, name: str) -> Unfolded:
    """Every quantity of every layer learned."""
    net = unfold(start, on, LAYERS, dict.fromkeys(start.nominals, "per-layer"))
    lr = {NETWORK: 2e-3, COUPLED: 3e-3, SCALARS: 6e-3}[name]
    return fit(net, on, steps=steps, batch=128, lr=lr, validate_every=100, seed=seed, threads=1, on_event=watch(name))


@torch.no_grad()
def measure(seed: int, steps: int, watch: Watcher) -> dict[str, list[float]]:
    """NMSE in dB after each layer or iteration on the matrix with this seed, by method."""
    on = ExactlySparse(seed=seed)
    lams = lam_grid(on, seed)
    short = tuned(ISTA, lams, on, LAYERS, seed)
    assert isinstance(short, ISTA)
    with torch.enable_grad():
        networks = {
            NETWORK: train(on, LISTA(short.lam), steps, seed, watch, NETWORK),
            COUPLED: train(on, LISTACP(short.lam), steps * 2 // 3, seed, watch, COUPLED),
            SCALARS: train(on, ALISTAAT(), steps // 10, seed, watch, SCALARS),
        }
    estimators = networks | {
        PEER: iterate(tuned(ISTA, lams, on, LONG, seed), LONG),
        QUICK_PEER: iterate(short, LAYERS),
        f"{FAST}, best λ for {LAYERS}": iterate(tuned(FISTA, lams, on, LAYERS, seed), LAYERS),
        f"{FAST}, best λ for {LONG}": iterate(tuned(FISTA, lams, on, LONG, seed), LONG),
        AMP_PEER: iterate(tuned(AMP, ALPHAS, on, LAYERS, seed), LAYERS),
        INFORMED: iterate(OAMP(on.prior), LAYERS),
    }
    x, obs = draw(on, 4000, seed, Stream.TESTING, 0)
    curves = {name: [errors_db(e.x, x)["nmse_db"] for e in net.trajectory(obs)] for name, net in estimators.items()}
    return curves | {"LMMSE": [errors_db(LMMSE.of(on, seed=seed)(obs).x, x)["nmse_db"]]}


def goals(measured: Sequence[dict[str, list[float]]], *, quick: bool) -> list[Goal]:
    """By how much the networks are ahead of ISTA, mean over the matrices; quick has a fifth of the training."""

    def gain(network: str, peer: str, least: float) -> Goal:
        values = [c[peer][-1] - c[network][-1] for c in measured]
        what = f"gain of {network}, {LAYERS} layers, over {peer} iterations"
        return mean_goal(what, "dB", ">=", least, values)

    if quick:
        return [gain(NETWORK, QUICK_PEER, 10.0), gain(COUPLED, QUICK_PEER, 15.0), gain(SCALARS, PEER, 4.0)]
    return [gain(name, PEER, 0.0) for name in (NETWORK, COUPLED, SCALARS)]


def section(curves: dict[str, list[float]]) -> Section:
    """The chart of one matrix, with a table of all methods, best first."""
    learned = (NETWORK, COUPLED, SCALARS)
    series = [
        Series(name, list(range(1, len(curve) + 1)), curve, "learned" if name in learned else "classical")
        for name, curve in curves.items()
        if len(curve) > 1
    ]
    ranked = sorted(curves.items(), key=lambda item: item[1][-1])
    rows = [
        {"method": n, "layers or iterations": len(c), "NMSE (dB)": c[-1], "learned": n in learned} for n, c in ranked
    ]
    text = (
        "Recovery of 200 unknowns, four of them not zero, from 150 projections at 20 dB; one matrix.\n"
        f"ISTA and FISTA have the λ that is best for their number of iterations, AMP its best α for {LAYERS}; OAMP "
        "knows prior and noise variance; LMMSE has the covariance of training draws."
    )
    chart = line_chart(series, "layers or iterations", "NMSE in dB", log_x=True)
    return Section("Five layers against a hundred iterations", text, [chart], Table(rows))


def verdict(curves: dict[str, list[float]]) -> str:
    """Who won, and how LISTA did against what it is compared with: the first half of a sentence."""
    at_end = {name: curve[-1] for name, curve in curves.items()}
    winner = min(at_end, key=at_end.__getitem__)
    ahead, behind = at_end[PEER] - at_end[NETWORK], at_end[NETWORK] - at_end[INFORMED]
    return (
        f"{NETWORK} with {LAYERS} layers is {abs(ahead):.2f} dB {'ahead of' if ahead > 0 else 'behind'} {PEER} "
        f"iterations ({at_end[NETWORK]:.2f} against {at_end[PEER]:.2f} dB) and {behind:.2f} dB "
        f"behind {INFORMED}, with as many iterations; {winner} is best with {at_end[winner]:.2f} dB (no bound is known)"
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: three matrices, or one with shorter training if quick."""
    began = time.perf_counter()
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    measured = [measure(s, 600 if quick else 3000, watch) for s in seeds]
    return Study(
        "mbdl-lista",
        "Five layers of LISTA do what ISTA needs a hundred iterations for.",
        f"On signals with four non-zeros, {verdict(measured[0])}; {CAVEAT}.",
        time.perf_counter() - began,
        goals(measured, quick=quick),
        [section(measured[0])],
        {"seeds": seeds, "operator": ExactlySparse(seed=seed).A.fingerprint()[:12]},
    )
