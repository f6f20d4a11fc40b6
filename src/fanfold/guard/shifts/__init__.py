"""Shifts by name: the same problem in a world that has changed, and what that does to an estimator."""

from fanfold.guard.shifts import channels, located, rf, sparse, unwritten  # each registers its kinds of problems
from fanfold.guard.shifts.beyond_simulator import BeyondPrior, Contaminated
from fanfold.guard.shifts.interference import ExtraDirection, Interfered, RadioInterfered, SecondUser
from fanfold.guard.shifts.noise import Added, NoiseClaimed, Noisier
from fanfold.guard.shifts.operators import Misbelieved
from fanfold.guard.shifts.sensors import Boosted, CalibrationDrift, Dead, PhaseTurned
from fanfold.guard.shifts.shift import Shift, shifts
from fanfold.guard.shifts.shift_cells import Ratio, ShiftCell, ShiftTable
from fanfold.guard.shifts.shift_table import best_peer, shift_table
from fanfold.guard.shifts.signals import Amplified, Correlated, HeavyTailed
from fanfold.guard.shifts.specialists import specialist

__all__ = [
    "Added",
    "Amplified",
    "BeyondPrior",
    "Boosted",
    "CalibrationDrift",
    "Contaminated",
    "Correlated",
    "Dead",
    "ExtraDirection",
    "HeavyTailed",
    "Interfered",
    "Misbelieved",
    "NoiseClaimed",
    "Noisier",
    "PhaseTurned",
    "RadioInterfered",
    "Ratio",
    "SecondUser",
    "Shift",
    "ShiftCell",
    "ShiftTable",
    "best_peer",
    "channels",
    "located",
    "rf",
    "shift_table",
    "shifts",
    "sparse",
    "specialist",
    "unwritten",
]


def __dir__() -> list[str]:
    return __all__
