"""What the authors of an algorithm fixed, and what a network has made of it: numbers for hovers and small charts."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.algorithms.base import Algorithm, Nominal
from fanfold.observation import Observation
from fanfold.report.diagram.symbols import number_text
from fanfold.report.learned import Deviating

QUANTILES = (0.1, 0.5, 0.9)  # of the entries of a vector


@dataclass
class NominalQuantity:
    """A quantity of an algorithm: the value that its authors gave it, in words, and the curve of what was learned.

    Attributes:
        name: What `learn` calls it.
        nominal: Its value in words, such as `0.1` or `matrix 40 × 20`.
        level: Its value as a number on the curve's axis; None where it is not learned.
        learned: For each layer least, middle and largest value on that axis, or all the same; empty if nothing moves.
        tied: Whether all layers share what was learned.
        measure: What the curve shows where that is no number of the algorithm's.
        shown: The same in short, with the nominal value.
        choice: How it may be learned, in words.
    """

    name: str
    nominal: str
    choice: str
    level: float | None = None
    learned: list[tuple[float, float, float]] = field(default_factory=list)
    tied: bool = False
    measure: str = ""
    shown: str = ""

    def hover(self, layer: int) -> str:
        """The nominal and the learned value in a layer, counted from 0."""
        low, middle, high = self.learned[layer]
        spread = "" if low == high else f" ({number_text(low)} to {number_text(high)})"
        if self.measure:
            return f"{self.name}: {self.nominal}; {self.measure} {number_text(middle)}{spread}"
        return f"{self.name}: {self.nominal} → {number_text(middle)}{spread}"


def nominal_quantities(algorithm: Algorithm, obs: Observation) -> dict[str, NominalQuantity]:
    """Every quantity that the authors fixed, by name."""
    return {name: _quantity(name, nominal, algorithm, obs) for name, nominal in algorithm.nominals.items()}


def _quantity(name: str, nominal: Nominal, algorithm: Algorithm, obs: Observation) -> NominalQuantity:
    value = _of_all(nominal.tensor(algorithm, obs), obs)
    grain = ("scalar", "vector", "matrix")[min(value.ndim, 2)]
    choice = "scalar or vector" if grain == "scalar" and nominal.vector else grain
    return NominalQuantity(name, _in_words(value), choice)


def _of_all(value: Tensor, obs: Observation) -> Tensor:
    """The value, or where each sample has its own operator, the mean over the samples."""
    assert obs.A is not None
    return value.mean(0) if obs.A.varies and value.ndim else value


def _in_words(value: Tensor) -> str:
    if value.numel() == 1:
        return number_text(value.abs().item() if value.is_complex() else value.item())
    if value.ndim == 1:
        return f"vector of {len(value)}, {number_text(value.abs().min().item())} to " + number_text(
            value.abs().max().item()
        )
    return "matrix " + " × ".join(map(str, value.shape))


@torch.no_grad()
def learned_quantities(net: Deviating, obs: Observation) -> dict[str, NominalQuantity]:
    """Every quantity of a network's algorithm, with what was learned at the network's strength."""
    quantities = nominal_quantities(net.algorithm, obs)
    for name, deviation in net.deviations.items():
        nominal, quantity = net.algorithm.nominals[name], quantities[name]
        fixed = _of_all(nominal.tensor(net.algorithm, obs), obs)
        d = deviation.detach().to(fixed.dtype if deviation.is_complex() else fixed.dtype.to_real()) * net.strength
        quantity.tied = len(d) == 1
        moved = nominal.domain.deviate(fixed, d)
        if fixed.ndim > 1:
            change = (moved - fixed).flatten(1).norm(dim=1) / fixed.norm().clamp_min(torch.finfo(d.dtype).tiny)
            quantity.learned = [(value, value, value) for value in change.tolist()]
            quantity.level, quantity.measure = 0.0, "‖change‖ / ‖nominal‖"
            quantity.shown = quantity.measure
        elif d[0].numel() > 1:
            entries = moved if fixed.ndim == 0 else moved / fixed.where(fixed != 0, torch.ones_like(fixed))
            entries = entries.abs() if entries.is_complex() else entries
            cuts = torch.tensor(QUANTILES, dtype=entries.dtype, device=entries.device)
            low, middle, high = torch.quantile(entries.reshape(len(d), -1), cuts, dim=1).tolist()
            quantity.learned = list(zip(low, middle, high, strict=True))
            quantity.level = fixed.item() if fixed.ndim == 0 else 1.0
            quantity.measure = "median" if fixed.ndim == 0 else "median over nominal"
            quantity.shown = f"nominal {quantity.nominal}, 10–90 %" if fixed.ndim == 0 else "over nominal, 10–90 %"
        else:
            values = moved.reshape(len(d), -1).mean(1)
            quantity.learned = [
                (value, value, value) for value in (values.abs() if values.is_complex() else values).tolist()
            ]
            quantity.level = fixed.mean().item()
        quantity.learned *= net.layers if quantity.tied else 1
    return quantities
