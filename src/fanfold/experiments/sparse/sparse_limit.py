"""Sparse recovery at the Bayes limit: how far from it learned and classical estimators stop.

Claim: OAMP with six learned numbers a layer, started from a wrong prior and an unknown noise variance, reaches what the
posterior mean reaches after seconds of training, and one such network serves every sparsity and SNR. Source: the
setting of Gregor & LeCun (2010), Borgerding, Schniter & Rangan (2017) and Liu, Chen, Wang & Yin (2019): 250 x 500, one
in ten not zero; the limit is state evolution, Bayati & Montanari (2011), Rangan, Schniter & Fletcher (2019).
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fanfold.algorithms import OAMP
from fanfold.bounds import bayes_limit
from fanfold.bounds.state_evolution import vamp
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db, nmse_db
from fanfold.evaluation.evaluate import Estimator, errors_db, evaluate
from fanfold.evaluation.peers import classical_peers
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.by_hand import Cost, UnfoldedISTA, around, in_turn, ista_training
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, Problem, Varied
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

WRONG = BernoulliGaussian(0.3)  # the guess that every training starts from; the truth is 0.1
LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread")
YARDSTICK_LAYERS = 10  # of unfolded ISTA by hand, which every training is timed against
UNTRAINED, UNFOLDED = "OAMP, told p = 0.3", "unfolded OAMP"


@dataclass(frozen=True)
class Setting:
    """A row of the goals: a problem, a depth and what to reach there."""

    what: str
    layers: int
    target: float
    changes: dict[str, Any] = field(default_factory=dict)
    statistic: Literal["nmse_db", "median_db"] = "nmse_db"
    quick_target: float | None = None  # with one matrix and shorter training; None leaves the row out there


NOISELESS = {"snr_db": float("inf")}
SETTINGS = (
    Setting("40 dB, T = 10", 10, -45.5, quick_target=-45.2),
    Setting("40 dB, T = 8", 8, -45.0),
    Setting("40 dB, T = 6", 6, -39.4, quick_target=-39.2),
    Setting("40 dB, T = 4", 4, -25.9),
    Setting("30 dB, T = 10", 10, -35.0, {"snr_db": 30.0}),
    Setting("20 dB, T = 10", 10, -23.7, {"snr_db": 20.0}, quick_target=-23.4),
    Setting("noiseless, float64, T = 16, median", 16, -105, NOISELESS | {"dtype": "float64"}, "median_db"),
    Setting("noiseless, float32, T = 16, median", 16, -100, NOISELESS, "median_db"),
    Setting("condition 15, 40 dB, T = 16", 16, -44.0, {"ensemble": "conditioned", "condition_number": 15.0}),
    Setting("condition 100, 40 dB, T = 16", 16, -41.2, {"ensemble": "conditioned", "condition_number": 100.0}),
    Setting("n = 1000, 40 dB, T = 12", 12, -45.2, {"n": 1000, "m": 500}),
    Setting("n = 2000, 40 dB, T = 16", 16, -45.5, {"n": 2000, "m": 1000}),
)


@dataclass(frozen=True)
class Trained:
    """A network on one matrix, what it cost and what it reaches."""

    net: Unfolded
    problem: CompressedSensing
    cost: Cost  # of training, beside unfolded ISTA by hand
    value_db: float


def problem(seed: int, **changes: Any) -> CompressedSensing:
    """The setting of the published records, on the matrix with this seed."""
    return CompressedSensing(n=500, m=250, sparsity=0.1, snr_db=40.0, seed=seed).shifted(**changes)


def train(setting: Setting, seed: int, steps: int, watch: Watcher) -> Trained:
    """OAMP that is told a wrong prior and no noise variance, trained on one matrix."""
    on = problem(seed, **setting.changes)
    net = unfold(OAMP(WRONG, noise="estimated"), on, setting.layers, dict.fromkeys(LEARNED, "per-layer"))
    cost = fitted_at(net, on, steps, seed, watch, setting.what)
    value = errors_db(*estimate(net, on, seed))[setting.statistic]
    return Trained(net, on, cost, value)


def fitted_at(
    net: Unfolded,
    on: Problem,
    steps: int,
    seed: int,
    watch: Watcher,
    what: str,
    nmse_over: Literal["batch", "sample"] = "batch",
) -> Cost:
    """Train a network; what that costs, beside unfolded ISTA of ten layers by hand on a matrix of 250 x 500."""

    def train() -> None:
        shown = watch(what)
        fit(net, on, steps=steps, lr=6e-3, loss_layers=2, nmse_over=nmse_over, seed=seed, threads=1, on_event=shown)

    return around(train, ista_training(problem(seed).A.matrix(), YARDSTICK_LAYERS), steps)


@torch.no_grad()
def estimate(estimator: Estimator, on: Problem, seed: int, samples: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates of test draws, and the signals."""
    x, obs = draw(on, samples, seed, Stream.TESTING, 0)
    return estimator(obs).x, x


