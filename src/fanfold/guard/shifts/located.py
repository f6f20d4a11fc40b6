"""Shifts of tones, delays, directions and modulations, whose measurements have few parameters and a known form."""

from collections.abc import Iterable, Sequence

import torch

from fanfold.guard.shifts import linear
from fanfold.guard.shifts.beyond_simulator import Contaminated
from fanfold.guard.shifts.interference import ExtraDirection
from fanfold.guard.shifts.noise import Added
from fanfold.guard.shifts.sensors import Boosted, PhaseTurned
from fanfold.guard.shifts.shift import Shift, shifts
from fanfold.problems.located.base import Located
from fanfold.problems.located.direction_of_arrival import DirectionOfArrival
from fanfold.problems.radio.modulation import Modulation

GAINS_DB = (-10.0, 3.0, 10.0)
SNRS_DB = (-10.0, 10.0)  # added to the SNR


def heard(problem) -> Iterable[Shift]:
    """What happens between the antenna and y: gains, interference, gross errors."""
    for gain_db in GAINS_DB:
        yield Shift("gain", f"{gain_db:+g} dB, of the noise too", Boosted(problem, gain_db))
    yield from linear.interference_shifts(problem)
    yield Shift("gross errors", "10 % of y, 5 times its size", Contaminated(problem, 0.1))


@shifts.register
def _(problem: Located) -> tuple[Shift, ...]:
    snrs = [] if isinstance(problem.snr_db, Sequence) else [problem.snr_db + more for more in SNRS_DB]
    noise = [Shift("SNR", f"{snr_db:g} dB", problem.shifted(snr_db=snr_db)) for snr_db in snrs]
    if problem.show_noise:
        noise += linear.unknown_noise_shifts(problem)
    else:
        noise += [Shift("noise, not known", "-3 dB over y", Added(problem, -3.0))]
    fading = [Shift("fading", "Rayleigh amplitudes", problem.shifted(gain="rayleigh"))] if _steady(problem) else []
    known = problem.gain == "known" and problem.dtype.is_complex
    turned = [Shift("phase", "30 degrees", PhaseTurned(problem, 30.0))] if known else []
    dead = linear.dead_shifts(problem, problem.waveform(torch.zeros(1)).shape[-1])
    return *noise, *fading, *turned, *heard(problem), *dead


def _steady(problem: Located) -> bool:
    """Whether amplitudes are one, and not wanted, so that they can fade."""
    return problem.gain == "phase"


@shifts.register
def _(problem: DirectionOfArrival) -> tuple[Shift, ...]:
    each = problem.snr_db if isinstance(problem.snr_db, Sequence) else (problem.snr_db,) * problem.sources
    snrs = {f"{more:+g} dB": tuple(snr_db + more for snr_db in each) for more in SNRS_DB}
    noise = [Shift("SNR", severity, problem.shifted(snr_db=snr_db)) for severity, snr_db in snrs.items()]
    further = [
        Shift("sources", f"one more, {level:g} dB over the strongest", ExtraDirection(problem, level))
        for level in (-10.0, 0.0)
    ]
    drift = linear.drift_shifts(problem, phases=True)
    dead = linear.dead_shifts(problem, problem.sensors, problem.snapshots)
    return *noise, *linear.unknown_noise_shifts(problem), *further, *drift, *heard(problem), *dead


@shifts.register
def _(problem: Modulation) -> tuple[Shift, ...]:
    snrs = [Shift("SNR", f"{more:+g} dB", problem.shifted(snr_db=problem.snr_db + more)) for more in SNRS_DB]
    turned = [] if problem.unknown_phase else [Shift("phase", "any", problem.shifted(unknown_phase=True))]
    return *snrs, *turned, *heard(problem)
