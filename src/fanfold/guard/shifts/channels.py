"""Shifts of channel estimation: another SNR, place, speed or delay spread, interference, dead antennas."""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import singledispatch

from fanfold.adapters.sionna import NOMINAL_DELAY_SPREAD_NS, SCENARIOS
from fanfold.guard.shifts import linear
from fanfold.guard.shifts.interference import Form, RadioInterfered, SecondUser
from fanfold.guard.shifts.noise import NoiseClaimed, Noisier
from fanfold.guard.shifts.operators import Misbelieved
from fanfold.guard.shifts.shift import Shift, shifts, times
from fanfold.problems.radio.few_channels import FewChannels
from fanfold.problems.radio.mimo_detection import MIMODetection
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.propagation.base import Layout, Source
from fanfold.propagation.dataset import Dataset
from fanfold.propagation.models import MODELS, Jakes, Kronecker, Rayleigh, Rician
from fanfold.propagation.settings import said
from fanfold.propagation.sources import ON_DEMAND, SHIPPED, source_of
from fanfold.propagation.tr38901 import TR38901

SNRS_DB = (-10.0, 10.0)  # added to the SNR
SPEEDS_MPS = (10.0, 30.0, 100.0)
STRETCHES = (1 / 3, 3.0)  # of the delay spread
ELSEWHERE = ("umi", "uma", "inh", "cdl-c", "cdl-d")  # of the standard: street, roof, office; no sight, and sight
NUMEROLOGIES_KHZ = (15, 30, 60, 120)
HEADS: dict[type, str] = {kind: head for head, kind in MODELS.items()} | {TR38901: ON_DEMAND}


def scenarios(layout: Layout, but: str) -> dict[str, str]:
    """Sources of other channels of one layout, that are shipped or drawn from a model, by what they are called."""
    array = "x".join(map(str, layout.array))
    axes = f"array={array},symbols={layout.symbols},subcarriers={layout.subcarriers}"
    axes += f",spacing_hz={layout.spacing_hz!r},carrier_hz={layout.carrier_hz!r}"
    models = {
        "independent Rayleigh": f"rayleigh:{axes}",
        "a line of sight, K = 10 dB": f"rician:k_db=10,delay_spread_ns=100,{axes}",
        "paths within 10 degrees, 100 ns": f"kronecker:angle_spread_deg=10,delay_spread_ns=100,{axes}",
    }
    if len(layout.array) == 1:  # over the columns alone
        models.pop("paths within 10 degrees, 100 ns")
    shipped = {f"shipped {name}": name for name in SHIPPED if source_of(name).layout == layout}
    return {name: source for name, source in (models | shipped).items() if source != but}


def standard_scenarios(layout: Layout, but: str | None) -> dict[str, str]:
    """Sources of the standard's other places with one layout; none where Sionna, which draws them, is not installed.

    Args:
        layout: The layout; arrays with polarisations and the numerologies of the standard are there.
        but: The model that is left out, as channels come from it already.
    """
    khz = layout.spacing_hz / 1e3
    fits = len(layout.array) == 3 and layout.array[0] <= 2 and layout.symbols <= 14 and khz in NUMEROLOGIES_KHZ
    if not fits or not installed():
        return {}
    array = "x".join(map(str, layout.array))
    axes = f"array={array},symbols={layout.symbols},subcarriers={layout.subcarriers},spacing_khz={khz:g}"
    axes += f",carrier_ghz={layout.carrier_hz / 1e9!r}"
    return {f"{model} of TR 38.901": f"{ON_DEMAND}:model={model},{axes}" for model in ELSEWHERE if model != but}


def installed() -> bool:
    """Whether the channels of the standard can be drawn."""
    try:
        return bool(TR38901().versions())
    except ImportError:
        return False


@singledispatch
def movements(source: Source) -> list[tuple[str, str, str]]:
    """Family, severity and name of the sources that one becomes at other speeds and delay spreads."""
    return []


@movements.register
def _(source: Rayleigh) -> list[tuple[str, str, str]]:
    still = Kronecker(source.array, source.symbols, source.subcarriers, source.spacing_hz, source.carrier_hz, (0.0,), 0)
    return moving(still)


@movements.register
def _(source: Rician) -> list[tuple[str, str, str]]:
    return spreading(source)


@movements.register
def _(source: Kronecker) -> list[tuple[str, str, str]]:
    return [*moving(source), *spreading(source)]


@movements.register
def _(source: Jakes) -> list[tuple[str, str, str]]:
    others = [replace(source, speed_mps=speed) for speed in SPEEDS_MPS if speed != source.speed_mps]
    return [*(("Doppler", f"{other.speed_mps:g} m/s", named(other)) for other in others), *spreading(source)]


@movements.register
def _(source: TR38901) -> list[tuple[str, str, str]]:
    if not installed():
        return []
    moved = []
    if source.symbols > 1:
        speeds = [speed for speed in SPEEDS_MPS if (speed, speed) != source.speeds]
        moved = [("Doppler", f"{speed:g} m/s", named(replace(source, speed_mps=speed))) for speed in speeds]
    if source.model in SCENARIOS:
        return moved
    spreads = [(source.delay_spread_ns or NOMINAL_DELAY_SPREAD_NS) * stretch for stretch in STRETCHES]
    return moved + [("delay spread", f"{ns:.3g} ns", named(replace(source, delay_spread_ns=ns))) for ns in spreads]


