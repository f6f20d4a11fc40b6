"""What was run, in words: the problem with its size, the network, how it was trained, when, and on what."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fanfold.core.abilities import ability, offers
from fanfold.core.table import Table
from fanfold.problems import Problem
from fanfold.problems.protocols import KeepsValidation, SaysReading, Stored
from fanfold.report.page import Section
from fanfold.runs.directory import Run

NMSE_IN_WORDS = (
    "NMSE is the power of the error over that of the signal: −10 dB is a tenth of it, −20 dB a hundredth, and 0 dB no "
    "better than to say zero."
)


def what_was_run(run: Run, problem: Problem, net: nn.Module) -> Section:
    """A table of the facts of a run."""
    config, made = run.config, run.environment
    facts = {
        "begun": made.get("begun", "unknown"),
        "command": made.get("command", "from Python"),
        "problem": in_words(config.get("problem", {})),
        "data": data_in_words(problem),
        "network": in_words(config.get("network", {})),
        "parameters": str(sum(p.numel() for p in net.parameters())),
        "training": in_words(config.get("training", {})) or "saved from Python",
    }
    return Section("What was run", table=Table([{"": name, "is": value} for name, value in facts.items()]))


def data_in_words(problem: Problem) -> str:
    """Where the data come from, and how large a sample is."""
    reader = ability(problem, SaysReading)
    if reader is not None and reader.reading:
        return reader.reading
    A = problem.A
    return "drawn afresh" + ("" if A is None else f"; {A.n} unknowns, {A.m} measurements")


def draws_in_words(problem: Problem, count: int) -> str:
    """What a table was measured on: fresh draws, or stored pairs that were not trained on."""
    if offers(problem, Stored):
        return f"{count} stored pairs that are kept for tests."
    return f"{count} fresh draws of the training problem."


def uses_in_words(problem: Problem) -> str:
    """What else the stored pairs that a table was measured on served for; empty of other draws."""
    if not offers(problem, Stored) or offers(problem, KeepsValidation):
        return ""
    return (
        "Intervals and p-values are calibrated on them too, and unfolded networks take their best weights by them: "
        "fanfold evaluate RUN --data FILE judges on pairs that nothing has seen."
    )


def in_words(data: Mapping[str, Any]) -> str:
    """Settings as `name: field value, ...`, those within settings in brackets."""
    head = str(data.get("name", data.get("given", "")))
    rest = ", ".join(f"{name} {_value(value)}" for name, value in data.items() if name not in ("name", "given"))
    return f"{head}: {rest}" if head and rest else head or rest


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({in_words(value)})"
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