RANGES = {"sparsity": (0.05, 0.15), "snr_db": (10.0, 40.0)}


def train_for_all(seed: int, layers: int, steps: int, watch: Watcher) -> tuple[Unfolded, Cost]:
    """One network for every sparsity and SNR, which estimates both anew in every sample."""
    on = Varied(problem(seed), RANGES)
    oamp = OAMP(WRONG, noise="estimated", settings="estimated")
    net = unfold(oamp, on, layers, dict.fromkeys((*LEARNED, "trust"), "per-layer"))
    return net, fitted_at(net, on, steps, seed, watch, "one network for all", nmse_over="sample")


def gaps_to_matched(net: Unfolded, seed: int, samples: int) -> Table:
    """Error of a network beside OAMP that is told sparsity and noise, at the same depth, over the ranges."""
    rows = []
    for sparsity, snr_db in itertools.product((0.05, 0.1, 0.15), (10.0, 20.0, 30.0, 40.0)):
        on = problem(seed, sparsity=sparsity, snr_db=snr_db)
        matched = iterate(OAMP(on.prior), net.layers)
        ours, theirs = (nmse_db(*estimate(e, on, seed, samples)) for e in (net, matched))
        row = {"sparsity": sparsity, "snr_db": snr_db, "one network": ours, "OAMP, told both": theirs}
        rows.append(row | {"gap": ours - theirs})
    return Table(rows)


ENSEMBLES: dict[str, dict[str, Any]] = {
    "iid": {"ensemble": "iid"},
    "row-orthogonal": {"ensemble": "row-orthogonal"},
    "Haar, condition 5": {"ensemble": "conditioned", "condition_number": 5.0},
}


def evolution_gaps(seed: int, samples: int) -> Table:
    """OAMP that is told everything, against state evolution on the same singular values, after 24 iterations."""
    rows = []
    for (name, changes), dtype, snr_db in itertools.product(
        ENSEMBLES.items(), ("float32", "complex64"), (20.0, 30.0, 40.0)
    ):
        on = problem(seed, dtype=dtype, snr_db=snr_db, **changes)
        measured = nmse_db(*estimate(iterate(OAMP(on.prior), 24), on, seed, samples))
        evolved = vamp(on.prior, on.A.svd().s, on.n, on.noise_var, 24, is_complex=dtype.startswith("complex"))[-1]
        row = {
            "A": name,
            "dtype": dtype,
            "snr_db": snr_db,
            "OAMP": measured,
            "state evolution": db(evolved / on.prior.power),
        }
        rows.append(row | {"gap": row["OAMP"] - row["state evolution"]})
    return Table(rows)


def call_cost(net: Unfolded, on: CompressedSensing, samples: int, rounds: int) -> Cost:
    """What a call costs for each sample of a batch, beside unfolded ISTA of as many layers by hand."""
    _, obs = draw(on, max(samples, 2), 0, Stream.TESTING, 1)
    obs, by_hand = obs[:samples], UnfoldedISTA(on.A.matrix(), net.layers)
    cost = in_turn(lambda: net(obs), lambda: by_hand(obs.y), rounds)
    return Cost(cost.ours / samples, cost.by_hand / samples)


def time_goals(trainings: Sequence[Cost], single: Cost, thousand: Cost) -> list[Goal]:
    """Costs over those of unfolded ISTA by hand: 10 s, 3 ms and 0.2 ms where that takes 1.4 s, 0.27 ms and 0.05 ms."""
    measured = {
        "training, T <= 10": (7.0, max(cost.ratio for cost in trainings)),
        "a single sample, T = 10": (11.0, single.ratio),
        "a sample of 1000, T = 10": (4.0, thousand.ratio),
    }
    return [Goal(f"{what}, over ISTA by hand", "", "<=", most, ratio) for what, (most, ratio) in measured.items()]


def time_facts(trainings: Sequence[Cost], single: Cost, thousand: Cost) -> dict[str, str]:
    """The times of the processor behind the ratios."""
    return {
        "training, T <= 10": f"{max(cost.ours for cost in trainings):.1f} s",
        "a single sample": f"{1e3 * single.ours:.2f} ms",
        "a sample of 1000": f"{1e3 * thousand.ours:.3f} ms",
    }


