"""Shifts of sparse recovery. Correlation and calibration drift are the families that nothing is tuned on."""

import math
from collections.abc import Iterable

from fanfold.core.units import db
from fanfold.guard.shifts import linear
from fanfold.guard.shifts.shift import Shift, shifts, times
from fanfold.guard.shifts.signals import Correlated, HeavyTailed
from fanfold.problems.sparse.broad import Broad
from fanfold.problems.sparse.clustered import Clustered
from fanfold.problems.sparse.compressed_sensing import CompressedSensing
from fanfold.problems.sparse.exactly_sparse import ExactlySparse
from fanfold.problems.sparse.generalized_linear import GeneralizedLinear
from fanfold.problems.sparse.mismatched import Mismatched
from fanfold.problems.sparse.photographs import Photographs
from fanfold.problems.sparse.varied import Varied

SPARSITIES = (0.5, 1.5, 2.0, 3.0)  # factors on the share of non-zeros
NOISELESS_DB = (60.0, 40.0)  # SNRs of what is measured without noise


def known_noise(problem: CompressedSensing | ExactlySparse | Clustered) -> Iterable[Shift]:
    """More noise that the receiver knows, as another SNR of the same problem, which keeps its limits."""
    if problem.snr_db == math.inf:
        for snr_db in NOISELESS_DB:
            yield Shift("noise", f"SNR {snr_db:g} dB and known", problem.shifted(snr_db=snr_db))
        return
    for factor in linear.FACTORS:
        noisier = problem.shifted(snr_db=problem.snr_db - 2 * db(factor))
        yield Shift("noise", f"{times(factor)} and known", noisier)
    yield from linear.unknown_noise_shifts(problem)


def sparsities(problem: CompressedSensing | Clustered, most: float = 1.0) -> Iterable[Shift]:
    """Other shares of non-zeros at the SNR of before, as far as they stay below the most."""
    for factor in SPARSITIES:
        if factor * problem.sparsity < most:
            share = factor * problem.sparsity
            yield Shift("sparsity", f"{share:.3g} of the entries, x{factor:g}", problem.shifted(sparsity=share))


def others(problem) -> Iterable[Shift]:
    """What can happen to any sparse signal and its receiver."""
    yield from linear.gain_shifts(problem)
    yield Shift("heavy tails", "Student, 2 degrees of freedom", HeavyTailed(problem, 2))
    yield from linear.drift_shifts(problem, phases=problem.A.dtype.is_complex, untouched=True)
    yield from linear.interference_shifts(problem)
    yield from linear.dead_shifts(problem, problem.A.m)
    yield from linear.turn_shifts(problem)


def correlations(problem) -> Iterable[Shift]:
    """Neighbours that are alike, in values and in whether they are zero."""
    for values in (0.5, 0.9):
        alike = Correlated(problem, values=values)
        yield Shift("correlation", f"{values:g} between the values of neighbours", alike, untouched=True)
    for support in (0.5, 0.8):
        alike = Correlated(problem, support=support)
        yield Shift("correlation", f"{support:g} between the supports of neighbours", alike, untouched=True)


@shifts.register
def _(problem: CompressedSensing) -> tuple[Shift, ...]:
    wrong = (Shift("operator", f"wrong by {100 * e:g} %", Mismatched(problem, e)) for e in linear.ERRORS)
    known = *known_noise(problem), *sparsities(problem)
    return *known, *others(problem), *wrong, *correlations(problem)


@shifts.register
def _(problem: GeneralizedLinear) -> tuple[Shift, ...]:
    sensing: CompressedSensing = problem
    other = problem.shifted(snr_db=problem.snr_db - 6.0)
    noise = [Shift("noise", "SNR 6 dB lower and known", other)] if problem.likelihood.uses_noise_var else []
    tails = Shift("heavy tails", "Student, 2 degrees of freedom", HeavyTailed(problem, 2))
    dead = linear.dead_shifts(problem, problem.m)
    return *noise, *sparsities(sensing), *linear.gain_shifts(problem), tails, *dead


@shifts.register
def _(problem: ExactlySparse) -> tuple[Shift, ...]:
    counts = {max(1, round(factor * problem.nonzeros)) for factor in SPARSITIES} - {problem.nonzeros}
    sparsity = [
        Shift("sparsity", f"{count} of the entries, x{count / problem.nonzeros:.3g}", problem.shifted(nonzeros=count))
        for count in sorted(counts)
        if count < problem.n
    ]
    return *known_noise(problem), *sparsity, *others(problem), *linear.operator_shifts(problem), *correlations(problem)


@shifts.register
def _(problem: Clustered) -> tuple[Shift, ...]:
    steepest = problem.chain.p.max().item() / problem.sparsity
    known = *known_noise(problem), *sparsities(problem, most=0.99 / steepest)
    return *known, *others(problem), *linear.operator_shifts(problem)


@shifts.register
def _(problem: Photographs) -> tuple[Shift, ...]:
    noise, wrong = linear.noise_shifts(problem), linear.operator_shifts(problem)
    drift, dead = linear.drift_shifts(problem, phases=False), linear.dead_shifts(problem, problem.A.m)
    return *noise, *linear.gain_shifts(problem), *wrong, *drift, *linear.interference_shifts(problem), *dead


@shifts.register(Broad)
@shifts.register(Varied)
@shifts.register(Mismatched)
def _(problem: Broad | Varied | Mismatched) -> tuple[Shift, ...]:
    return *linear.noise_shifts(problem), *others(problem), *linear.operator_shifts(problem)
