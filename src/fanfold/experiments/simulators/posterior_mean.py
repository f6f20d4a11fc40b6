"""Squared-error training recovers the posterior mean, and cross-entropy the class posterior: the theorem, run.

Claim: trained on more and more simulations, an end-to-end estimator m̂ comes near `E[x|y]`: its excess
risk `E‖m̂ - E[x|y]‖²`, as a share of the Bayes risk `E‖x - E[x|y]‖²`, goes to zero; at a million simulations it is at
most 1 %, in a minute on two cores. Source: theorem "Squared-Error Training Recovers the Posterior Mean" of the text;
Kay (1993), section 10.3. In all problems the posterior is known exactly and the network is not told any of it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.estimators import neural
from fanfold.estimators.posterior.heads import LossName
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.by_hand import Cost, around, perceptron_training
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.priors import BernoulliGaussian, Uniform
from fanfold.problems import Denoising, LinearGaussian, MixtureSignal, Modulation, Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import KnownPosterior
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit

LINEAR, MIXTURE, SPARSE, UNIFORM, CLASSES = (
    "linear Gaussian, d = 10",
    "Gaussian mixture, d = 3",
    "Bernoulli-Gaussian scalar",
    "uniform prior, Gaussian noise",
    "modulation, four classes",
)
PROBLEMS: dict[str, Problem] = {
    LINEAR: LinearGaussian(),
    MIXTURE: MixtureSignal(),
    SPARSE: Denoising(BernoulliGaussian()),
    UNIFORM: Denoising(Uniform()),
    CLASSES: Modulation(),
}
MILLION = 1_000_000
STEPS = {1000: 200, 10_000: 400, 100_000: 1000, MILLION: 1900}  # of 512 draws
TEST_DRAWS = 50_000


@dataclass(frozen=True)
class Trained:
    """What one training gave: excess over the Bayes risk (of classes: over the entropy) as a share, and its cost."""

    problem: str
    simulations: int
    excess: float
    cost: Cost  # beside a perceptron by hand, trained for as many steps


def train(name: str, simulations: int, seed: int, watch: Watcher) -> Trained:
    """Train on so many simulations and measure on fresh ones."""
    problem = PROBLEMS[name]
    loss: LossName = "cross-entropy" if name == CLASSES else "squared-error"
    net = neural(problem, loss, members=1, seed=seed)
    show, steps = watch(f"{name}, {simulations:,} simulations"), STEPS[simulations]

    def run() -> None:
        fit(net, problem, simulations=simulations, on_event=show, steps=steps, validate_every=100, seed=seed, threads=1)

    cost = around(run, perceptron_training(), steps)
    return Trained(name, simulations, excess(net, problem, seed), cost)


@torch.no_grad()
def excess(estimator, problem: Problem, seed: int) -> float:
    """`E‖m̂ - E[x|y]‖² / E Var[x|y]` on test draws; of classes `E KL(P(·|y), p̂) / E H(P(·|y))`."""
    assert isinstance(problem, KnownPosterior)
    _, obs = draw(problem, TEST_DRAWS, seed, Stream.TESTING, 0)
    exact, estimated = problem.posterior(obs), estimator(obs).x.double()
    assert exact.var is not None
    mean = exact.x.double()
    if isinstance(problem, Modulation):
        log_p = mean.clamp_min(1e-300).log()
        divergence = (mean * (log_p - estimated.clamp_min(1e-300).log())).sum(-1)
        return (divergence.mean() / -(mean * log_p).sum(-1).mean()).item()
    return ((estimated - mean).square().sum(-1).mean() / exact.var.double().sum(-1).mean()).item()


def goals(trained: Sequence[Trained], *, quick: bool) -> list[Goal]:
    """The targets, means over the seeds, in per cent; quick stops at 100 000 simulations and has targets of its own."""

    def alike(name: str, simulations: int) -> list[Trained]:
        return [t for t in trained if (t.problem, t.simulations) == (name, simulations)]

    def goal(name: str, simulations: int, most: float) -> Goal:
        measured = [100 * t.excess for t in alike(name, simulations)]
        return mean_goal(f"{name}, {simulations:,} simulations, excess risk", "%", "<=", most, measured)

    few = [goal(LINEAR, 1000, 2.5), goal(LINEAR, 10_000, 0.6)]
    if quick:
        return [*few, goal(UNIFORM, 100_000, 1.0), goal(SPARSE, 100_000, 1.0)]
    many = [goal(name, MILLION, 1.0) for name in PROBLEMS]
    slowest = max((t.cost for name in PROBLEMS for t in alike(name, MILLION)), key=lambda cost: cost.ratio)
    what = "longest training on a million simulations, over a perceptron by hand"
    return [*few, *many, Goal(what, "", "<=", 3.4, slowest.ratio)]  # a minute, where that takes 18 s


def section(trained: Sequence[Trained]) -> Section:
    """The chart of the mean excess against the number of simulations."""
    rows, series = [], []
    for name in dict.fromkeys(t.problem for t in trained):
        counts = sorted({t.simulations for t in trained if t.problem == name})
        means = []
        for count in counts:
            alike = [t for t in trained if (t.problem, t.simulations) == (name, count)]
            means.append(100 * sum(t.excess for t in alike) / len(alike))
            seconds = sum(t.cost.ours for t in alike) / len(alike)
            rows.append({"problem": name, "simulations": count, "excess (%)": means[-1], "CPU s": seconds})
        series.append(Series(name, counts, means, "learned"))
    text = (
        "Excess over the Bayes risk against the number of simulations, mean over the seeds.\n"
        "The estimator is the best linear one, learned from the same simulations, plus a network: where the posterior "
        "mean is linear, little is left to learn."
    )
    chart = line_chart(series, "simulations", "excess in % of the Bayes risk", log_x=True, log_y=True)
    return Section("The excess goes to zero", text, [chart], Table(rows))


def verdict(trained: Sequence[Trained]) -> str:
    """How near the networks came at the end."""
    most = max(t.simulations for t in trained)
    worst = max((t for t in trained if t.simulations == most), key=lambda t: t.excess)
    return (
        f"With {most:,} simulations every network is within {100 * worst.excess:.2f} % of the Bayes risk (furthest: "
        f"{worst.problem}): the posterior mean, no more and no less; do not trust it on draws of another distribution, "
        "whose posterior mean is another one"
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """Three seeds up to a million simulations, or one up to 100 000 of three problems if quick."""
    began = time.perf_counter()
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    counts = {name: [1000, 10_000, 100_000, MILLION] for name in PROBLEMS}
    if quick:
        counts = {LINEAR: [1000, 10_000], UNIFORM: [1000, 100_000], SPARSE: [100_000]}
    trained = [train(name, count, s, watch) for name, sizes in counts.items() for count in sizes for s in seeds]
    return Study(
        "posterior-mean",
        "Squared-error training recovers the posterior mean.",
        f"{verdict(trained)}.",
        time.perf_counter() - began,
        goals(trained, quick=quick),
        [section(trained)],
        {"seeds": seeds, "test draws": TEST_DRAWS},
    )
