"""Is it the posterior? Checks of a network that draws from one: on average, at observations, of what it predicts."""

from collections.abc import Callable

import torch
from torch import nn

from fanfold.core.abilities import offers
from fanfold.core.streams import Stream, generator_of
from fanfold.core.table import Table
from fanfold.guard import LC2ST, SBC, TARP, Predictive, Sampler, lc2st, predictive, sbc
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import DrawsAt
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart

RANKED, DRAWS = 300, 99  # true parameters whose ranks are taken, and draws beside each
PAIRS, NULLS, PLACES = 400, 99, 6  # that the local test has, its permutations, and observations that it is made at
REPLICATED, REPLICATIONS = 20, 199  # observations, and how often each is simulated again
MOST_CURVES = 5  # of parameters
KOLMOGOROV = 1.358  # over the root of the number of draws: 95 % of right ones stay within

Say = Callable[[str], None]


def posterior_sections(net: nn.Module, problem: Problem, say: Say = lambda line: None) -> list[Section]:
    """The sections of a network that draws from a posterior; none of another one.

    Args:
        net: The network.
        problem: What it is judged on.
        say: Called with a line before each check.
    """
    if not offers(net, Sampler):
        return []
    _, obs = draw(problem.held_out(), max(PLACES, REPLICATED), 0, Stream.TESTING, 0)
    try:
        net.sample(obs[:1], 2, generator_of(0, Stream.POSTERIOR))
    except ValueError:  # a network that draws with other settings than these
        return []
    checks: list[tuple[str, str, Callable[[], list[Section]]]] = [
        ("Ranks of the truth", f"ranks of {RANKED} true parameters", lambda: _on_average(net, problem)),
        (
            "At single observations",
            f"{PLACES} observations by themselves",
            lambda: _locally(net, problem, obs[:PLACES]),
        ),
    ]
    if offers(problem, DrawsAt):
        checks.append(
            (
                "What the posterior predicts",
                f"{REPLICATED} observations again",
                lambda: _again(net, problem, obs[:REPLICATED]),
            )
        )
    sections = []
    for title, what, check in checks:
        say(f"is it the posterior? {what}")
        try:
            sections += check()
        except ValueError as error:  # too few stored pairs, or a simulator that fails at all draws
            sections.append(Section(title, f"This was not checked: {error}"))
    return sections


def _on_average(net: Sampler, problem: Problem) -> list[Section]:
    result = sbc(net, problem, samples=RANKED, draws=DRAWS)
    return [_ranks(result), _coverage(result.tarp)]


def _ranks(result: SBC) -> Section:
    """How far the distribution of ranks is from the uniform one, of the parameters that are farthest."""
    count, worst = len(result.ranks), result.p_values.argsort()[:MOST_CURVES].sort().values.tolist()
    levels = torch.linspace(0, 1, 21, dtype=torch.float64)
    place = (result.ranks.double() + 0.5) / (result.draws + 1)
    series = [
        Series(f"x{i}", levels.tolist(), ((place[:, i, None] <= levels).double().mean(0) - levels).tolist(), "learned")
        for i in worst
    ]
    band = KOLMOGOROV / count**0.5
    series += [Series(f"{sign}95 %", [0.0, 1.0], [end, end], "limit") for sign, end in (("+", band), ("−", -band))]
    rows = [{"parameter": i, "p": p} for i, p in enumerate(result.p_values.tolist())]
    text = (
        f"{result.sentence}\nThe share of true parameters whose rank is below a level, less the level: zero where the "
        "posterior is right. First above and then below says too narrow, first below and then above too wide, one side "
        "alone that it is off. This is a mean over the prior, which itself passes."
    )
    return Section("Ranks of the truth", text, [line_chart(series, "level of the rank", "share below, less the level")],
                   details=Table(rows))  # fmt: skip


def _coverage(result: TARP) -> Section:
    table = result.table
    levels = [row["nominal"] for row in table]
    series = [
        Series("measured", levels, [row["measured"] for row in table], "learned"),
        Series("95 %, from", levels, [row["low"] for row in table], "limit"),
        Series("to", levels, [row["high"] for row in table], "limit"),
    ]
    chart = line_chart(series, "probability that a region promises", "share of truths within")
    text = f"{result.sentence}\nAll parameters at once, within balls about random points (TARP)."
    return Section("Coverage around random points", text, [chart], details=table)


def _locally(net: Sampler, problem: Problem, obs: Observation) -> list[Section]:
    result: LC2ST = lc2st(net, problem, obs, samples=PAIRS, nulls=NULLS)
    columns = zip(result.statistic.tolist(), result.quantile().tolist(), result.p_values.tolist())
    rows = [
        {"held-out observation": str(i), "statistic": value, "95 % if right": limit, "p": p}
        for i, (value, limit, p) in enumerate(columns)
    ]
    text = (
        f"{result.sentence}\nA classifier tells the truth from draws of the posterior near each observation (L-C2ST): "
        "the statistic is the mean square of the ratio of the true density to that of the network, less one."
    )
    return [Section("At single observations", text, table=Table(rows))]


def _again(net: Sampler, problem: DrawsAt, obs: Observation) -> list[Section]:
    result: Predictive = predictive(net, problem, obs, draws=REPLICATIONS)
    ordered = result.p_values.sort().values.tolist()
    share = [(i + 0.5) / len(ordered) for i in range(len(ordered))]
    series = [Series("observed", share, ordered, "learned"), Series("if uniform", [0.0, 1.0], [0.0, 1.0], "limit")]
    chart = line_chart(series, "held-out observations, in order", "p-value")
    entries = result.feature_p_values
    rows = [
        {"held-out observation": str(i), "p": p, "entry that is farthest": int(entries[i].argmin()), "its p": least}
        for i, (p, least) in enumerate(zip(result.p_values.tolist(), entries.min(-1).values.tolist()))
    ]
    text = (
        f"{result.sentence}\nParameters are drawn of the posterior and y is simulated again at them. p-values far "
        "below the line say that measurements are unlike what the posterior predicts; above it is as it should be."
    )
    return [Section("What the posterior predicts", text, [chart], details=Table(rows))]
