"""What an unfolded network has learned: each quantity in every layer, beside the algorithm's."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.algorithms.base import Algorithm
from fanfold.core.abilities import ability
from fanfold.core.table import Table
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.report.page import Section, filled
from fanfold.report.plots import Series, line_chart


@runtime_checkable
class Deviating(Protocol):
    """A network of layers whose quantities deviate from those of an algorithm, `(layers, ...)` or `(1, ...)` each."""

    algorithm: Algorithm
    layers: int
    strength: float

    @property
    def operator(self) -> LinearOperator: ...

    @property
    def deviations(self) -> Mapping[str, Tensor]: ...


@torch.no_grad()
def learned_sections(net: object) -> list[Section]:
    """A table of what a network has learned, and a chart of the numbers among it; nothing where nothing deviates.

    What the chart shows is a row for each quantity and layer, and folded away.
    """
    deviating = ability(net, Deviating)
    if deviating is None or not len(deviating.deviations):
        return []
    rows: list[dict[str, Any]] = []
    series: list[Series] = []
    for name, deviation in deviating.deviations.items():
        of_name = _rows_of(deviating, name, deviation.detach())
        rows += of_name
        fixed, means = of_name[0]["algorithm"], [row["mean"] for row in of_name]
        if len(means) > 1 and fixed:
            layers = range(1, len(means) + 1)
            series.append(Series(name, layers, [mean / fixed for mean in means], "learned"))
    chart = [line_chart(series, "layer", "value over the algorithm's")] if series else []
    text = (
        "Each quantity that could move, in magnitude: the algorithm's value and what it became; of vectors and "
        "matrices the mean, the least and the largest entry."
    )
    shown = [row for row in rows if row["quantity"] not in {one.name for one in series}]
    return [Section("What was learned", text, chart, filled(Table(shown)), filled(Table(rows)) if chart else Table())]


@torch.no_grad()
def learned_ratios(net: Deviating) -> dict[str, Tensor]:
    """How far each learned number has moved: its magnitude over that of the algorithm's, `(layers, numbers)`.

    Where layers share a quantity it is `(1, numbers)`. Numbers that the algorithm puts at zero have no ratio and are
    left out; then what is left of the quantity is one axis.

    Args:
        net: A network whose quantities deviate from those of an algorithm.
    """
    ratios = {}
    for name, deviation in net.deviations.items():
        fixed, values = _values(net, name, deviation.detach())
        of_each = fixed.abs().reshape(1, -1).expand_as(values)
        ratio = values / of_each
        ratios[name] = ratio if (of_each > 0).all() else ratio[of_each > 0]
    return ratios


def _values(net: Deviating, name: str, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """The algorithm's value of one quantity, and the magnitudes that it took, `(layers, numbers)`."""
    A, nominal = net.operator, net.algorithm.nominals[name]
    obs = Observation.unchecked(torch.zeros(A.m, dtype=A.dtype, device=A.device), A)
    fixed = nominal.tensor(net.algorithm, obs)
    if A.varies and fixed.ndim:  # of each sample
        fixed = fixed.mean(0)
    return fixed, nominal.domain.deviate(fixed, deviation * net.strength).abs().reshape(len(deviation), -1)


def _rows_of(net: Deviating, name: str, deviation: Tensor) -> list[dict[str, Any]]:
    """The rows of one quantity, one for each layer, or one for all where they share it."""
    fixed, values = _values(net, name, deviation)
    rows = []
    for layer, value in enumerate(values, start=1):
        several = len(value) > 1
        rows.append({
            "quantity": name,
            "layer": str(layer) if len(values) == net.layers else "all",
            "algorithm": fixed.abs().mean().item(),
            "mean": value.mean().item(),
            "least": value.min().item() if several else None,
            "largest": value.max().item() if several else None,
        })  # fmt: skip
    return rows
