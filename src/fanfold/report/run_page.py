"""The page of a run: learning curve, error of every layer beside its peers, and the limits."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fanfold.bounds.convergence import certify, has_evolution
from fanfold.core.abilities import ability, offers
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.estimators.base import Layered
from fanfold.evaluation.evaluate import evaluate
from fanfold.evaluation.few import remarks_on_few
from fanfold.evaluation.peers import UNFOLDED, absent_peers, peers_of
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import FromStock
from fanfold.report import channel_page as channel_page  # registers its kind of problem
from fanfold.report.diagram import DeviatingNetwork, diagram
from fanfold.report.figure.section import live_sections
from fanfold.report.learned import learned_sections
from fanfold.report.neural_page import of_batches, sections_of
from fanfold.report.page import Section, filled, scrolling, write_page
from fanfold.report.paper import write_paper_figures
from fanfold.report.plots import Series, line_chart
from fanfold.report.posterior_checks import Say, posterior_sections
from fanfold.report.run_facts import NMSE_IN_WORDS, draws_in_words, uses_in_words, what_was_run
from fanfold.report.scenes import scene_sections
from fanfold.report.shifted import shift_sections
from fanfold.report.simulations import simulation_sections
from fanfold.runs.directory import Run

LOSS = "NMSE in dB, summed over the loss's layers"
EARLY_LAYERS = (
    "Do not stop at an earlier layer of the network because its error looks low enough: layers were trained to lead to "
    "the last one, an earlier one may be worse than the algorithm's, and its variances promise nothing."
)
EVOLUTION = (
    "State evolution says what the best message passing has after each layer on a large random operator with the same "
    "singular values. Beside it stand the error variance that the network claims for itself and the one that it has, "
    "each over the signal's power. Where the last two agree, the variances can be used for intervals and weights; a "
    "claim below the truth is overconfidence. The certificate is of draws like these, not of another world."
)


def write_run_page(
    run: Run, path: Path, samples: int, say: Say = lambda line: None, *, pdf: Path | None = None
) -> Path:
    """Measure the trained network on fresh draws and write its page.

    Args:
        run: The run.
        path: The page's file.
        samples: Draws to measure on.
        say: Called with a line before what takes seconds.
        pdf: The folder for its charts as PDF figures for papers; none are written if it is None.

    Raises:
        ValueError: If the run has no weights yet.
    """
    net, problem = run.estimator(), run.draws()
    if (network := ability(net, Layered)) is not None:
        lessons = run.config.get("training", {}).get("schedule") == "lessons"
        unit = "loss of the lessons" if lessons else "loss" if "loss" in run.config.get("training", {}) else ""
        verdict, sections = layered_sections(problem, network, run.metrics(), samples, unit)
    else:
        verdict, sections = sections_of(problem, net, run.metrics(), samples)
        sections += posterior_sections(net, problem, say)
    if (advice := run.advice) is not None:
        verdict = f"{advice} {verdict[:1].upper()}{verdict[1:]}"
    kept = [*simulation_sections(run), *shift_sections(run)]
    sections = [what_was_run(run, problem, net), *sections, *kept, *live_sections(problem, net)]
    if pdf is not None:
        for figure in write_paper_figures(sections, pdf):
            say(f"written: {figure}")
    return write_page(path, f"fanfold run {run.path.name}", verdict, sections, _facts(run, problem))


def layered_sections(
    problem: Problem, net: Layered, metrics: Sequence[dict[str, Any]], samples: int, unit: str = ""
) -> tuple[str, list[Section]]:
    """The verdict and the sections of the page of a network of layers.

    Args:
        problem: What it was trained on.
        net: The network.
        metrics: What was logged while training.
        samples: Draws to measure on.
        unit: What was minimised, if it was not the NMSE.
    """
    peers = peers_of(net, problem, at_once=True)
    table = evaluate(peers, problem, samples=samples)
    layers = list(range(1, net.depth + 1))
    curves = {row["estimator"]: [r["nmse_db"] for r in table.where(estimator=row["estimator"])] for row in table}
    curves = {name: curve * (net.depth // len(curve)) for name, curve in curves.items()}  # a line if it has no layers
    kinds = {UNFOLDED: "learned"}
    series = [
        Series(name, layers, curve, kinds.get(name, "classical"))
        for name, curve in curves.items()
        if all(math.isfinite(v) and v < 10 for v in curve)  # those that diverge stand in the table
    ]
    first = table.rows[0]
    limits = {"Bayes limit": first["limit_db"], "support oracle": first["oracle_db"]}
    series += [
        Series(k, layers, [v] * net.depth, "limit") for k, v in limits.items() if v is not None and math.isfinite(v)
    ]
    about = f"{draws_in_words(problem, max(row['samples'] for row in table))} {NMSE_IN_WORDS}\n{EARLY_LAYERS}"
    more = (uses_in_words(problem), *remarks_on_few(table), absent_peers(problem))
    about = "\n".join(text for text in (about, *more) if text)
    sections = [
        Section("Error of every layer", about, [line_chart(series, "layers", "NMSE in dB")],
                filled(table.last_layers()), filled(table)),
        *scene_sections(peers, problem),
        *learned_sections(net),
        *_architecture(problem, net),
        *_certificate(net, problem, samples),
        *_learning(metrics, unit),
    ]  # fmt: skip
    return _verdict(table), sections


def _architecture(problem: Problem, net: Layered) -> list[Section]:
    """The diagram of what is an algorithm with deviations."""
    if not offers(net, DeviatingNetwork):
        return []
    text = "Layers folded like a fan, and one of them opened. Rest the pointer on a part for its formula and values."
    figure = scrolling(diagram(net, problem, dark=False), "Diagram")
    return [Section("Architecture", text, [figure])]


def _learning(metrics: Sequence[dict[str, Any]], unit: str) -> list[Section]:
    """The loss of each batch and the validations; a network that was saved has none."""
    steps = [m for m in metrics if m["event"] == "stepped" and not m["skipped"]]
    validated = [m for m in metrics if m["event"] == "validated"]
    if not steps:
        return []
    factor = 1 if unit else 10
    batches = Series("a batch", [m["step"] for m in steps], [factor * m["loss"] for m in steps])
    scores = [m["nmse_db"] if m["loss"] is None else m["loss"] for m in validated]
    held_out = Series("held out", [m["step"] for m in validated], scores, "learned")
    judged_alike = not unit or all(m["loss"] is not None for m in validated)
    charts = [line_chart([batches, held_out] if judged_alike else [batches], "step", unit or LOSS)]
    charts += [] if judged_alike else [line_chart([held_out], "step", "NMSE in dB")]
    thinned = of_batches(steps[:: max(1, len(steps) // 200)])
    text = "The weights that were kept are those of the best validation, on draws that were not trained on."
    return [Section("Learning curve", text, charts, details=thinned)]


@torch.no_grad()
def _certificate(net: Layered, problem: Problem, samples: int) -> list[Section]:
    """Where state evolution is known and the network carries variances."""
    if not has_evolution(problem):
        return []
    x, obs = draw(problem.held_out(), samples, 0, Stream.TESTING, 0)
    estimates = net.trajectory(obs)
    if estimates[-1].var is None:
        return []
    certificate = certify(estimates, x, problem)
    rows = certificate.table.rows
    layers = [row["layer"] for row in rows]
    curves = [
        ("state evolution", "state evolution", "limit"),
        ("claimed", "claimed by the network", "classical"),
        ("is", "measured", "learned"),
    ]
    series = [
        Series(words, layers, [row[name] for row in rows], kind)
        for name, words, kind in curves
        if all(row[name] is not None and math.isfinite(row[name]) for row in rows)
    ]
    chart = [line_chart(series, "layer", "error variance over power, dB")] if series else []
    text = f"{certificate.verdict}\n{EVOLUTION}"
    return [Section("Convergence certificate", text, chart, details=certificate.table)]


def _verdict(table: Table) -> str:
    rows = {row["estimator"]: row for row in table.last_layers()}
    ranking = sorted(rows, key=lambda name: rows[name]["nmse_db"])
    winner, second = ranking[:2]
    best, limit = rows[winner]["nmse_db"], rows[winner]["limit_db"]
    if limit is None:
        bound = "no bound is known here"
    elif rows[winner]["low_db"] <= limit:
        bound = f"at the Bayes limit of large systems ({limit:.1f} dB) within the interval"
    else:
        bound = f"{best - limit:.1f} dB short of the Bayes limit ({limit:.1f} dB)"
    trained = "" if winner == UNFOLDED else f"; the unfolded network has {rows[UNFOLDED]['nmse_db']:.1f} dB"
    ahead = rows[second]["nmse_db"] - best
    return (
        f"{winner} wins with {best:.1f} dB, {ahead:.1f} dB ahead of {second}, {bound}{trained}; do not "
        "trust the network with another matrix (it is refused) or at conditions that were not evaluated."
    )


def _facts(run: Run, problem: Problem) -> dict[str, Any]:
    environment, stocked = run.environment, ability(problem, FromStock)
    operator = {} if environment.get("operator") is None else {"operator": environment["operator"][:12]}
    stock = {} if stocked is None else {"judged on": stocked.stock}
    packages = environment.get("packages", {})
    return {"seed": environment["seed"]} | operator | stock | {"torch": packages.get("torch")}
