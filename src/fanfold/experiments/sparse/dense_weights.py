"""Where dense learned weights earn their place: four ways to leave what OAMP assumes, and one line-up in each.

Claim: matrices that learn pay where the model is wrong, as with another A than the believed one, and on real pictures;
where the model holds they lose to OAMP that nobody trained. Source: LISTA, Gregor & LeCun (2010); LISTA-CP, Chen, Liu,
Wang & Yin (2018); learned VAMP, Borgerding, Schniter & Rangan (2017); clusters, Schniter (2010).
The numbers of the goals were set before a network was trained, and the reasons stand beside them. Training is short, a
minute of one core at most for a network: who loses here may lose to its training.
"""

import io
import time
from collections.abc import Sequence

import torch

from fanfold.algorithms import OAMP
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.evaluation.evaluate import Estimator
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.sparse.contest import CP, SCALARS, TWO, UNTRAINED, VECTORS, Contest, Kind, Results, best, hold
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.priors.support_chain import SupportChain
from fanfold.problems import Clustered, CompressedSensing, Mismatched, Photographs, Problem
from fanfold.problems.draws import draw
from fanfold.problems.sparse.photographs import load_picture
from fanfold.report.page import Section
from fanfold.report.plots import require_matplotlib
from fanfold.unfolding.unfold import iterate

CHAIN, MARGINALS = "OAMP, told the clusters", "OAMP, told every unknown's p and var"
TRUE_A, FITTED_A, TRUE_PRIOR = "OAMP, told the true A", "OAMP, A fitted to training pairs", "OAMP, told the prior"
PHOTOGRAPH_GOALS = {0.25: 28.0, 0.5: 31.8}
PAIRS = 20_000  # that A is fitted to: about as many draws as the light network sees, fewer than the dense ones


def fitted_operator(on: Problem, seed: int) -> LinearOperator:
    """A by least squares on pairs: `A = (Σ y xᴴ) (Σ x xᴴ)⁻¹`, what calibration would find."""
    x, obs = draw(on, PAIRS, seed, Stream.TUNING, 4)
    x, y = x.double(), obs.y.double()
    return Dense(torch.linalg.solve(x.mT @ x, x.mT @ y).mT.contiguous().to(obs.y.dtype))


def through(oamp: Estimator, A: LinearOperator) -> Estimator:
    """An estimator with another operator than the one that observations carry."""

    def estimate(obs: Observation) -> Estimate:
        return oamp(Observation.unchecked(obs.y, A, obs.noise_var))

    return estimate


def clusters(seed: int, samples: int) -> list[Contest]:
    """A structured prior: non-zeros in clusters, their probability and variance falling along the signal."""
    on = Clustered(seed=seed)
    marginals = SupportChain(on.chain.p, on.chain.var, persistence=0.0)
    others = {CHAIN: iterate(OAMP(on.chain), 10), MARGINALS: iterate(OAMP(marginals), 10)}
    return [Contest("clusters", on.persistence, on, 10, *draw(on, samples, seed, Stream.TESTING, 0), others)]


