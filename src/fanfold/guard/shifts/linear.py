"""Shifts of what is measured linearly, whatever the signal is: `y = A x + w` with an operator that estimators have."""

from collections.abc import Iterable

from fanfold.core.units import db
from fanfold.guard.shifts.interference import Interfered
from fanfold.guard.shifts.noise import NoiseClaimed, Noisier
from fanfold.guard.shifts.operators import Misbelieved
from fanfold.guard.shifts.sensors import CalibrationDrift, Dead, PhaseTurned
from fanfold.guard.shifts.shift import Shift, times
from fanfold.guard.shifts.signals import Amplified
from fanfold.problems.protocols import noise_var_of

FACTORS = (2.0, 10.0)  # of the standard deviation of the noise
GAINS = (0.3, 1.5, 3.0)  # of the amplitude of signals
ERRORS = (0.01, 0.03, 0.1, 0.3)  # of the operator, relative
LEVELS_DB = (-20.0, -10.0)  # of interference over the measurements
DEAD_SHARES = (0.01, 0.1)  # of the sensors


def noise_shifts(problem) -> Iterable[Shift]:
    """More noise, known and unknown, and a wrong claim; nothing where there is none to multiply."""
    known = noise_var_of(problem)
    if known is not None and float(known) == 0:
        return
    for factor in FACTORS:
        yield Shift("noise", f"{times(factor)} and known", Noisier(problem, factor, known=True))
    yield from unknown_noise_shifts(problem)


def unknown_noise_shifts(problem) -> Iterable[Shift]:
    """More noise than the receiver is told, and a wrong variance beside the noise as it was."""
    for factor in FACTORS:
        yield Shift("noise, not known", times(factor), Noisier(problem, factor))
    for factor in (0.25, 4.0):
        yield Shift("claimed noise", f"{db(factor):+.1f} dB in variance", NoiseClaimed(problem, factor))


def gain_shifts(problem) -> Iterable[Shift]:
    """Signals of other amplitudes in the same noise."""
    for factor in GAINS:
        yield Shift("gain", times(factor), Amplified(problem, factor))


def operator_shifts(problem) -> Iterable[Shift]:
    """An operator that is not the believed one."""
    for error in ERRORS:
        yield Shift("operator", f"wrong by {100 * error:g} %", Misbelieved(problem, error))


def drift_shifts(problem, *, phases: bool, untouched: bool = False) -> Iterable[Shift]:
    """Gains, and phases where measurements are complex, that have drifted since they were calibrated."""
    for gain_db, phase_deg in ((0.5, 5.0), (2.0, 20.0)):
        severity = f"{gain_db:g} dB" + (f" and {phase_deg:g} degrees" if phases else "") + " a measurement"
        drift = CalibrationDrift(problem, gain_db, phase_deg if phases else 0.0)
        yield Shift("calibration drift", severity, drift, untouched=untouched)


def turn_shifts(problem) -> Iterable[Shift]:
    """A phase common to all measurements, which circular signals hide, or a wrong sign, which symmetric ones hide."""
    for phase_deg in (15.0, 60.0) if problem.A.dtype.is_complex else (180.0,):
        yield Shift("common phase", f"{phase_deg:g} degrees", PhaseTurned(problem, phase_deg), seen=False)


def interference_shifts(problem) -> Iterable[Shift]:
    """A tone and a pulse on top."""
    for form in ("tone", "pulse"):
        for level_db in LEVELS_DB:
            yield Shift("interference", f"a {form}, {level_db:g} dB over y", Interfered(problem, form, level_db))


def dead_shifts(problem, sensors: int, each: int = 1) -> Iterable[Shift]:
    """Sensors that give zero: one in a hundred and in ten, at least one, and not all.

    Args:
        problem: The problem.
        sensors: How many there are.
        each: How many measurements each has, side by side.
    """
    for dead in sorted({max(1, round(share * sensors)) for share in DEAD_SHARES}):
        if dead < sensors:
            yield Shift("dead sensors", f"{dead} of {sensors}", Dead(problem, dead, each))
