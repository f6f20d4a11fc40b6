"""Sweeps: estimators x conditions -> one tidy table, with the limits as columns."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fanfold.bounds import bayes_limit_of, support_oracle_error
from fanfold.core.abilities import ability
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db, power
from fanfold.estimators.base import Costly, OfAlgorithm, WithTrajectory, device_of
from fanfold.evaluation.by_snr import snr_groups
from fanfold.evaluation.few import share_of_few
from fanfold.evaluation.metrics import Metric, check_metrics, values_of
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import MaybeMeasured


@torch.no_grad()
@checks_arguments
def evaluate(
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    problem: Problem,
    *,
    samples: int = 1000,
    seed: int = 0,
    layers: bool = True,
    metrics: Mapping[str, Metric] | None = None,
    **conditions: Sequence[Any],
) -> Table:
    """Error of estimators on fresh draws of a problem, for each condition and each layer.

    Args:
        estimators: By name, or a sequence (then named after their types).
        problem: Where draws come from; its held-out part, where it has one.
        samples: Draws for each condition, the same ones for every estimator.
        seed: Seed of the draws.
        layers: A row for each layer or iteration; the last one only if False.
        metrics: Measures of your own by name, functions of an `Estimate` and of x, both of all samples. They give a
            value for each sample, `(samples, ...)`, whose mean is taken, or one number.
        **conditions: Fields of the problem and the values to try, such as `snr_db=[20, 30, 40]`; several
            fields give every combination. Pairs that were measured are sorted by their SNR: each goes to the
            nearest value of `snr_db`, if it is within 5 dB of them, and `measured_snr_db` is that of those that did.

    Returns:
        Rows with `estimator`, the conditions, `layer` (None where there are none), `nmse_db` (a ratio of sums)
        with its 95 % interval `low_db … high_db`, `median_db` over samples, `top_share`, the share of the squared error
        that the worst 1 % of samples have (above a half few samples decide the NMSE), `limit_db` (Bayes, by state
        evolution or by the exact posterior on the same draws), `oracle_db` (support known) and `samples`. Limits are
        None where they are not known. Of a discrete parameter, one-hot x, also `log_loss` in nats and `error_rate`;
        of each metric, such as `ser`, also `ser`, `ser_low` and `ser_high`, its 95 % interval.

    Raises:
        ValueError: If a condition is unknown, there are too few samples, or a metric fails, which is named.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}; an error with an interval takes at least 2.")
    measures = {} if metrics is None else metrics
    check_metrics(measures, (*COLUMNS, *conditions))
    named = named_estimators(estimators)
    rows: list[dict[str, Any]] = []
    for condition, variant, x, obs in cases(problem, samples, seed, conditions):
        limit, oracle = bayes_limit_of(variant, x, obs), support_oracle_error(variant, x, obs)
        limits = {"limit_db": _db_or_none(limit), "oracle_db": _db_or_none(oracle)}
        for name, estimator in named.items():
            slow = ability(estimator, Costly)  # which says how many draws it can bear
            bearable = slice(None if slow is None else slow.at_most)
            estimates = list(enumerate(estimates_of(estimator, obs[bearable]), start=1))
            for layer, estimate in estimates if layers else estimates[-1:]:
                count, x_hat = layer if ability(estimator, WithTrajectory) else None, estimate.x
                errors = errors_db(x_hat, x[bearable]) | class_errors(x_hat, x[bearable])
                row = {"estimator": name} | condition | {"layer": count} | errors
                row |= values_of(measures, estimate, x[bearable], name) | limits
                rows.append(row | {"samples": len(x_hat)})
    return Table(rows)


# of every table, and of discrete parameters
COLUMNS = (
    "estimator", "layer", "nmse_db", "low_db", "high_db", "median_db", "top_share", "log_loss", "error_rate",
    "limit_db", "oracle_db", "samples", "measured_snr_db",
)  # fmt: skip
Z95 = 1.96  # standard deviations to either side of an interval of 95 %
Case = tuple[dict[str, Any], Problem, Tensor, Observation]  # the condition, its problem, and pairs of it