def wrong_operators(seed: int, samples: int, errors: Sequence[float], size: int = 200) -> list[Contest]:
    """Measurements by another A than the believed one, at 40 dB."""
    contests = []
    for error in errors:
        on = Mismatched(CompressedSensing(n=size, m=size // 2, sparsity=0.1, snr_db=40, seed=seed), error, seed)
        oamp = iterate(OAMP(on.problem.prior), 10)
        others = {TRUE_A: through(oamp, on.true_A), FITTED_A: through(oamp, fitted_operator(on, seed))}
        contests.append(Contest("error of A", error, on, 10, *draw(on, samples, seed, Stream.TESTING, 0), others))
    return contests


def photographs(seed: int, ratios: Sequence[float]) -> list[Contest]:
    """Blocks of a photograph after training on two others."""
    contests = []
    for ratio in ratios:
        on = Photographs(ratio=ratio, seed=seed)
        x = on.blocks(load_picture("aero"))
        obs = on.observe(x, torch.Generator().manual_seed(seed))
        contests.append(Contest("photograph, ratio", ratio, on, 16, x, obs, lam=0.02, pictures=True))
    return contests


def few_layers(seed: int, samples: int, depths: Sequence[int], size: int = 500) -> list[Contest]:
    """The standard problem, where every assumption holds, with few layers."""
    on = CompressedSensing(n=size, m=size // 2, sparsity=0.1, snr_db=40, seed=seed)
    test = draw(on, samples, seed, Stream.TESTING, 0)
    return [Contest("layers", t, on, t, *test, {TRUE_PRIOR: iterate(OAMP(on.prior), t)}) for t in depths]


def goals_of(contests: Sequence[Contest], outcomes: Sequence[Results], *, quick: bool) -> list[Goal]:
    """What was predicted, with the reasons; the small version has a fifth of the training and asks for less."""
    goals: list[Goal] = []
    leads: list[float] = []
    for contest, results in zip(contests, outcomes):
        gain = {name: result.gain_db for name, result in results.items()}
        surplus, where = best(results, "dense").gain_db - gain[UNTRAINED], f"{contest.case} {contest.at:g}"
        if isinstance(contest.on, Clustered):
            # Two numbers an unknown hold the marginals exactly, and each is met in a thousand training signals or more.
            behind = gain[MARGINALS] - gain[VECTORS]
            goals.append(Goal(f"{where}: learned p and var behind told ones", "dB", "<=", 0.5, behind))
            # State evolution gives the marginals 1.3 dB over the best separable prior after 10 layers: half of that.
            what = f"{where}: best dense network over untrained OAMP"
            goals.append(Goal(what, "dB", ">=", 0.7, surplus))
        if isinstance(contest.on, Mismatched):
            # An error of 10 % is noise at 20 dB, where the limit is -23.8 dB; matrices that undo half of it leave noise
            # at 26 dB and, between -23.8 and the -35.0 of 30 dB, 7 dB less error. One of them goes to training. In the
            # small version they undo a quarter: 2.5 dB of noise, 2.8 dB less error.
            if contest.at == 0.1:
                what, target = f"{where}: best dense network over untrained OAMP", 2.0 if quick else 6.0
                goals.append(Goal(what, "dB", ">=", target, surplus))
            # Least squares on 20000 pairs, a tenth of their entries not zero, leaves A an error 60 dB below it.
            what, behind = f"{where}: A fitted to pairs behind the true A", gain[TRUE_A] - gain[FITTED_A]
            goals.append(Goal(what, "dB", "<=", 0.5, behind))
        if contest.pictures:  # the goals of `fanfold reproduce photographs`
            goals.append(Goal(f"{where}: {CP}", "dB PSNR", ">=", PHOTOGRAPH_GOALS[contest.at], gain[CP]))
        if contest.case == "layers":
            leads.append(gain[SCALARS] - max(gain[name] for name in (CP, TWO) if name in gain))
    # OAMP's linear step already is the best matrix where A is Gaussian and unknowns are alike
    goals.append(Goal("few layers: least lead of OAMP's scalars over LISTA's matrices", "dB", ">=", 0.0, min(leads)))
    return goals


def outcome(contest: Contest, results: Results) -> Table:
    """Every method, best first, and how it does against OAMP that nobody trained."""
    sign, unit = (1, "PSNR (dB)") if contest.pictures else (-1, "NMSE (dB)")
    rows = []
    for r in sorted(results.values(), key=lambda r: -r.gain_db):
        ahead = r.gain_db - results[UNTRAINED].gain_db
        against = "" if r.name == UNTRAINED else f"{'wins' if ahead > 0 else 'loses'} by {abs(ahead):.2f} dB"
        row = {contest.case: contest.at, "method": r.name, "kind": r.kind, unit: sign * r.gain_db}
        rows.append(row | {"against untrained OAMP": against, "numbers": r.learned, "CPU s": r.seconds})
    return Table(rows)


COLOURS: dict[Kind, str] = {"dense": "#c2410c", "light": "#0f766e", "untrained": "#64748b", "told": "#111827"}


def bars(contests: Sequence[Contest], outcomes: Sequence[Results]) -> str:
    """A panel of bars for each contest of a case: how far every method gets, dense ones in orange."""
    figure_class, rc_context = require_matplotlib()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fanfold", "font.size": 9}):
        names = list(outcomes[0])[::-1]
        figure = figure_class(figsize=(9.5, 0.6 + 0.3 * len(names)), layout="constrained")
        for axes, contest, results in zip(
            figure.subplots(1, len(contests), sharey=True, squeeze=False)[0], contests, outcomes
        ):
            gains, colours = [results[n].gain_db for n in names], [COLOURS[results[n].kind] for n in names]
            axes.bar_label(axes.barh(names, gains, color=colours), fmt="%.1f", padding=2)
            axes.set_title(f"{contest.case} {contest.at:g}", fontsize=9)
            axes.set_xlabel("PSNR in dB" if contest.pictures else "dB below the signal")
            axes.margins(x=0.15)
            axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


TEXTS = {
    "clusters": "Non-zeros come in clusters; their probability and variance fall by 10 dB along the signal; 20 dB.\n"
    "Values are independent of each other, so no covariance shows the clusters: only a prior of the whole signal does.",
    "error of A": "Everyone is given A and measured with A + E, at 40 dB; the number is the size of E over that of A.\n"
    "LISTA-CP keeps the believed A in every residual, so E stays noise to it. U and V can become those of A + E.",
    "photograph, ratio": "Blocks of 16 × 16 pixels, trained on two photographs, tested on a third.",
    "layers": "250 × 500, 40 dB, one in ten not zero: every assumption of OAMP holds.",
}


def section(case: str, contests: Sequence[Contest], outcomes: Sequence[Results]) -> Section:
    """A case: who wins where, a panel for each contest, every number."""
    lines = [TEXTS[case]]
    for contest, results in zip(contests, outcomes):
        first, dense = best(results, "dense", "light", "untrained"), best(results, "dense")
        ahead = dense.gain_db - best(results, "light", "untrained").gain_db
        lines.append(
            f"At {contest.at:g} {first.name} wins, of those told nothing. The best dense network, {dense.name}, "
            f"{'beats' if ahead > 0 else 'loses to'} the best without matrices that learn by {abs(ahead):.2f} dB."
        )
    table = Table([row for pair in zip(contests, outcomes) for row in outcome(*pair)])
    return Section(case[0].upper() + case[1:], "\n".join(lines), [bars(contests, outcomes)], table)


def verdict(contests: Sequence[Contest], outcomes: Sequence[Results]) -> str:
    """Where dense weights win, where they lose, and what is far beyond them for being told more."""
    won: list[str] = []
    lost: list[str] = []
    beyond: list[str] = []
    for contest, results in zip(contests, outcomes):
        dense, rival = best(results, "dense"), best(results, "light", "untrained")
        ahead, where = dense.gain_db - rival.gain_db, f"{contest.case} {contest.at:g}"
        (won if ahead > 0 else lost).append(f"{where} by {abs(ahead):.1f} dB ({dense.name})")
        for r in results.values():
            gap = r.gain_db - max(dense.gain_db, rival.gain_db)
            if r.kind == "told" and gap > 1:
                beyond.append(f"{r.name}, by {gap:.1f} dB at {where}")
    wins, losses, further = ("; ".join(places) or "none" for places in (won, lost, beyond))
    return (
        f"Where dense learned weights win against the best of OAMP, unfolded or not, and LMMSE: {wins}. Where they "
        f"lose: {losses}. Ahead of all of these: {further}. Do not trust a network at another A or prior without "
        "evaluating there."
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: every case on one matrix; a wrong A and few layers, smaller and trained for less, if quick."""
    began = time.perf_counter()
    if quick:
        contests = wrong_operators(seed, 300, [0.1], 100) + few_layers(seed, 300, [2], 100)
    else:
        contests = clusters(seed, 1000) + wrong_operators(seed, 1000, [0.01, 0.03, 0.1])
        contests += photographs(seed, [0.25, 0.5]) + few_layers(seed, 1000, [2, 4, 6])
    outcomes = [hold(contest, seed, watch, quick=quick) for contest in contests]
    sections = []
    for case in dict.fromkeys(c.case for c in contests):
        pairs = [(c, r) for c, r in zip(contests, outcomes) if c.case == case]
        sections.append(section(case, [c for c, _ in pairs], [r for _, r in pairs]))
    return Study(
        "dense-weights",
        "Dense learned weights earn their place where the model is wrong, and lose to OAMP where it holds.",
        verdict(contests, outcomes),
        time.perf_counter() - began,
        goals_of(contests, outcomes, quick=quick),
        sections,
        {"seed": seed},
    )