def layer_curves(trained: Sequence[Trained], seed: int, samples: int, *, quick: bool) -> Section:
    """The error of every layer, all methods, with the limit; quick shows OAMP alone of the tuned classical peers."""
    on = trained[0].problem
    methods: dict[str, Estimator] = {UNTRAINED: iterate(OAMP(WRONG), 16)}
    methods |= {f"{UNFOLDED}, T = {t.net.layers}": t.net for t in trained}
    peers = {"OAMP, true prior": iterate(OAMP(on.prior), 16)} if quick else classical_peers(on, 16, seed)
    table = evaluate(methods | peers, on, samples=samples, seed=seed)
    limit = bayes_limit(on)
    assert limit is not None
    series, ends = [], []
    for name in methods | peers:
        rows = [row for row in table if row["estimator"] == name]
        ends.append(
            {"method": name, "layers": rows[-1]["layer"], "NMSE": rows[-1]["nmse_db"], "median": rows[-1]["median_db"]}
        )
        if rows[0]["layer"] is not None:
            kind = "learned" if name in methods and name != UNTRAINED else "classical"
            series.append(Series(name, [r["layer"] for r in rows], [r["nmse_db"] for r in rows], kind))
    series.append(Series("Bayes limit", list(range(1, 17)), [db(limit)] * 16, "limit"))
    ends.sort(key=lambda row: row["NMSE"])
    ends.append({"method": "Bayes limit", "layers": None, "NMSE": db(limit), "median": None})
    ends.append({"method": "support oracle", "layers": None, "NMSE": next(iter(table))["oracle_db"], "median": None})
    text = (
        "250 measurements of 500 unknowns at 40 dB, one in ten of them not zero. Networks are trained for one matrix, "
        "from p = 0.3 and an unknown noise variance.\nEach method at its last layer is in the table below, best first."
    )
    return Section(
        "Error of every layer", text, [line_chart(series, "layers or iterations", "NMSE in dB")], table=Table(ends)
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: three matrices, or one, fewer rows and shorter training if quick."""
    began = time.perf_counter()
    seeds, steps = ([seed], 60) if quick else ([seed, seed + 1, seed + 2], 150)
    settings = [s for s in SETTINGS if not quick or s.quick_target is not None]
    goals, costs, first = [], [], []
    for setting in settings:
        trained = [train(setting, s, steps, watch) for s in seeds]
        target = setting.quick_target if quick and setting.quick_target is not None else setting.target
        goals.append(mean_goal(setting.what, "dB", "<=", target, [t.value_db for t in trained]))
        if trained[0].problem == problem(seed):
            first.append(trained[0])
            costs += [t.cost for t in trained]
    louder = [nmse_db(*estimate(first[0].net, problem(seed, snr_db=30.0), seed))]
    goals.append(mean_goal("trained at 40 dB, noise x 10", "dB", "<=", -34.5, louder))
    for_all, all_cost = train_for_all(seed, 10, steps, watch)
    gaps = gaps_to_matched(for_all, seed, 300 if quick else 1000)
    goals.append(Goal("one network for all: worst gap to matched OAMP", "dB", "<=", 0.3, max(r["gap"] for r in gaps)))
    evolution = evolution_gaps(seed, 200 if quick else 500)
    goals.append(Goal("OAMP: worst gap to state evolution", "dB", "<=", 0.5, max(abs(r["gap"]) for r in evolution)))
    facts: dict[str, Any] = {"seeds": seeds, "learned": ", ".join(LEARNED)}
    facts["operator"] = first[0].problem.A.fingerprint()[:12]
    if not quick:
        net, on = first[0].net, first[0].problem
        times = [*costs, all_cost], call_cost(net, on, 1, 100), call_cost(net, on, 1000, 5)
        goals += time_goals(*times)
        facts |= time_facts(*times)
    best, limit = goals[0].value, bayes_limit(first[0].problem)
    assert limit is not None
    return Study(
        "sparse-limit",
        "Six learned numbers a layer take OAMP from a wrong prior to the Bayes limit, in seconds.",
        f"Unfolded OAMP with {first[0].net.layers} layers reaches {best:.2f} dB, {best - db(limit):.2f} dB from the "
        "Bayes limit; do not trust it where A is not rotationally invariant, as Kronecker products, without a test.",
        time.perf_counter() - began,
        goals,
        [
            layer_curves(first, seed, 200 if quick else 1000, quick=quick),
            Section(
                "One network for all sparsities and SNRs",
                "Trained once over p of 0.05 to 0.15 and 10 to 40 dB; beside it OAMP of that depth that is told both.",
                table=gaps,
            ),
            Section(
                "OAMP against state evolution", "Told the prior and the noise variance, 24 iterations.", table=evolution
            ),
        ],
        facts,
    )
