"""What a better channel estimate is worth to a coded link: block error rate and spectral efficiency over SNR.

Claim: LMMSE over space and frequency needs at least half a dB less than least squares for one lost block in ten, and a
Gaussian mixture no more than that. Channels: TR 38.901 (UMi), those that are shipped. Bounds: Proakis & Salehi (2008).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fanfold.draws import generator_of
from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, KroneckerGMM, Wiener
from fanfold.estimators.ofdm.mixture import learn_mixture
from fanfold.evaluate import TEST_STREAM, Estimator
from fanfold.experiments.base import Goal, Study
from fanfold.experiments.channel_methods import BOTH, FREQUENCY, LS
from fanfold.experiments.coded_slot import SLOT, Link, rayleigh_rate
from fanfold.experiments.mimo_detection import Watcher, snr_at
from fanfold.observation import Estimate
from fanfold.problems import OFDMChannel
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.table import Table

PERFECT, GMM = "the channel itself", "Kronecker-GMM"
KINDS = {PERFECT: "limit"}
EFFICIENCY = "bits a resource element"
BLER = 0.1
ENOUGH = 0.02  # block error rate below which no higher SNR is measured
RAYLEIGH = OFDMChannel("rayleigh:array=4,subcarriers=24")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    links: Sequence[tuple[str, str]]  # pilots and modulation
    starts_db: Mapping[str, float]  # the first SNR of each modulation
    step_db: float
    repeats: int  # slots on each test channel
    iterations: int  # of the decoder
    components: int
    rounds: int
    tests: int = 1000  # channels at most: what the test part has


QUICK = Size([("comb-2", "QPSK")], {"QPSK": -15.0}, 2.0, 1, 10, 4, 6)
FULL = Size(
    [("comb-2", "QPSK"), ("comb-6", "QPSK"), ("comb-2", "16-QAM")],
    {"QPSK": -15.0, "16-QAM": -11.0},
    1.0,
    4,
    20,
    8,
    12,
)


@dataclass
class Curves:
    """Error rates of one link by estimator and SNR, as rows of a table."""

    link: Link
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As it stands in titles."""
        return f"{self.link.modulation}, {self.link.problem.pilots}"

    @property
    def names(self) -> list[str]:
        """Of the estimators."""
        return list(dict.fromkeys(row["estimator"] for row in self.rows))

    def curve(self, estimator: str, what: str = "bler") -> dict[float, float]:
        """A rate by SNR."""
        return {row["snr_db"]: row[what] for row in self.rows if row["estimator"] == estimator}

    def needed(self, estimator: str) -> float:
        """SNR for one lost block in ten, infinite if it was not reached.

        Raises:
            ValueError: If fewer are lost from the start.
        """
        curve = self.curve(estimator)
        if curve[min(curve)] <= BLER:
            raise ValueError(f"{estimator} loses {curve[min(curve)]:g} of blocks at {min(curve):g} dB; start lower.")
        at = snr_at(curve, BLER)
        return float("inf") if at is None else at

    def efficiency(self, estimator: str, snr_db: float) -> float:
        """Bits a resource element at an SNR, or at the last one that was measured if that is lower."""
        curve = self.curve(estimator, EFFICIENCY)
        return curve[min(snr_db, max(curve))]


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: on the shipped test channels, one link with few slots if quick."""
    began = time.perf_counter()
    size = QUICK if quick else FULL
    with torch.no_grad():
        estimators = Estimators(OFDMChannel("umi"), size, seed)
        measured = [measure(pilots, modulation, size, estimators, seed) for pilots, modulation in size.links]
        ideal = [ideal_goal(snr_db, 400 if quick else 4000, seed) for snr_db in ((0.0,) if quick else (-4.0, 0.0, 4.0))]
    return Study(
        "coded-link",
        "A coded link with LMMSE over space and frequency needs at least .5 dB less than with least squares.",
        verdict(measured),
        time.perf_counter() - began,
        [*ideal, *(goal for m in measured for goal in goals(m))],
        [section for m in measured for section in sections(m)],
        {"seed": seed, "source": "umi", "slots at an SNR": measured[0].rows[0]["slots"], "rate": 0.5},
    )


class Estimators:
    """Builds every estimator for a pilot pattern; what does not depend on pilots is learned once.

    Power control gives each channel unit mean power, and they are told so: below -10 dB power is hard to measure.
    """

    def __init__(self, problem: OFDMChannel, size: Size, seed: int):
        self.problem = problem
        self.covariance = ChannelCovariance.learn(problem, 5000, seed)
        learned = learn_mixture(problem, size.components, 5000, seed=seed)
        self.mixture = [next(learned) for _ in range(size.rounds)][-1][0]

    def __call__(self, pilots: str) -> dict[str, Estimator]:
        """By name."""
        problem = self.problem.shifted(pilots=pilots)
        return {
            LS: Interpolation(problem),
            FREQUENCY: Wiener(problem, self.covariance, "grid", known_power=True),
            BOTH: Wiener(problem, self.covariance, known_power=True),
            GMM: KroneckerGMM(problem, self.mixture, known_power=True),
        }


def measure(pilots: str, modulation: str, size: Size, estimators: Estimators, seed: int) -> Curves:
    """Every estimator on the same test channels, bits and noise, from a low SNR until blocks arrive."""
    problem = estimators.problem.shifted(pilots=pilots).held_out()
    channels, _ = problem.sample(size.tests, generator_of(seed, TEST_STREAM, 0))
    channels = channels.repeat(size.repeats, 1)
    curves = Curves(Link(problem, modulation, size.iterations))
    waiting: dict[str, Estimator | None] = {PERFECT: None, **estimators(pilots)}
    snr_db = size.starts_db[modulation]
    while waiting and snr_db < 30:
        slot = curves.link.received(channels, snr_db, generator_of(seed, TEST_STREAM, 1))  # alike at every SNR
        for name, estimator in list(waiting.items()):
            estimate = Estimate(channels) if estimator is None else estimator(slot.pilots)
            soft = curves.link.soft_bits(channels, slot, estimate)
            wrong = (curves.link.codec.decoded(soft) != slot.bits).double()
            row = rates(wrong, (soft > 0) != slot.coded.bool(), channels, estimate)
            row[EFFICIENCY] = curves.link.efficiency * (1 - row["bler"])
            curves.rows.append({"estimator": name, "snr_db": snr_db} | row)
            if row["bler"] < ENOUGH:
                del waiting[name]
        snr_db += size.step_db
    return curves


def rates(wrong: Tensor, wrong_coded: Tensor, channels: Tensor, estimate: Estimate) -> dict[str, Any]:
    """Of blocks, with its standard error, of bits after and before decoding; and the error of the estimate."""
    lost = wrong.any(-1).double()
    error = (estimate.x - channels).abs().square().sum() / channels.abs().square().sum()
    return {
        "bler": lost.mean().item(),
        "bler_error": lost.std().item() / len(lost) ** 0.5,
        "ber": wrong.mean().item(),
        "uncoded_ber": wrong_coded.double().mean().item(),
        "nmse_db": 10 * error.log10().item() if error > 0 else None,
        "slots": len(lost),
    }


def ideal_goal(snr_db: float, slots: int, seed: int) -> Goal:
    """Bit errors of QPSK with the channel known, over independent Rayleigh fading, against the closed form.

    Bits of a slot share channels, so the standard error is taken over slots.
    """
    channels, _ = RAYLEIGH.sample(slots, generator_of(seed, TEST_STREAM, 2))
    link = Link(RAYLEIGH)
    slot = link.received(channels, snr_db, generator_of(seed, TEST_STREAM, 3))
    wrong = ((link.soft_bits(channels, slot, Estimate(channels)) > 0) != slot.coded.bool()).double().mean(-1)
    expected = rayleigh_rate(10 ** (snr_db / 10), RAYLEIGH.layout.antennas)
    off = (wrong.mean().item() - expected) / (wrong.std().item() / slots**0.5)
    what = f"bit error rate of QPSK on Rayleigh fading, channel known, {snr_db:g} dB, off the closed form"
    return Goal(what, "standard errors", "=", 0.0, off, tolerance=3.0)


def goals(m: Curves) -> list[Goal]:
    """What the better estimates save, and that none is better than knowing the channel."""
    both, gmm, end = m.needed(BOTH), m.needed(GMM), "at 10 % BLER"
    least = min(m.needed(name) for name in m.names if name != PERFECT)
    above = least - m.needed(PERFECT)
    return [
        Goal(f"{m.name}: SNR saved by {BOTH} against {LS} {end}", "dB", ">=", 0.5, m.needed(LS) - both),
        Goal(f"{m.name}: SNR saved by {GMM} against {BOTH} {end}", "dB", ">=", 0.0, both - gmm),
        Goal(f"{m.name}: SNR of the best estimate above knowing the channel {end}", "dB", ">=", 0.0, above),
    ]


def verdict(measured: Sequence[Curves]) -> str:
    """What each estimate needs, in a sentence."""
    parts = []
    for m in measured:
        ranked = sorted((m.needed(name), name) for name in m.names)
        parts.append(f"{m.name}: " + ", ".join(f"{name} {at:.1f} dB" for at, name in ranked))
    antennas = measured[0].link.problem.layout.antennas
    return (
        f"For one lost block in ten over {antennas} antennas the SNR at each must be: {'; '.join(parts)}. Channels "
        "stand still for a slot; do not trust the numbers for users that move fast."
    )


def sections(m: Curves) -> list[Section]:
    """Charts of error rates and spectral efficiency, what is needed, and all that was measured."""
    share = 100 * (1 - len(m.link.columns) / (SLOT * m.link.problem.layout.subcarriers))
    text = f"A slot of {m.link.coded} coded bits; pilots take {share:.1f} % of its elements, which is taken off."
    table = Table([needs(m, name) for name in m.names])
    bits = [chart(m, "uncoded_ber", "bit error rate before decoding"), chart(m, "ber", "bit error rate")]
    return [
        Section(f"Lost blocks, {m.name}", text, [chart(m, "bler", "block error rate")], table, Table(m.rows)),
        Section(f"Bit errors, {m.name}", "Before decoding and after.", bits),
        Section(f"Spectral efficiency, {m.name}", "", [chart(m, EFFICIENCY, EFFICIENCY, log_y=False)]),
    ]


def chart(m: Curves, what: str, label: str, *, log_y: bool = True) -> str:
    """One quantity over SNR; rates of zero are left out where the axis is logarithmic."""
    series = []
    for name in m.names:
        curve = {snr: value for snr, value in m.curve(name, what).items() if value > 0 or not log_y}
        series.append(Series(name, [*curve], [*curve.values()], KINDS.get(name, "classical")))
    return line_chart(series, "SNR at a receive antenna in dB", label, log_y=log_y)


def needs(m: Curves, name: str) -> dict[str, Any]:
    """A row of the table: SNR for one lost block in ten, and efficiency where LMMSE has about that."""
    at = m.needed(name)
    near = min(m.curve(BOTH), key=lambda snr: abs(snr - m.needed(BOTH)))
    return {
        "estimate": name,
        "SNR at 10 % BLER in dB": at,
        "above knowing the channel in dB": at - m.needed(PERFECT),
        f"{EFFICIENCY} at {near:g} dB": m.efficiency(name, near),
        f"{EFFICIENCY}, all blocks arriving": m.link.efficiency,
    }
