"""Shifts of channel estimation: another SNR, place, speed or delay spread, interference, dead antennas."""

from collections.abc import Iterable
from functools import singledispatch

from fanfold.guard.shifts import linear
from fanfold.guard.shifts.interference import Form, RadioInterfered, SecondUser
from fanfold.guard.shifts.noise import NoiseClaimed, Noisier
from fanfold.guard.shifts.operators import Misbelieved
from fanfold.guard.shifts.shift import Shift, shifts, times
from fanfold.problems.radio.few_channels import FewChannels
from fanfold.problems.radio.mimo_detection import MIMODetection
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.propagation.base import Layout, Source
from fanfold.propagation.models import Jakes, Kronecker, Rayleigh
from fanfold.propagation.sources import SHIPPED, source_of

SNRS_DB = (-10.0, 10.0)  # added to the SNR
SPEEDS_MPS = (10.0, 30.0, 100.0)
STRETCHES = (1 / 3, 3.0)  # of the delay spread


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


@singledispatch
def movements(source: Source, name: str) -> list[tuple[str, str, str]]:
    """Family, severity and name of the sources that one becomes at other speeds and delay spreads."""
    return []


@movements.register
def _(source: Kronecker, name: str) -> list[tuple[str, str, str]]:
    if source.delay_spread_ns is None:
        return []
    spreads = [source.delay_spread_ns * stretch for stretch in STRETCHES]
    return [("delay spread", f"{ns:.3g} ns", with_setting(name, "delay_spread_ns", ns)) for ns in spreads]


@movements.register
def _(source: Jakes, name: str) -> list[tuple[str, str, str]]:
    others = [speed for speed in SPEEDS_MPS if speed != source.speed_mps]
    speeds = [("Doppler", f"{mps:g} m/s", with_setting(name, "speed_mps", mps)) for mps in others]
    return [*speeds, *movements.dispatch(Kronecker)(source, name)]


@movements.register
def _(source: Rayleigh, name: str) -> list[tuple[str, str, str]]:
    return []


def with_setting(name: str, setting: str, value: float) -> str:
    """The name of a source with one setting more, which is the one that counts."""
    return f"{name}{',' if ':' in name else ':'}{setting}={value!r}"


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
    places = [
        Shift("scenario", name, problem.shifted(source=source))
        for name, source in scenarios(problem.layout, problem.source).items()
    ]
    moved = [
        Shift(family, severity, problem.shifted(source=source))
        for family, severity, source in movements(problem.channels, problem.source)
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