def cases(problem: Problem, samples: int, seed: int, conditions: Mapping[str, Sequence[Any]]) -> Iterator[Case]:
    """Pairs of every combination of conditions, as `evaluate` judges on: each with its condition and its problem."""
    fixed = ability(problem, MaybeMeasured)
    sorted_by = conditions.get("snr_db", ()) if fixed is not None and fixed.measured else ()
    settings = {name: values for name, values in conditions.items() if not (sorted_by and name == "snr_db")}
    for values in itertools.product(*settings.values()):
        condition = dict(zip(settings, values, strict=True))
        variant = problem.shifted(**condition) if condition else problem
        x, obs = draw(variant.held_out(), samples, seed, Stream.TESTING, 0)
        if not sorted_by:
            yield condition, variant, x, obs
        for group in snr_groups(x, obs, sorted_by) if sorted_by else ():
            measured = {"snr_db": group.snr_db, "measured_snr_db": group.measured_snr_db}
            yield condition | measured, variant, x[group.rows], obs[group.rows]


def errors_db(x_hat: Tensor, x: Tensor) -> dict[str, float]:
    """NMSE in dB as a ratio of sums, its 95 % interval (delta method) and the median over samples.

    `top_share` is the share of the squared error that the worst 1 % of samples have.
    """
    error, signal = energies(x_hat, x)
    ratio, spread = ratio_of(error, signal)
    # a signal without a non-zero has no error of its own to divide
    median = (error / signal)[signal > 0].median().item()
    return {
        "nmse_db": db(ratio),
        "low_db": db(max(ratio - Z95 * spread, 0.0)),
        "high_db": db(ratio + Z95 * spread),
        "median_db": db(median),
        "top_share": share_of_few(error),
    }


def energies(x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and squared signal of each sample, `(..., n)` -> `(samples,)`, float64."""
    return power(x_hat - x).double().sum(-1).flatten(), power(x).double().sum(-1).flatten()


def ratio_of(part: Tensor, whole: Tensor) -> tuple[float, float]:
    """A ratio of sums over samples, `(samples,)` both, and its standard error by the delta method."""
    ratio = (part.sum() / whole.sum()).item()
    spread = (part - ratio * whole).std().item() / (len(part) ** 0.5 * whole.mean().item())
    return ratio, spread


def class_errors(x_hat: Tensor, x: Tensor) -> dict[str, float]:
    """Mean `-log P(true class)` and share of wrong most probable classes, where x is one-hot; else nothing."""
    if x.is_complex() or x.shape[-1] < 2 or not (((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()):
        return {}
    p = (x_hat * x).sum(-1).double().clamp_min(1e-300)
    wrong = (x_hat.argmax(-1) != x.argmax(-1)).double()
    return {"log_loss": -p.log().mean().item(), "error_rate": wrong.mean().item()}


def named_estimators(estimators: Mapping[str, Estimator] | Sequence[Estimator]) -> dict[str, Estimator]:
    """Estimators by name; those without one are named after their types, numbered where they repeat."""
    if isinstance(estimators, Mapping):
        return dict(estimators)
    named: dict[str, Estimator] = {}
    for estimator in estimators:
        descendant = ability(estimator, OfAlgorithm)
        kind = type(estimator).__name__ + (f" {type(descendant.algorithm).__name__}" if descendant is not None else "")
        name = next(n for i in itertools.count(1) if (n := kind if i == 1 else f"{kind} {i}") not in named)
        named[name] = estimator
    return named


def estimates_of(estimator: Estimator, obs: Observation) -> list[Estimate]:
    """Estimates after each layer or iteration, or the only one, on the CPU."""
    obs, layered = obs.to(device_of(estimator)), ability(estimator, WithTrajectory)
    estimates = [estimator(obs)] if layered is None else layered.trajectory(obs)
    return [Estimate(e.x.cpu(), None if e.var is None else e.var.cpu()) for e in estimates]


def _db_or_none(ratio: float | None) -> float | None:
    return None if ratio is None else db(ratio) if ratio > 0 else -math.inf
