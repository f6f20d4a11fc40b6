"""The page of an end-to-end run: learning curve, error beside peers and limits, and whether its variances hold."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import nn

from fanfold.bounds import error_decomposition
from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.evaluation.by_unknown import errors_by_unknown, in_digits, remarks_on_unknowns
from fanfold.evaluation.evaluate import class_errors, evaluate
from fanfold.evaluation.few import remarks_on_few
from fanfold.evaluation.peers import NETWORK, peers_of
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import GaussianModel, KnownModel, Tabulated, unknowns_of
from fanfold.report.page import Section, filled
from fanfold.report.plots import Series, line_chart
from fanfold.report.run_facts import NMSE_IN_WORDS, draws_in_words, uses_in_words
from fanfold.report.scenes import scene_sections

LOSS_UNITS = "Loss in units of the best linear estimator's error (cross-entropy: nats)."


@singledispatch
def sections_of(
    problem: Problem, net: nn.Module, metrics: Sequence[dict[str, Any]], samples: int
) -> tuple[str, list[Section]]:
    """The verdict and the sections of the page of an end-to-end network; a kind of problem may register its own."""
    peers = peers_of(net, problem, at_once=True)
    table = evaluate(peers, problem, samples=samples, layers=False)
    about = draws_in_words(problem, max(row["samples"] for row in table))
    about += f" {NMSE_IN_WORDS}"
    about += " The limit is the error of the exact posterior mean." if table.rows[0]["limit_db"] is not None else ""
    about = "\n".join(text for text in (about, uses_in_words(problem), *remarks_on_few(table)) if text)
    sections = [
        Section("Error", about, table=filled(table)),
        *_apart(peers, problem, samples),
        *scene_sections(peers, problem),
        *_variances(net, problem, samples),
        *learning_sections(metrics),
    ]
    sections += [*_decomposition(net, problem), *_simulations(problem, metrics)]
    return _verdict(table), sections


def _apart(peers: Mapping[str, Estimator], problem: Problem, samples: int) -> list[Section]:
    """The error of each unknown in its unit, where unknowns have errors of their own."""
    table = errors_by_unknown(peers, problem, samples=samples)
    if not len(table):
        return []
    text = (
        "The root of the mean squared error and the median of the error's size, in the unit of each unknown, beside "
        "its standard deviation. Error in dB is the first over the last, 0 dB for whoever says the mean alone."
    )
    text = "\n".join([text, *remarks_on_unknowns(table)])
    return [Section("Error of each unknown", text, table=in_digits(table))]


def of_batches(steps: Sequence[dict[str, Any]]) -> Table:
    """What was logged of steps that were taken, without what is the same for all of them."""
    return Table([{name: m[name] for name in ("step", "loss", "gradient_norm", "lr")} for m in steps])


def learning_sections(metrics: Sequence[dict[str, Any]], text: str = LOSS_UNITS) -> list[Section]:
    """Losses while training, of batches and of held-out draws; NMSEs where the network has no losses of its own.

    There are none of a network that was saved and not trained in its directory.
    """
    steps = [m for m in metrics if m["event"] == "stepped" and not m["skipped"]]
    held_out = [m for m in metrics if m["event"] == "validated"]
    if not steps:
        return []
    verdicts = [m["verdict"] for m in metrics if m["event"] == "finished" and m.get("verdict")]
    text = "\n".join([*verdicts[-1:], text])
    thinned = steps[:: max(1, len(steps) // 200)]
    judged = all(m["loss"] is not None for m in held_out)
    factor, measure = (1, "loss") if judged else (10, "nmse_db")
    series = [
        Series("a batch", [m["step"] for m in thinned], [factor * m["loss"] for m in thinned]),
        Series("held out", [m["step"] for m in held_out], [m[measure] for m in held_out], "learned"),
    ]
    chart = line_chart(series, "step", "loss" if judged else "NMSE in dB")
    return [Section("Learning curve", text if judged else "", [chart], details=of_batches(thinned))]


@torch.no_grad()
def _variances(net: nn.Module, problem: Problem, samples: int) -> list[Section]:
    """Squared errors over predicted variances, where a network predicts some: 1 on average if they hold."""
    x, obs = draw(problem.held_out(), samples, 0, Stream.TESTING, 0)
    estimate = net(obs)
    if estimate.var is None:
        return []
    score = ((estimate.x - x).abs().square() / estimate.var.clamp_min(torch.finfo(x.real.dtype).tiny)).double()
    inside = (score < 1.645**2).double()
    names = unknowns_of(problem).names or tuple(range(x.shape[-1]))
    rows = [
        {"parameter": i, "mean of error² / variance": s.mean().item(), "in the 90 % Gaussian interval": c.mean().item()}
        for i, s, c in zip(names, score.unbind(-1), inside.unbind(-1))
    ]
    text = "Do the predicted variances hold? Then these are 1 and, where the posterior is Gaussian, 0.9."
    return [Section("Predicted variances", text, table=Table(rows[:20]))]


def _decomposition(net: nn.Module, problem: Problem) -> list[Section]:
    """Bias² and variance at a few draws of the prior, where the model of the measurements is known and Gaussian."""
    if ability(problem, KnownModel) is None or ability(problem, GaussianModel) is None:
        return []
    x, obs = problem.sample(2, torch.Generator().manual_seed(0))
    noise_varies = obs.noise_var is not None and obs.noise_var.ndim > 0  # from draw to draw
    if noise_varies or class_errors(x, x):
        return []
    split = error_decomposition(net, problem, repeats=500)
    return [Section("Bias and variance at fixed parameters", split.verdict, details=split.table)]


def _simulations(problem: Problem, metrics: Sequence[dict[str, Any]]) -> list[Section]:
    """What became of the runs of a simulator, stored or made while training."""
    if (stored := ability(problem, Tabulated)) is not None:
        rows = stored.table()
    else:
        last = [m["failed"] for m in metrics if m["event"] == "failures"][-1:]
        rows = [{"runs": kind, "count": count} for failed in last for kind, count in failed.items()]
    if not rows:
        return []
    text = "Failed runs are left out: what is learned is the posterior given that a run succeeds."
    return [Section("Runs of the simulator", text, table=Table(rows))]


def _verdict(table: Table) -> str:
    rows = {row["estimator"]: row for row in table}
    network, others = rows[NETWORK], [row for name, row in rows.items() if name != NETWORK]
    limit = network["limit_db"]
    bound = "no bound is known here" if limit is None else f"{network['nmse_db'] - limit:.2f} dB from the Bayes limit"
    if not others:
        ahead = ""
    else:
        best = min(others, key=lambda row: row["nmse_db"])
        gap = best["nmse_db"] - network["nmse_db"]
        ahead = f", {abs(gap):.2f} dB {'ahead of' if gap > 0 else 'behind'} {best['estimator']}"
    return f"The network has {network['nmse_db']:.2f} dB{ahead}, {bound}; do not trust it on draws of another kind."
