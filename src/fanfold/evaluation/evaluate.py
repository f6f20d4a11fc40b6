"""Sweeps: estimators x conditions -> one tidy table, with the limits as columns."""

import itertools
import math
from collections.abc import Mapping, Sequence
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
from fanfold.observation import Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw


@torch.no_grad()
@checks_arguments
def evaluate(
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    problem: Problem,
    *,
    samples: int = 1000,
    seed: int = 0,
    layers: bool = True,
    **conditions: Sequence[Any],
) -> Table:
    """Error of estimators on fresh draws of a problem, for each condition and each layer.

    Args:
        estimators: By name, or a sequence (then named after their types).
        problem: Where draws come from; its held-out part, where it has one.
        samples: Draws for each condition, the same ones for every estimator.
        seed: Seed of the draws.
        layers: A row for each layer or iteration; the last one only if False.
        **conditions: Fields of the problem and the values to try, such as `snr_db=[20, 30, 40]`; several
            fields give every combination.

    Returns:
        Rows with `estimator`, the conditions, `layer` (None where there are none), `nmse_db` (a ratio of sums)
        with its 95 % interval `low_db … high_db`, `median_db` over samples, `limit_db` (Bayes, by state evolution or
        by the exact posterior on the same draws), `oracle_db` (support known) and `samples`. Limits are None where
        they are not known. Of a discrete parameter, one-hot x, also `log_loss` in nats and `error_rate`.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}; an error with an interval takes at least 2.")
    named = named_estimators(estimators)
    rows: list[dict[str, Any]] = []
    for values in itertools.product(*conditions.values()):
        condition = dict(zip(conditions, values, strict=True))
        variant = problem.shifted(**condition) if condition else problem
        x, obs = draw(variant.held_out(), samples, seed, Stream.TESTING, 0)
        limit, oracle = bayes_limit_of(variant, x, obs), support_oracle_error(variant, x, obs)
        limits = {"limit_db": _db_or_none(limit), "oracle_db": _db_or_none(oracle)}
        for name, estimator in named.items():
            slow = ability(estimator, Costly)  # which says how many draws it can bear
            rows_of_it = slice(None if slow is None else slow.at_most)
            estimates = list(enumerate(trajectory_of(estimator, obs[rows_of_it]), start=1))
            for layer, x_hat in estimates if layers else estimates[-1:]:
                count = layer if ability(estimator, WithTrajectory) else None
                errors = errors_db(x_hat, x[rows_of_it]) | class_errors(x_hat, x[rows_of_it])
                row = {"estimator": name} | condition | {"layer": count} | errors | limits
                rows.append(row | {"samples": len(x_hat)})
    return Table(rows)


def errors_db(x_hat: Tensor, x: Tensor) -> dict[str, float]:
    """NMSE in dB as a ratio of sums, its 95 % interval (delta method over samples) and the median over samples."""
    error, signal = power(x_hat - x).double().sum(-1).flatten(), power(x).double().sum(-1).flatten()
    ratio = (error.sum() / signal.sum()).item()
    spread = (error - ratio * signal).std().item() / (len(error) ** 0.5 * signal.mean().item())
    # a signal without a non-zero has no error of its own to divide
    median = (error / signal)[signal > 0].median().item()
    return {
        "nmse_db": db(ratio),
        "low_db": db(max(ratio - 1.96 * spread, 0.0)),
        "high_db": db(ratio + 1.96 * spread),
        "median_db": db(median),
    }


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


def trajectory_of(estimator: Estimator, obs: Observation) -> list[Tensor]:
    """Estimates after each layer or iteration, or the only one, on the CPU."""
    obs, layered = obs.to(device_of(estimator)), ability(estimator, WithTrajectory)
    estimates = [estimator(obs)] if layered is None else layered.trajectory(obs)
    return [e.x.cpu() for e in estimates]


def _db_or_none(ratio: float | None) -> float | None:
    return None if ratio is None else db(ratio) if ratio > 0 else -math.inf
