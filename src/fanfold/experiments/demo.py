"""What `fanfold demo` shows in under a minute: a network at the limit, the figure of unfolding, and a photograph."""

import time
from dataclasses import dataclass

import torch

from fanfold.algorithms import OAMP
from fanfold.bounds import bayes_limit
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db, nmse_db
from fanfold.experiments.base import CAVEAT, Goal, Study
from fanfold.experiments.sparse import photographs, unfolding_figure
from fanfold.experiments.sparse.unfolding_figure import LAYERS, Watcher
from fanfold.priors import BernoulliGaussian
from fanfold.problems.draws import draw
from fanfold.report.figure.section import live_sections
from fanfold.report.learned import learned_sections
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

WRONG = BernoulliGaussian(0.3)  # three times as many entries as there are
LEARN = {"prior": "per-layer", "noise_var": "per-layer", "variances": "per-layer"}
LEARNED, UNTRAINED, INFORMED = "unfolded OAMP", "OAMP, wrong prior", "OAMP, told all"
STEPS, SAMPLES = 80, 2000


@dataclass(frozen=True)
class AtTheLimit:
    """NMSE in dB after each layer of an unfolded network, of what it starts from, and of what knows everything."""

    curves: dict[str, list[float]]
    limit_db: float
    net: Unfolded


def at_the_limit(seed: int, watch: Watcher, steps: int = STEPS) -> AtTheLimit:
    """Train OAMP from a wrong prior and noise that it reads off each sample, on the text's problem."""
    problem = unfolding_figure.problem(seed)
    net = unfold(OAMP(WRONG, noise="estimated"), problem, LAYERS, LEARN)
    fit(net, problem, steps=steps, lr=2e-3, seed=seed, on_event=watch(LEARNED))
    untrained, informed = iterate(OAMP(WRONG, noise="estimated"), LAYERS), iterate(OAMP(problem.prior), LAYERS)
    x, obs = draw(problem, SAMPLES, seed, Stream.TESTING, 0)
    with torch.no_grad():
        curves = {
            name: [nmse_db(estimate.x, x) for estimate in one.trajectory(obs)]
            for name, one in ((LEARNED, net), (UNTRAINED, untrained), (INFORMED, informed))
        }
    limit = bayes_limit(problem)
    assert limit is not None
    return AtTheLimit(curves, db(limit), net)


def goals(one: AtTheLimit) -> list[Goal]:
    """Where the network ends."""
    end = {name: curve[-1] for name, curve in one.curves.items()}
    return [
        Goal(f"{LEARNED} from a wrong prior, above the Bayes limit", "dB", "<=", 0.5, end[LEARNED] - one.limit_db),
        Goal(f"{LEARNED} from a wrong prior, above {INFORMED}", "dB", "<=", 0.3, end[LEARNED] - end[INFORMED]),
    ]


def sections(one: AtTheLimit) -> list[Section]:
    """The curves beside the limit, and what was learned."""
    layers = list(range(1, LAYERS + 1))
    series = [Series(k, layers, v, "learned" if k == LEARNED else "classical") for k, v in one.curves.items()]
    series.append(Series("Bayes limit", layers, [one.limit_db] * LAYERS, "limit"))
    rows = [{"layer": t, **{k: v[t - 1] for k, v in one.curves.items()}, "Bayes limit": one.limit_db} for t in layers]
    count = sum(p.numel() for p in one.net.parameters())
    text = (
        "The network starts as OAMP that believes three entries in ten not to be zero, where one is, and that reads "
        f"the noise off each sample. {count} learned numbers bring it to OAMP that is told both, and to the limit that "
        "no estimator passes in the mean."
    )
    chart = line_chart(series, "layers or iterations", "NMSE in dB")
    return [
        Section("From a wrong prior to the limit", text, [chart], details=Table(rows)),
        *learned_sections(one.net),
    ]


def study(*, seed: int, watch: Watcher) -> Study:
    """One matrix and one picture, trained for seconds."""
    began = time.perf_counter()
    limit = at_the_limit(seed, watch)
    curves = unfolding_figure.measure(seed, 400, 400, watch)
    recovery = photographs.recover(0.5, 350, seed, watch)
    judged: list[Goal] = [
        *goals(limit),
        *unfolding_figure.goals([curves], ista_needs=90),
        *photographs.goals(recovery),
    ]
    live = live_sections(unfolding_figure.problem(seed), limit.net)
    end = limit.curves[LEARNED][-1]
    return Study(
        "demo",
        "A network is an algorithm plus deviations.",
        f"On sparse signals {LEARNED}, from a wrong prior, ends at {end:.1f} dB, {end - limit.limit_db:.1f} dB from "
        f"the Bayes limit; of the text's figure, {unfolding_figure.verdict(curves)}; on a photograph "
        f"{photographs.verdict(recovery)}; {CAVEAT}, nor on other kinds of picture.",
        time.perf_counter() - began,
        judged,
        [*sections(limit), unfolding_figure.section(curves), *live, photographs.section(recovery)],
        {"seed": seed, "operators": f"{curves.operator[:12]}, {recovery.operator[:12]}"},
    )