@movements.register
def _(source: Dataset) -> list[tuple[str, str, str]]:
    recipe = recipe_of(source)
    return [] if recipe is None else movements(recipe)


@singledispatch
def recipe_of(source: Source) -> TR38901 | None:
    """The settings of the standard that a source draws with, or was drawn with; None where it is of another kind."""
    return None


@recipe_of.register
def _(source: TR38901) -> TR38901 | None:
    return source


@recipe_of.register
def _(source: Dataset) -> TR38901 | None:
    recipe = source.manifest.get("recipe", {})
    try:
        return TR38901(**recipe) if recipe else None
    except (TypeError, ValueError):  # channels that something else drew
        return None


def moving(source: Kronecker) -> list[tuple[str, str, str]]:
    """The same correlations over space and frequency at speeds, where there are symbols over which to move."""
    if source.symbols < 2:
        return []
    space, frequency = source.neighbours
    same = {f.name: vars(source)[f.name] for f in fields(Kronecker)}
    if source.angle_spread_deg is None and source.space is None:
        same["space"] = (space,)
    if source.delay_spread_ns is None and source.frequency is None:
        same["frequency"] = frequency
    return [("Doppler", f"{mps:g} m/s", named(Jakes(**same, speed_mps=mps))) for mps in SPEEDS_MPS]


def spreading(source: Kronecker) -> list[tuple[str, str, str]]:
    """Other delay spreads than that which a source has; a correlation of subcarriers ρ stands for one of its own.

    `|1 / (1 + j 2π τ Δf)| = ρ` at neighbouring subcarriers gives `τ = √(1/ρ² - 1) / (2π Δf)`.
    """
    ns = source.delay_spread_ns
    if ns is None:
        rho = source.neighbours[1] if source.frequency is None else source.frequency
        if rho == 0:
            return []
        ns = 1e9 * math.sqrt(1 / rho**2 - 1) / (2 * math.pi * source.spacing_hz)
    spreads = [replace(source, delay_spread_ns=stretch * ns, frequency=None) for stretch in STRETCHES]
    return [("delay spread", f"{other.delay_spread_ns:.3g} ns", named(other)) for other in spreads]


def named(source: Rayleigh | TR38901) -> str:
    """The name that stands for a model with its settings."""
    return f"{HEADS[type(source)]}:{said(source)}"


def noises(problem: OFDMChannel) -> Iterable[Shift]:
    """Another SNR, which the receiver knows if it did, and one that it does not know of."""
    if not isinstance(problem.snr_db, tuple):
        for more_db in SNRS_DB:
            yield Shift("SNR", f"{more_db:+g} dB", problem.shifted(snr_db=problem.snr_db + more_db))
    if problem.known_noise:
        for factor in linear.FACTORS:
            yield Shift("noise, not known", times(factor), Noisier(problem, factor))
        yield Shift("claimed noise", "-6.0 dB in variance", NoiseClaimed(problem, 0.25))


@shifts.register
def _(problem: OFDMChannel) -> tuple[Shift, ...]:
    recipe = recipe_of(problem.channels)
    elsewhere = standard_scenarios(problem.layout, None if recipe is None else recipe.model)
    places = [
        Shift("scenario", name, problem.shifted(source=source))
        for name, source in (scenarios(problem.layout, problem.source) | elsewhere).items()
    ]
    moved = [
        Shift(family, severity, problem.shifted(source=source))
        for family, severity, source in movements(problem.channels)
    ]
    loud = [Shift("gain", f"{db:+g} dB", problem.shifted(power=problem.power * 10 ** (db / 10))) for db in (-20, 20)]
    return *noises(problem), *places, *moved, *loud, *received(problem, problem.layout)


def received(problem: OFDMChannel | FewChannels, layout: Layout) -> Iterable[Shift]:
    """What happens at the receiver: interference, another user, a common phase, dead antennas."""
    forms: tuple[Form, ...] = ("tone", "pulse")
    for form in forms:
        for level_db in (-10.0, 0.0):
            hit = RadioInterfered(problem, form, level_db)
            yield Shift("interference", f"a {form}, {level_db:g} dB over y", hit)
    for level_db in (-20.0, -10.0):
        other = SecondUser(problem, level_db)
        yield Shift("interference", f"a second user, {level_db:g} dB over the first", other)
    yield from linear.turn_shifts(problem)
    yield from linear.dead_shifts(problem, layout.antennas, problem.A.m // layout.antennas)


@shifts.register
def _(problem: FewChannels) -> tuple[Shift, ...]:
    return tuple(received(problem, problem.layout))


@shifts.register
def _(problem: MIMODetection) -> tuple[Shift, ...]:
    snrs = [Shift("SNR", f"{more:+g} dB", problem.shifted(snr_db=problem.snr_db + more)) for more in SNRS_DB]
    alike = [
        Shift("correlation", f"{rho:g} between neighbouring antennas", problem.shifted(correlation=rho))
        for rho in (0.3, 0.7)
        if rho != problem.correlation
    ]
    wrong = [Shift("operator", f"wrong by {100 * error:g} %", Misbelieved(problem, error)) for error in linear.ERRORS]
    unknown, dead = linear.unknown_noise_shifts(problem), linear.dead_shifts(problem, problem.antennas)
    return *snrs, *alike, *unknown, *wrong, *linear.interference_shifts(problem), *dead
