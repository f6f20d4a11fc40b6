"""Errors of each unknown by itself, in its own unit: one NMSE over unknowns of several units means nothing."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db, power
from fanfold.estimators.base import Costly
from fanfold.evaluation.evaluate import class_errors, estimates_of
from fanfold.evaluation.few import share_of_few
from fanfold.observation import Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import unknowns_of

LITTLE_DB = -2.0  # error over spread, above which an estimate is hardly better than the mean
MOST_UNKNOWNS = 20  # of which each has rows of its own
DIGITS = ("rms_error", "median_error", "spread")  # columns whose numbers may be of any size


def stand_apart(problem: Problem, x: Tensor, obs: Observation) -> bool:
    """Whether unknowns have errors of their own: several named ones, or parameters without an operator, up to twenty.

    Entries of one signal, classes and complex numbers have not.

    Args:
        problem: Where they come from.
        x: Some of them, `(samples, n)`.
        obs: Their observation.
    """
    if x.is_complex() or not 1 < x.shape[-1] <= MOST_UNKNOWNS or class_errors(x, x):
        return False
    return bool(unknowns_of(problem).names) or obs.A is None


@torch.no_grad()
def errors_by_unknown(
    estimators: Mapping[str, Estimator], problem: Problem, *, samples: int = 1000, seed: int = 0
) -> Table:
    """The error of estimators in each unknown, on the draws that `evaluate` judges on.

    Args:
        estimators: By name.
        problem: Where draws come from; its held-out part, where it has one.
        samples: How many draws.
        seed: Seed of the draws.

    Returns:
        Rows with `unknown`, its name, `unit` where the problem says units, `estimator`, `rms_error` and `median_error`
        (of its size) in that unit, `spread`, the standard deviation of the unknown, `error_db`, the squared error over
        the square of that, 0 dB for whoever says the mean alone, `top_share`, the share of the squared error that the
        worst 1 % of samples have, and `samples`. Empty where the unknowns have no errors of their own.
    """
    x, obs = draw(problem.held_out(), samples, seed, Stream.TESTING, 0)
    if not stand_apart(problem, x, obs):
        return Table()
    said = unknowns_of(problem)
    rows: list[dict[str, Any]] = []
    for name, estimator in estimators.items():
        slow = ability(estimator, Costly)
        bearable = slice(None if slow is None else slow.at_most)
        x_hat = estimates_of(estimator, obs[bearable])[-1].x
        errors = power(x_hat.double() - x[bearable].double())  # whose squares are numbers in any unit
        for place, called in enumerate(said.called(x.shape[-1])):
            error, spread = errors[:, place], x[bearable, place].double().std().item()
            unit = {"unit": said.units[place]} if said.units else {}
            rows.append({"unknown": called, **unit, "estimator": name, **_errors(error, spread)})
    order = {called: place for place, called in enumerate(said.called(x.shape[-1]))}
    return Table(sorted(rows, key=lambda row: order[row["unknown"]]))


def remarks_on_unknowns(table: Table) -> list[str]:
    """At most one sentence: of which unknowns the first estimator of the table says little more than their means."""
    rows = [row for row in table if row["estimator"] == table.rows[0]["estimator"]]
    vague = [row for row in rows if row["error_db"] is not None and not row["error_db"] <= LITTLE_DB]
    if not vague:
        return []
    said = ", ".join(f"{row['unknown']} ({100 * row['rms_error'] / row['spread']:.0f} %)" for row in vague)
    return [f"Little is said of {said}: so large is the error beside the spread, and the mean alone has 100 %."]


def _errors(error: Tensor, spread: float) -> dict[str, Any]:
    mean = error.mean().item()
    return {
        "rms_error": math.sqrt(mean),
        "median_error": error.sqrt().median().item(),
        "spread": spread,
        "error_db": db(mean / spread**2) if spread > 0 else None,
        "top_share": share_of_few(error),
        "samples": len(error),
    }


def in_digits(table: Table) -> Table:
    """The same table to look at: errors in units of their own with three digits, whatever their size."""
    return Table([row | {name: f"{row[name]:.3g}" for name in DIGITS if name in row} for row in table])
