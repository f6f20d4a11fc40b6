"""Measures of a user's own beside the NMSE: their values over samples, with an interval."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from fanfold.observation import Estimate

Metric = Callable[[Estimate, Tensor], Any]
GROUPS = 20  # of samples, each left out once where a metric gives one number of them all
OUTSIDE = 0.05  # probability outside an interval


def check_metrics(metrics: Mapping[str, Metric], columns: Iterable[str]) -> None:
    """Refuse metrics that cannot be called or have the name of another column.

    Raises:
        ValueError: Names the metric.
    """
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics is a {type(metrics).__name__}; pass functions by name: {{'ser': f}}.")
    taken = {*columns}
    for name, metric in metrics.items():
        if not isinstance(name, str) or not callable(metric):
            raise ValueError(f"the metric {name!r} is a {type(metric).__name__}; pass a function of an estimate and x.")
        clash = taken & {*_columns(name)}
        if clash:
            raise ValueError(f"the metric {name!r} would take the column {min(clash)!r}; give it another name.")
        taken |= {*_columns(name)}


def values_of(metrics: Mapping[str, Metric], estimate: Estimate, x: Tensor, who: str) -> dict[str, float]:
    """Each metric over the samples with its 95 % interval, in columns `name`, `name_low` and `name_high`.

    Args:
        metrics: Functions of an estimate and x by name. A function gives values for each sample, `(samples, ...)`,
            whose mean is taken, or one number of all samples, or a number and its standard error.
        estimate: Estimates of all samples.
        x: The signals `(samples, n)`.
        who: Whose estimates they are.

    Raises:
        ValueError: If a metric fails, or gives something else.
    """
    row: dict[str, float] = {}
    for name, metric in metrics.items():
        row |= dict(zip(_columns(name), _with_interval(name, metric, estimate, x, who), strict=True))
    return row


def _columns(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _with_interval(name: str, metric: Metric, estimate: Estimate, x: Tensor, who: str) -> tuple[float, float, float]:
    value = _called(name, metric, estimate, x, who)
    if isinstance(value, tuple):
        mean, error = value
        return mean, mean - 1.96 * error, mean + 1.96 * error
    if isinstance(value, float):
        error = _left_out(name, metric, estimate, x, who)
        return value, value - 1.96 * error, value + 1.96 * error
    return mean_with_interval(value)


def _called(name: str, metric: Metric, estimate: Estimate, x: Tensor, who: str) -> Tensor | float | tuple[float, float]:
    """Values of each sample `(samples,)`, or one number, or that and its standard error."""
    try:
        given = metric(estimate, x)
    except Exception as error:  # of any kind: it is the user's code
        raise ValueError(
            f"the metric {name!r} failed on {who}: {type(error).__name__}: {error}. It is called with an Estimate, "
            f"whose signals are estimate.x {tuple(estimate.x.shape)}, and with x."
        ) from error
    parts = given if isinstance(given, tuple) and len(given) == 2 else (given,)
    try:
        arrays = [torch.as_tensor(np.asarray(part.cpu() if isinstance(part, Tensor) else part)) for part in parts]
        values = [array.double() for array in arrays if not array.is_complex()]
    except (TypeError, ValueError, RuntimeError):
        values = []
    if len(values) == 2 and values[0].ndim == values[1].ndim == 0:
        return values[0].item(), values[1].item()
    if len(values) == 1 and values[0].ndim == 0:
        return values[0].item()
    if len(values) == 1 and len(values[0]) == len(x) and values[0].numel():
        return values[0].reshape(len(x), -1).mean(-1)
    shape = tuple(given.shape) if isinstance(given, Tensor | np.ndarray) else type(given).__name__
    raise ValueError(
        f"the metric {name!r} gave {shape} for {len(x)} samples; return a real value for each sample, or one number."
    )


def mean_with_interval(values: Tensor) -> tuple[float, float, float]:
    """The mean of values of independent samples `(samples,)` and its 95 % interval.

    Counts, where each value is 0 or 1, have the interval of Clopper & Pearson (1934), which is no point where none is
    counted; means of shares keep to [0, 1].
    """
    count, mean = len(values), values.mean().item()
    if ((values == 0) | (values == 1)).all():
        ones = int(values.sum())
        low = 0.0 if ones == 0 else float(beta.ppf(OUTSIDE / 2, ones, count - ones + 1))
        high = 1.0 if ones == count else float(beta.ppf(1 - OUTSIDE / 2, ones + 1, count - ones))
        return mean, low, high
    error = 1.96 * values.std().item() / count**0.5
    low, high = mean - error, mean + error
    if ((values >= 0) & (values <= 1)).all():
        low, high = max(low, 0.0), min(high, 1.0)
    return mean, low, high


def _left_out(name: str, metric: Metric, estimate: Estimate, x: Tensor, who: str) -> float:
    """The standard error of one number of all samples, by leaving out a group at a time. Efron & Tibshirani (1993)."""
    groups = min(GROUPS, len(x))
    of_sample = torch.arange(len(x)) % groups
    var = None if estimate.var is None else estimate.var.expand(estimate.x.shape)
    numbers = []
    for group in range(groups):
        kept = of_sample != group
        number = _called(name, metric, Estimate(estimate.x[kept], None if var is None else var[kept]), x[kept], who)
        if not isinstance(number, float):
            raise ValueError(
                f"the metric {name!r} gave one number of {len(x)} samples and several of {int(kept.sum())}."
            )
        numbers.append(number)
    return (groups - 1) ** 0.5 * float(np.std(numbers))
