"""What channel estimates are worth to a link: block errors, spectral efficiency and the SNR that 10 % of errors need.

Claim: on UMi channels LMMSE over space and frequency saves at least 1 dB of SNR against least squares, and a Gaussian
mixture is no worse. Sources: TR 38.901 (channels), TS 38.212 (code), Proakis (2001), eq. 14.4-15 (Rayleigh fading).
"""

import itertools
import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from fanfold.core.table import Table
from fanfold.estimators.ofdm import (
    BeamMixer,
    ChannelCovariance,
    Interpolation,
    KroneckerGMM,
    MixerSettings,
    Mixture,
    Wiener,
)
from fanfold.evaluation.link import PERFECT, Make, Uplink, simulate
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.channels.channel_methods import (
    BOTH,
    FREQUENCY,
    LS,
    MIXER,
    Size,
    gmm_name,
    study_channels,
    trained,
)
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Estimator
from fanfold.problems import OFDMChannel
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart

QUICK = Size(0, 1000, 6, 6, {}, 0)
FULL = Size(30_000, 20_000, 16, 15, {MIXER: 1500}, 0)
QUICK_SNRS = {2: (-13.0, -10.0, -7.0, -4.0, -1.0)}
FULL_SNRS = {
    2: tuple(-17.0 + 1.5 * k for k in range(13)),
    4: tuple(-12.0 + 1.5 * k for k in range(13)),
}
TRAINED_DB = (-18.0, 8.0)  # SNRs that networks are trained for
WANTED = 0.1  # block error rate
NAMES = {2: "QPSK", 4: "16-QAM"}  # by bits of a symbol
FADING = "rayleigh:array=1x1x4,subcarriers=24"


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: QPSK on the shipped channels if quick, else 16-QAM too, on the study's own.

    Raises:
        ImportError: If Sionna is missing.
    """
    began = time.perf_counter()
    size = QUICK if quick else FULL
    problem = study_channels(size, watch)
    makers, source = methods(problem, size, seed, watch, quick=quick), problem.source
    tables, goals = {}, [theory(seed)]
    for bits, snrs_db in (QUICK_SNRS if quick else FULL_SNRS).items():
        link = Uplink(source, bits=bits)
        sending: Any = watch(f"sending slots, {NAMES[bits]}")
        table = simulate(link, link.estimators(makers), snrs_db, 1 if quick else 2, seed, sending)
        tables[bits] = table
        goals += goals_of(needs(table), bits, size)
    return Study(
        "link-level",
        "LMMSE over space and frequency needs at least 1 dB less SNR than least squares for the same block errors.",
        verdict(needs(tables[2])),
        time.perf_counter() - began,
        goals,
        [section for bits, table in tables.items() for section in sections(table, bits)],
        {"seed": seed, "source": source, "users": Uplink.users},
    )


def methods(problem: OFDMChannel, size: Size, seed: int, watch: Watcher, *, quick: bool) -> dict[str, Make]:
    """The estimates, by name, made for each user's pilots; power control keeps channels at unit power."""
    covariance = ChannelCovariance.of(problem, size.samples, seed)
    mixture = Mixture.of(problem, size.components, size.samples, size.rounds, seed=seed)

    @cache  # one for all constellations
    def mixer(p: OFDMChannel) -> Estimator:
        net = BeamMixer.of(p, MixerSettings(network_seed=seed, known_power=True))
        return trained(net, MIXER, p.shifted(snr_db=TRAINED_DB), size.steps[MIXER], size.batch, seed, watch)

    makers: dict[str, Make] = {
        LS: Interpolation.of,
        FREQUENCY: lambda p: Wiener.of(p, covariance, "grid", known_power=True),
        BOTH: lambda p: Wiener.of(p, covariance, known_power=True),
        gmm_name(size): lambda p: KroneckerGMM.of(p, mixture, known_power=True),
    }
    if quick:
        del makers[FREQUENCY]
    return makers | ({MIXER: mixer} if MIXER in size.steps else {})


def rayleigh_ber(snr: float, antennas: int) -> float:
    """Bit error rate of QPSK with Gray labels, maximum-ratio combined over independent Rayleigh channels.

    `((1 - μ)/2)^L Σ_k C(L-1+k, k) ((1 + μ)/2)^k` with `μ = sqrt(γ / (1 + γ))` and γ = snr / 2 a bit.
    """
    mu = math.sqrt(snr / 2 / (1 + snr / 2))
    total = sum(math.comb(antennas - 1 + k, k) * ((1 + mu) / 2) ** k for k in range(antennas))
    return ((1 - mu) / 2) ** antennas * total


