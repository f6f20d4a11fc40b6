"""Shifts of RF imaging: those of sparse recovery through its operator, and arrays that are not the nominal ones."""

from collections.abc import Iterable
from importlib.util import find_spec

from fanfold.core.units import db
from fanfold.guard.shifts import linear
from fanfold.guard.shifts.shift import Shift, of_measurements, shifts, times
from fanfold.guard.shifts.signals import HeavyTailed
from fanfold.problems.rf.imaging import RFImaging
from fanfold.problems.rf.user_array import RFGeometry

SPARSITIES = (0.5, 2.0, 3.0)  # factors on the share of points


def scenes(problem: RFImaging | RFGeometry) -> Iterable[Shift]:
    """Other noise and other scenes."""
    for factor in linear.FACTORS:
        noisier = problem.shifted(snr_db=problem.snr_db - 2 * db(factor))
        yield Shift("noise", f"{times(factor)} and known", noisier)
    yield from linear.unknown_noise_shifts(problem)
    yield from linear.gain_shifts(problem)
    if problem.targets == "points":
        for factor in SPARSITIES:
            if (share := factor * problem.sparsity) < 1:
                yield Shift("sparsity", f"{share:.3g} of the voxels, x{factor:g}", problem.shifted(sparsity=share))
    yield Shift("heavy tails", "Student, 2 degrees of freedom", HeavyTailed(problem, 2))


def arrays(problem: RFImaging | RFGeometry) -> Iterable[Shift]:
    """Elements whose gains and phases have drifted, on top of the errors that they have."""
    for gain_db, phase_deg in ((0.5, 5.0), (2.0, 20.0)):
        drifted = problem.shifted(gain_db=problem.gain_db + gain_db, phase_deg=problem.phase_deg + phase_deg)
        severity = f"{gain_db:g} dB and {phase_deg:g} degrees more an element of each axis"
        yield Shift("calibration drift", severity, drifted)


def receivers(problem: RFImaging | RFGeometry, sensors: int) -> Iterable[Shift]:
    """An operator that is wrong, interference, a common phase and dead elements of the first axis."""
    yield from linear.operator_shifts(problem)
    yield from linear.interference_shifts(problem)
    if problem.speckle or problem.targets == "points":
        yield from linear.turn_shifts(problem)
    yield from linear.dead_shifts(problem, sensors, problem.A.m // sensors)


@shifts.register
def _(problem: RFImaging) -> tuple[Shift, ...]:
    places = [
        Shift("element places", f"{step:g} wavelengths more", problem.shifted(position=problem.position + step))
        for step in (0.01, 0.05)
        if problem.sensing == "steering"
    ]
    real = find_spec("skrf") is not None and not problem.measured
    response = [Shift("antenna response", "measured ring slots", problem.shifted(measured=True))] if real else []
    known = *scenes(problem), *arrays(problem), *places, *response
    return *known, *receivers(problem, problem.elements[0])


@shifts.register
def _(problem: RFGeometry) -> tuple[Shift, ...]:
    if problem.measured:  # of what was measured only the measurements can be changed
        return tuple(of_measurements(problem))
    return *scenes(problem), *arrays(problem), *receivers(problem, problem.A.m)
