"""Shifts of simulators, of stored pairs and of small Gaussian models: what can change without a look inside."""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch

from fanfold.core.abilities import offers
from fanfold.guard.shifts import linear
from fanfold.guard.shifts.beyond_simulator import BeyondPrior, has_limits
from fanfold.guard.shifts.shift import Shift, of_measurements, shifts
from fanfold.guard.shifts.signals import Amplified, HeavyTailed
from fanfold.problems.base import Problem
from fanfold.problems.gaussian.white_gaussian import WhiteGaussian
from fanfold.problems.pairs import FromFile
from fanfold.problems.radio.receiver_chain import ReceiverChain
from fanfold.problems.simulators.base import Numbered
from fanfold.problems.simulators.heat import Heat

SHARES_BEYOND = (0.1, 0.5)  # of the width of its limits, by which a parameter lies beyond them


@runtime_checkable
class DeclaresNuisance(Protocol):
    """A simulator that says what else its nuisance parameters may be.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.core.abilities import offers
        >>> from fanfold.guard.shifts.unwritten import DeclaresNuisance
        >>> class Bench(ff.problems.BatchSimulator):
        ...     def other_nuisances(self):
        ...         return {"a warm room": self}
        >>> offers(Bench(ff.problems.Box(), lambda x, generator: x), DeclaresNuisance)
        True
    """

    def other_nuisances(self) -> Mapping[str, Problem]:
        """The same simulator with others, by what they are in words, with units."""
        ...


@shifts.register
def _(problem: Numbered) -> tuple[Shift, ...]:
    other = problem.other_nuisances() if offers(problem, DeclaresNuisance) else {}
    nuisance = [Shift("nuisance", severity, changed) for severity, changed in other.items()]
    return *beyond(problem, problem.draw(0)[0]), *nuisance, *of_measurements(problem)


def beyond(problem, x: torch.Tensor) -> Iterable[Shift]:
    """Parameters beyond their limits, where they have some.

    Args:
        problem: The simulator.
        x: Parameters of a draw, `(1, d)`, whose number it is.
    """
    for share in SHARES_BEYOND if has_limits(problem, x) else ():
        severity = f"one by {100 * share:g} % of its range"
        yield Shift("parameters beyond the prior", severity, BeyondPrior(problem, share))


@shifts.register
def _(problem: Heat) -> tuple[Shift, ...]:
    contrasts = [
        Shift(
            "parameters", f"contrast {factor * problem.contrast:g}", problem.shifted(contrast=factor * problem.contrast)
        )
        for factor in (2.0,)
    ]
    grains = [
        Shift("nuisance", f"grain {grain:g} of a cell's log conductivity", problem.shifted(grain=grain))
        for grain in (0.0, 2 * problem.grain)
        if grain != problem.grain
    ]
    return *contrasts, *grains, *linear.noise_shifts(problem), *of_measurements(problem)


@shifts.register
def _(problem: ReceiverChain) -> tuple[Shift, ...]:
    nuisances = {
        "oscillator, radians² a step": {"linewidth": 10 * problem.linewidth or 1e-3},
        "amplifier, saturation over the mean": {"saturation": min(0.5 * problem.saturation, 2.0)},
        "converter, bits": {"bits": max(1, problem.bits - 2)},
        "SNR, dB": {"snr_db": min(problem.snr_db, 40.0) - 10.0},
        "frequency offset, radians a sample": {"offset": 2 * problem.offset},
    }
    changed = [
        Shift("nuisance", f"{what}: {value:.3g}", problem.shifted(**{field: value}))
        for what, change in nuisances.items()
        for field, value in change.items()
        if value != vars(problem)[field]
    ]
    return *changed, *of_measurements(problem)


@shifts.register
def _(problem: FromFile) -> tuple[Shift, ...]:
    if problem.A is None:
        return tuple(of_measurements(problem))
    dead = linear.dead_shifts(problem, problem.A.m)
    return *linear.operator_shifts(problem), *of_measurements(problem), *dead


@shifts.register
def _(problem: WhiteGaussian) -> tuple[Shift, ...]:
    snrs = [Shift("SNR", f"{more:+g} dB", problem.shifted(snr_db=problem.snr_db + more)) for more in (-10.0, 10.0)]
    loud = [Shift("gain", f"x{factor:g}", Amplified(problem, factor)) for factor in linear.GAINS]
    tails = Shift("heavy tails", "divided by Student's factor, 2 degrees of freedom", HeavyTailed(problem, 2))
    claims = linear.unknown_noise_shifts(problem)
    errors = (shift for shift in of_measurements(problem) if shift.family in ("gross errors", "interference"))
    return *snrs, *claims, *loud, tails, *errors