def theory(seed: int, snr_db: float = 0.0) -> Goal:
    """The goal of one user on known Rayleigh channels: the chain against the closed form, in per cent of bits."""
    row = simulate(Uplink(FADING, users=1), {}, [snr_db], 1, seed).rows[0]
    wanted, ci = 100 * rayleigh_ber(10 ** (snr_db / 10), 4), 100 * row["ber_ci"]
    # twice the 95 % interval is 3.9 deviations: one run in 10 000 fails by chance
    return Goal(
        f"bit errors on known Rayleigh channels at {snr_db:g} dB SNR", "%", "=", wanted, 100 * row["ber"], ci, 2 * ci
    )


def needs(table: Table) -> dict[str, float]:
    """SNR in dB at which each estimate reaches 10 % block errors; see `crossing`."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in table:
        least = 0.5 / row["blocks"]  # half an error where none was seen
        curves.setdefault(row["estimate"], []).append((row["snr_db"], math.log(max(row["bler"], least))))
    return {name: crossing(curve, math.log(WANTED)) for name, curve in curves.items()}


def crossing(curve: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where a falling curve last goes through a value, linear between its points.

    Infinite where it ends above the value, minus infinity where it is below everywhere.
    """
    points = sorted(curve)
    for (left, above), (right, below) in reversed(list(itertools.pairwise(points))):
        if above > wanted >= below:
            return left + (right - left) * (above - wanted) / (above - below)
    return math.inf if points[-1][1] > wanted else -math.inf


def goals_of(needed: dict[str, float], bits: int, size: Size) -> list[Goal]:
    """Order and savings. Estimates share channels, bits and noise, so that differences are far surer than each.

    A goal is missed where a curve does not cross, since then its difference is not known.
    """
    crossed = {name: value if math.isfinite(value) else math.nan for name, value in needed.items()}
    what, end = NAMES[bits], "at 10 % block errors"
    gmm = gmm_name(size)
    best = min((gmm, BOTH, *size.steps), key=needed.__getitem__)
    return [
        *(Goal(f"{what}: SNR that the {name} saves against LMMSE {end}", "dB", ">=", 0.0, crossed[BOTH] - crossed[name])
          for name in size.steps),
        Goal(f"{what}: SNR that LMMSE saves against LS {end}", "dB", ">=", 1.0, crossed[LS] - crossed[BOTH]),
        # no worse: the crossing of a curve of 128 codewords is not known to better than some .3 dB
        Goal(f"{what}: SNR that the {gmm} needs over LMMSE {end}", "dB", "<=", 0.3, crossed[gmm] - crossed[BOTH]),
        Goal(f"{what}: SNR that the best estimate needs over the perfect channel {end}", "dB", ">=", 0.0,
             crossed[best] - crossed[PERFECT]),
    ]  # fmt: skip


def verdict(needed: dict[str, float]) -> str:
    """The outcome in a sentence."""
    each = ", ".join(f"{name} {_in_words(value)}" for name, value in needed.items())
    return (
        f"SNR of a user at an antenna for 10 % block errors, QPSK at rate 1/2, {Uplink.users} users: {each}. Do not "
        "trust the differences with other pilots or numbers of users."
    )


def _in_words(needed: float) -> str:
    if math.isfinite(needed):
        return f"{needed:.1f} dB"
    return "more than the highest of these" if needed > 0 else "less than the lowest of these"


def sections(table: Table, bits: int) -> list[Section]:
    """Errors and spectral efficiency against SNR."""
    names = list(dict.fromkeys(row["estimate"] for row in table))
    what, needed = NAMES[bits], needs(table)
    curves = []
    for key, label in (("bler", "block error rate"), ("ber", "uncoded bit error rate"), ("efficiency", "bit/s/Hz")):
        series = []
        for name in names:
            rows = [row for row in table if row["estimate"] == name and (key == "efficiency" or row[key] > 0)]
            kind = "limit" if name == PERFECT else "learned" if name == MIXER else "classical"
            series.append(Series(name, [r["snr_db"] for r in rows], [r[key] for r in rows], kind))
        chart = line_chart(series, "SNR in dB", label, log_y=key != "efficiency")
        text = "All users together, pilots taken off." if key == "efficiency" else ""
        curves.append(Section(f"{what}: {label}", text, [chart]))
    rows = [{"estimate": name, "SNR at 10 % block errors": _in_words(value)} for name, value in needed.items()]
    return [*curves, Section(f"{what}: SNR needed", "", table=Table(rows))]
