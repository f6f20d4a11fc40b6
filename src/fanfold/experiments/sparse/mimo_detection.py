"""MIMO detection: symbol error rate against SNR for linear, message-passing, learned and exact detectors.

Claim: OAMP unfolded with four scalars a layer, for channels that it has not seen, needs at least 1 dB less than LMMSE
for one symbol error in a thousand, in square systems, iid or correlated. Sources: He, Wen, Jin & Li (2020) and
Céspedes, Olmos, Sánchez-Fernández & Pérez-Cruz (2014).
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import norm
from torch import Tensor

from fanfold.algorithms import EP, OAMP, Algorithm, OAMPNet2
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.estimators import SphereDecoder, UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.evaluation.evaluate import Estimator
from fanfold.experiments.base import Goal, Study
from fanfold.observation import Observation
from fanfold.priors import Constellation
from fanfold.priors.constellation import Name
from fanfold.problems import MIMODetection
from fanfold.problems.draws import draw
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.events import Event
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

LAYERS, NODE_LIMIT = 10, 30_000
DAMPING = 0.8  # of OAMP: undamped it believes in its first wrong decisions for good
ZF, LINEAR, UNTRAINED, NET2, UNFOLDED, PROPAGATION, ML, BOUND = (
    "ZF",
    "LMMSE",
    "OAMP",
    "OAMP-Net2",
    "unfolded OAMP",
    "EP",
    "ML (sphere)",
    "matched-filter bound",
)
LEARN = ("noise_scale", "v_linear", "v_denoised", "spread")  # of OAMP; learned damping has gradients of 1e6 here
KINDS = {UNFOLDED: "learned", NET2: "learned", ML: "limit", BOUND: "limit"}
Watcher = Callable[[str], Callable[[Event], None]]


@dataclass(frozen=True)
class Setting:
    """One system, where it is trained and where it is measured."""

    problem: MIMODetection  # at the SNR of training: some 1 to 3 % of errors
    snrs_db: Sequence[float]
    exact_db: Sequence[float] = ()  # where the sphere decoder searches too

    @property
    def name(self) -> str:
        """As it stands in tables."""
        p = self.problem
        fading = f"correlated {p.correlation:g}" if p.correlation else "iid"
        return f"{p.users}x{p.antennas} {p.constellation.upper()}, {fading}"


@dataclass(frozen=True)
class Curves:
    """Symbol error rates of one setting, as rows of a table."""

    setting: Setting
    rows: list[dict[str, Any]] = field(default_factory=list)

    def curve(self, detector: str) -> dict[float, float]:
        """Symbol error rate by SNR."""
        return {row["snr_db"]: row["ser"] for row in self.rows if row["detector"] == detector}


def settings() -> list[Setting]:
    """16 and 32 users and antennas, QPSK and 16-QAM, iid and correlated."""
    grids: dict[tuple[Name, float], tuple[float, Sequence[float]]] = {
        ("qpsk", 0.0): (11.0, (8, 10, 12, 14, 16, 20, 24, 28, 32)),
        ("16-qam", 0.0): (22.0, (14, 16, 18, 20, 22, 24, 28, 34, 40)),
        ("qpsk", 0.5): (14.0, (10, 12, 14, 16, 18, 21, 24, 30, 36, 42)),
        ("16-qam", 0.5): (27.0, (18, 20, 22, 24, 26, 28, 32, 36, 42, 50)),
    }
    exact: dict[tuple[Name, float], Sequence[float]] = {
        ("qpsk", 0.0): (8, 10, 12),
        ("16-qam", 0.0): (18, 20),
        ("qpsk", 0.5): (12, 14),
        ("16-qam", 0.5): (24, 26),
    }
    return [
        Setting(MIMODetection(size, size, name, train, rho), snrs, exact[name, rho] if size == 16 else ())
        for size in (16, 32)
        for (name, rho), (train, snrs) in grids.items()
    ]


def train(
    algorithm: Algorithm, on: MIMODetection, learn: Sequence[str], lr: float, steps: int, seed: int, watch: Any
) -> Unfolded:
    """Ten layers, each with scalars of its own, for every channel of the ensemble.

    At an SNR with some symbol errors in every batch, which few uses with errors decide, hence large batches.
    """
    net = unfold(algorithm, on, LAYERS, dict.fromkeys(learn, "per-layer"))
    settings = {"batch": 256, "validation_samples": 2000, "threads": 1}
    return fit(net, on, steps=steps, lr=lr, seed=seed, on_event=watch, **settings)


@torch.no_grad()
def measure(setting: Setting, uses: int, steps: int, seed: int, watch: Watcher) -> Curves:
    """Every detector on the same draws of one setting."""
    on = setting.problem
    with torch.enable_grad():
        oamp, net2 = OAMP(on.prior, damping=DAMPING), OAMPNet2(on.prior)
        learned = train(oamp, on, LEARN, 2e-3, steps, seed, watch(f"{UNFOLDED}, {setting.name}"))
        scalars = train(net2, on, tuple(net2.nominals), 4e-3, steps, seed, watch(f"{NET2}, {setting.name}"))
    detectors: dict[str, Estimator] = {
        ZF: ZeroForcing(),
        LINEAR: UnbiasedLMMSE(),
        UNTRAINED: iterate(oamp, LAYERS),
        NET2: scalars,
        UNFOLDED: learned,
        PROPAGATION: iterate(EP(on.prior), LAYERS),
    }
    curves = Curves(setting)
    for snr_db in setting.snrs_db:
        x, obs = draw(on.shifted(snr_db=float(snr_db)), uses, seed, Stream.TESTING, int(snr_db))
        conditions = {"setting": setting.name, "snr_db": float(snr_db)}
        points = {name: on.prior.nearest(detector(obs).x) for name, detector in detectors.items()}
        for name, decided in points.items():
            curves.rows.append(conditions | {"detector": name} | error_rate(decided != x) | {"unfinished": None})
        if snr_db in setting.exact_db:
            decoded = SphereDecoder(on.prior, NODE_LIMIT).search(obs, guess=points[PROPAGATION])
            unfinished = int((~decoded.finished).sum())
            curves.rows.append(conditions | {"detector": ML} | error_rate(decoded.x != x) | {"unfinished": unfinished})
        curves.rows.append(conditions | {"detector": BOUND} | bound_rate(on.prior, obs) | {"unfinished": None})
    return curves


def error_rate(wrong: Tensor) -> dict[str, float]:
    """Share of wrong symbols `(uses, users)`, with the 95 % interval of Wilson (1927).

    Errors of one channel use come together, so the number of symbols is divided by the design effect: the variance of
    the errors of a use over what independent errors would have.
    """
    errors, symbols = wrong.double().sum(-1), wrong.numel()
    rate = errors.mean().item() / wrong.shape[-1]
    effect = max(1.0, errors.var().item() / (wrong.shape[-1] * rate * (1 - rate))) if 0 < rate < 1 else 1.0
    count, z = symbols / effect, 1.96
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return {"ser": rate, "low": max(centre - reach, 0.0), "high": centre + reach, "symbols": float(symbols)}


def bound_rate(prior: Constellation, obs: Observation) -> dict[str, float]:
    """Symbol error rate if all the other symbols were known, over the drawn channels, in closed form."""
    v = matched_filter_bound(obs).double()
    half = prior.levels(obs.y).double().diff()[0] / 2
    axis = 2 * (1 - 1 / prior.side) * torch.as_tensor(norm.sf((half / (v / 2).sqrt()).numpy()))
    rates = (1 - (1 - axis) ** 2).mean(-1)
    mean, reach = rates.mean().item(), 1.96 * rates.std().item() / len(rates) ** 0.5
    return {"ser": mean, "low": max(mean - reach, 0.0), "high": mean + reach, "symbols": math.inf}


def snr_at(curve: Mapping[float, float], rate: float) -> float | None:
    """The SNR at which a falling curve first passes a rate, `log` rate interpolated over dB.

    None if it does not get there, and also if it is below from the start, as where it passed is not known.
    """
    points = sorted(curve.items())
    for (a, high), (b, low) in itertools.pairwise(points):
        if high >= rate > low:
            low = max(low, rate / 100)  # a point without any error
            return a + (b - a) * math.log(high / rate) / math.log(high / low)
    return None


def goal(m: Curves, rate: float) -> Goal:
    """The SNR that unfolded OAMP saves against LMMSE; at least so much where LMMSE does not get there."""
    ours, theirs = snr_at(m.curve(UNFOLDED), rate), snr_at(m.curve(LINEAR), rate)
    what = f"{m.setting.name}: SNR saved by unfolded OAMP against LMMSE at SER {rate:g}"
    first = min(m.setting.snrs_db)
    for name in (UNFOLDED, LINEAR):
        if m.curve(name)[first] < rate:
            raise ValueError(f"{name} is below SER {rate:g} at {first:g} dB already; start below that SNR.")
    if theirs is None:
        theirs, what = max(m.setting.snrs_db), what + f" (at least: LMMSE is above it at {max(m.setting.snrs_db):g} dB)"
    return Goal(what, "dB", ">=", 1.0, math.nan if ours is None else theirs - ours)


def section(m: Curves, rate: float) -> Section:
    """The chart of one setting, with its data."""
    detectors = list(dict.fromkeys(row["detector"] for row in m.rows))
    series, reached = [], []
    for name in detectors:
        curve = {snr: ser for snr, ser in m.curve(name).items() if ser > 1e-6}
        series.append(Series(name, [*curve], [math.log10(ser) for ser in curve.values()], KINDS.get(name, "classical")))
        at = snr_at(m.curve(name), rate)
        reached.append(f"{name} {'not in this range' if at is None else f'{at:.1f} dB'}")
    text = f"SNR for a symbol error rate of {rate:g}: {'; '.join(reached)}."
    cut = [r for r in m.rows if r["unfinished"]]
    if cut:
        text += "\nSearches of the sphere decoder that were cut off, so that its rate is that of the best point found: "
        text += "; ".join(f"{r['unfinished']} at {r['snr_db']:g} dB" for r in cut) + "."
    chart = line_chart(series, "SNR at a receive antenna in dB", "log10 of the symbol error rate")
    return Section(m.setting.name, text, [chart], details=Table(m.rows))


def verdict(measured: Sequence[Curves], rate: float) -> str:
    """Who needs the least SNR in each setting, exact search and bounds aside."""
    parts = []
    for m in measured:
        needs = {d: snr_at(m.curve(d), rate) for d in (ZF, LINEAR, UNTRAINED, NET2, UNFOLDED, PROPAGATION)}
        ranked = sorted((at, name) for name, at in needs.items() if at is not None)
        parts.append(f"{m.setting.name}: " + ", ".join(f"{name} {at:.1f} dB" for at, name in ranked[:3]))
    return f"At a symbol error rate of {rate:g} the least SNR is needed by: " + "; ".join(parts) + "."


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: eight settings with 100,000 symbols a point, or one small setting if quick."""
    began = time.perf_counter()
    if quick:
        on = MIMODetection(8, 8, "qpsk", 11.0)
        measured = [measure(Setting(on, (8, 10, 12, 14, 18, 22), (8, 10, 12)), 1200, 30, seed, watch)]
        rate = 1e-2
    else:
        measured = [measure(s, -(-102_400 // s.problem.users), 300, seed, watch) for s in settings()]
        rate = 1e-3
    return Study(
        "mimo-detection",
        "Unfolded OAMP detects with at least 1 dB less than LMMSE.",
        verdict(measured, rate),
        time.perf_counter() - began,
        [goal(m, rate) for m in measured],
        [section(m, rate) for m in measured],
        {"seed": seed, "layers": LAYERS, "node limit": NODE_LIMIT},
    )
