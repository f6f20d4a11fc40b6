"""Channel estimation on 3GPP channels: how far classical filters go, and how much further learned ones do.

Claim: against plain least squares everything wins; LMMSE with the true covariance over space and frequency is the peer
to beat, a Gaussian mixture beats it, and a learned filter that reads the clusters off the pilots beats both, with half
the pilots too. Sources: TR 38.901 (UMi); Koller, Fesl, Turan & Utschick (2022), the mixture. The numbers to reproduce
are those of the project's own earlier measurement.
"""

import math
import time

from fanfold.core.table import Table
from fanfold.deploy.cost import runtime_installed
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.channels.channel_measures import BY_HAND, MEAN_RATIO, Measured, measure
from fanfold.experiments.channels.channel_methods import (
    BOTH,
    FILTERS,
    FREQUENCY,
    LS,
    MIXER,
    NETWORKS,
    Methods,
    Size,
    gmm_name,
    study_channels,
)
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.report.channel_page import PICTURE_DB, SHOWN_AS
from fanfold.report.compared import compared
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart

QUICK = Size(0, 1000, 6, 8, {FILTERS: 50}, 120, batch=32)
FULL = Size(30_000, 20_000, 16, 15, dict.fromkeys(NETWORKS, 2000) | {MIXER: 5000, FILTERS: 4000}, 3000)
SNRS = (0.0, 10.0, 20.0)
SHOWN = (MIXER, FILTERS, BOTH, LS)  # in pictures, those that were trained first
# NMSE in dB at 0, 10 and 20 dB: the project's earlier measurement on 64 antennas and 48 subcarriers
KNOWN = {
    LS: {"comb-2": (-1.2, -11.2, -21.0), "comb-4": (-1.4, -11.2, -19.3), "comb-6": (-1.4, -10.6, -16.5),
         "comb-12": (-0.8, -8.2, -10.8)},
    FREQUENCY: {"comb-2": (-9.4, -16.5, -24.2), "comb-4": (-7.5, -14.2, -21.5), "comb-6": (-6.4, -12.9, -19.5),
                "comb-12": (-4.6, -10.0, -14.0)},
    BOTH: {"comb-2": (-12.5, -19.4, -27.0), "comb-4": (-10.6, -17.1, -24.1), "comb-6": (-9.5, -15.7, -21.4),
           "comb-12": (-7.5, -12.1, -14.5)},
    "Kronecker-GMM, 16": {"comb-2": (-14.6, -21.8, -29.2), "comb-4": (-12.4, -19.3, -26.3),
                          "comb-6": (-11.2, -17.7, -22.9), "comb-12": (-8.8, -13.2, -15.1)},
}  # fmt: skip


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: on the shipped channels with little training if quick.

    Raises:
        ImportError: If not quick and Sionna or ONNX Runtime is missing.
    """
    began = time.perf_counter()
    size = QUICK if quick else FULL
    if not quick:
        _check_runtime()
    problem = study_channels(size, watch)
    pilots = ("comb-2", "comb-4") if quick else ("comb-2", "comb-4", "comb-6", "comb-12")
    methods = Methods(problem, size, seed, watch)
    measured = measure(problem, pilots, SNRS, methods, size.tests, seed, costs=pilots[:1] if quick else pilots)
    return Study(
        "channel-estimation",
        "A learned filter over beams and delays beats LMMSE with the true covariance at half its pilots.",
        verdict(measured, size),
        time.perf_counter() - began,
        goals_on_shipped(measured, size) if quick else goals(measured),
        sections(measured, size),
        {"seed": seed, "source": problem.source, "tests": size.tests},
    )


def _check_runtime() -> None:
    """Refuse a machine without ONNX Runtime before hours of training, rather than after."""
    if not runtime_installed():
        raise ImportError("the costs of networks are measured in ONNX Runtime: pip install 'fanfold[export]'")


def goals(m: Measured) -> list[Goal]:
    """The goals of the whole study."""
    goals = [
        Goal(f"{name}, {pilots}, {snr_db:g} dB SNR, from the known {known:g} dB", "dB", "<=", 0.3, value - known)
        if name.startswith("Kronecker")  # a better mixture is no miss
        else Goal(f"{name}, {pilots}, {snr_db:g} dB SNR", "dB", "=", known, value, tolerance=0.3)
        for name, by_pilots in KNOWN.items()
        for pilots, levels in by_pilots.items()
        for snr_db, known in zip(SNRS, levels, strict=True)
        for value in [m.nmse(name, pilots, snr_db)]
    ]
    best = m.best(list(NETWORKS), "comb-2", 10.0)
    goals.append(Goal(f"best learned ({best}), comb-2, 10 dB SNR", "dB", "<=", -22.9, m.nmse(best, "comb-2", 10.0)))
    half = m.best(list(NETWORKS), "comb-4", 20.0)
    for snr_db in SNRS:
        gain = m.nmse(half, "comb-4", snr_db) - m.nmse(BOTH, "comb-2", snr_db)
        goals.append(Goal(f"{half} at comb-4 over {BOTH} at comb-2, {snr_db:g} dB SNR", "dB", "<=", -0.5, gain))
    return goals + calibration(m) + costs(m)


def calibration(m: Measured) -> list[Goal]:
    """Predicted variances of the networks are the errors made: the worst of all SNRs, for each and at each pattern."""
    worst: dict[str, float] = {}
    for row in m.rows:
        if row["estimator"] in NETWORKS:
            name = f"{MEAN_RATIO}, {row['estimator']}, {row['pilots']}"
            worst[name] = max(worst.get(name, 1.0), row[MEAN_RATIO], key=lambda ratio: abs(ratio - 1))
    return [Goal(name, "", "=", 1.0, ratio, tolerance=0.1) for name, ratio in worst.items()]


def costs(m: Measured) -> list[Goal]:
    """The best network fits where it is to run, at the most pilots and the fewest."""
    best = m.best(list(NETWORKS), "comb-2", 10.0)
    rows = [row for row in m.costs if row["estimator"] == best]
    kilobytes = max(row["stored kB, float32"] for row in rows)
    ratios = [row[BY_HAND] for row in rows]  # None of what does not run there
    ratio = max(math.inf if r is None else r for r in ratios)
    return [
        Goal(f"weights of {best}", "kB", "<=", 1000.0, kilobytes),
        # 500 µs, a slot at 30 kHz, where the product takes 77
        Goal(f"one call of {best} in ONNX Runtime, over 182³ multiply-accumulates by hand", "", "<=", 6.5, ratio),
    ]


def goals_on_shipped(m: Measured, size: Size) -> list[Goal]:
    """The goals of the small version: 32 antennas, 24 subcarriers, little training."""
    goals = []
    for pilots in ("comb-2", "comb-4"):
        for better, worse, by in ((FREQUENCY, LS, 1.5), (BOTH, FREQUENCY, 1.0), (gmm_name(size), BOTH, 0.0)):
            gain = m.nmse(better, pilots, 10.0) - m.nmse(worse, pilots, 10.0)
            goals.append(Goal(f"{better} over {worse}, {pilots}, 10 dB SNR", "dB", "<=", -by, gain))
        for name in size.steps:
            gain = m.nmse(name, pilots, 10.0) - m.nmse(BOTH, pilots, 10.0)
            goals.append(Goal(f"{name} over {BOTH}, {pilots}, 10 dB SNR", "dB", "<=", -0.5, gain))
    return goals


def verdict(m: Measured, size: Size) -> str:
    """The outcome in a sentence."""
    best = m.best([name for name in m.names() if name in NETWORKS], "comb-4", 10.0)
    learned, linear, twice = (
        m.nmse(name, pilots, 10.0) for name, pilots in ((best, "comb-4"), (BOTH, "comb-4"), (BOTH, "comb-2"))
    )
    return (
        f"With a pilot on every fourth subcarrier at 10 dB the {best} errs by {learned:.1f} dB, LMMSE with the true "
        f"covariance by {linear:.1f} dB, and by {twice:.1f} dB with twice as many pilots; the mixture of "
        f"{size.components} components by {m.nmse(gmm_name(size), 'comb-4', 10.0):.1f} dB. Do not trust any of them on "
        "channels of another kind of place without looking at the drift study."
    )


def sections(m: Measured, size: Size) -> list[Section]:
    """Charts against SNR, one channel in pictures, and the costs."""
    patterns = list(dict.fromkeys(row["pilots"] for row in m.rows))
    curves = [snr_section(m, pattern) for pattern in patterns]
    pictures = [channel_section(m, pattern) for pattern in list(m.pictures)[:2]]
    text = "One observation on one thread. Multiply-accumulates are those of matrix products; a complex one is four."
    return [*curves, *pictures, Section("What a call costs", text, table=Table(m.costs))]


def channel_section(m: Measured, pattern: str) -> Section:
    """One channel and its estimates in pictures at one pilot pattern."""
    h = m.pictures[pattern]["channel"]
    shown = {name: m.pictures[pattern][name] for name in SHOWN if name in m.pictures[pattern]}
    about, rows = compared(
        h.abs(),
        {name: estimate.abs() for name, estimate in shown.items()},
        {name: f"{m.nmse(name, pattern, PICTURE_DB):.1f} dB over all draws" for name in shown},
        {name: (estimate - h).abs() for name, estimate in shown.items()},
    )
    text = f"|h| of one test draw at {PICTURE_DB:g} dB SNR, {pattern}: {SHOWN_AS}. {about}"
    return Section(f"One channel, {pattern}", text, rows)


def snr_section(m: Measured, pattern: str) -> Section:
    """NMSE against SNR at one pilot pattern."""
    rows = [row for row in m.rows if row["pilots"] == pattern]
    series = [
        Series(
            name, list(SNRS), [m.nmse(name, pattern, s) for s in SNRS], "learned" if name in NETWORKS else "classical"
        )
        for name in dict.fromkeys(row["estimator"] for row in rows)
    ]
    text = (
        "Channels have unit power, draw by draw; the SNR is one over the noise variance of an antenna and resource "
        "element. Test draws are of other places than those trained on, NMSE is a ratio of sums."
    )
    chart = line_chart(series, "SNR in dB", "NMSE in dB")
    return Section(f"NMSE against SNR, {pattern}", text, [chart], Table(rows))
