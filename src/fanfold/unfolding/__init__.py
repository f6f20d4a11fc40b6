"""Algorithms as networks: unfolding, fixed points, and runs beside what theory says of them."""

from fanfold.unfolding.equilibrium import Equilibrium, EquilibriumSettings, equilibrium
from fanfold.unfolding.unfold import Iterated, Unfolded, UnfoldedSettings, iterate, unfold
from fanfold.unfolding.watch import Trace, watch

__all__ = [
    "Equilibrium",
    "EquilibriumSettings",
    "Iterated",
    "Trace",
    "Unfolded",
    "UnfoldedSettings",
    "equilibrium",
    "iterate",
    "unfold",
    "watch",
]


def __dir__() -> list[str]:
    return __all__
