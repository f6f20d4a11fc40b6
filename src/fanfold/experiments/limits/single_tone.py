"""The frequency of a single tone of 25 samples: one network against the exact posterior mean at every SNR.

Claim: one network for all SNRs from -10 to 30 dB has an error within 0.5 dB of the least one, the MMSE, through the
threshold region where maximum likelihood breaks down, and above it within 0.5 dB of the Cramér-Rao bound. Source: Rife
& Boorstyn (1974), who describe the threshold. Prior, SNRs and peers are chosen here; the prior of the frequency is a
raised cosine, so that Van Trees' bound applies and the most probable frequency is not the most likely one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.bounds import cramer_rao, gaussian_fisher, ziv_zakai
from fanfold.core.streams import Stream
from fanfold.core.table import Table
from fanfold.core.units import db
from fanfold.estimators import Locator, MaximumAPosteriori, MaximumLikelihood
from fanfold.evaluation.evaluate import Estimator
from fanfold.experiments.base import Goal, Study, mean_goal
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Estimate, Observation
from fanfold.problems import TimeDelay, Tone
from fanfold.problems.draws import draw
from fanfold.problems.located.base import Located
from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.training.fit import fit

NETWORK, UNTRAINED, ML, MAP, BEST = "network", "network, untrained", "ML", "MAP", "posterior mean"
TRAINED_DB = (-12.0, 32.0)  # each training draw's own SNR
THRESHOLD_DB = 5.0  # from here on no estimator but an untrained one mistakes a side lobe or a peak of the noise
WITHIN_DB = 0.5


@dataclass(frozen=True)
class Size:
    """How large a study is."""

    steps: int
    batch: int
    draws: int  # of each SNR, for the network and the posterior mean
    peer_draws: int  # the first of them, for the estimators that search
    snr_db: tuple[float, ...]
    within_db: float  # of the MMSE; WITHIN_DB, but after a short training
    cells: int  # of the quadrature of Ziv and Zakai's bound


FULL = Size(2500, 256, 16_000, 1500, (-10, -7.5, -5, -2.5, 0, 2.5, 5, 10, 15, 20, 25, 30), WITHIN_DB, 32)
QUICK = Size(400, 128, 800, 150, (-10, -5, 0, 5, 15, 30), 1.0, 12)


@dataclass(frozen=True)
class Errors:
    """Mean squared errors at one SNR."""

    snr_db: float
    mmse: float  # mean posterior variance
    crb: float
    van_trees: float
    mse: dict[str, float] = field(default_factory=dict)  # mean posterior variance + mean |x_hat - E[x|y]|²
    seen: dict[str, float] = field(default_factory=dict)  # mean |x_hat - x|²

    def over_mmse_db(self, name: str) -> float:
        """How far an estimator is from the best one."""
        return db(self.mse[name] / self.mmse)


def crb(problem: Located) -> float:
    """The Cramér-Rao bound of the place, the gain unknown: the same wherever the source is."""
    x = problem.grid(3)[1]
    return cramer_rao(gaussian_fisher(x, problem.mean, noise_var=problem.noise_var), problem.names, (0,)).item()


def train(on: Located, size: Size, seed: int, watch: Watcher) -> Locator:
    """One network for all SNRs."""
    net, settings = Locator.of(on, seed=seed), {"validate_every": size.steps // 6, "threads": 1}
    return fit(
        net,
        on.shifted(snr_db=TRAINED_DB),
        steps=size.steps,
        batch=size.batch,
        seed=seed,
        on_event=watch(f"{type(on).__name__}, {TRAINED_DB[0]:g} to {TRAINED_DB[1]:g} dB"),
        **settings,
    )


def untrained(net: Locator) -> Estimator:
    """The same network with its corrections taken away."""

    def estimate(obs: Observation) -> Estimate:
        net.strength = 0.0
        try:
            return net(obs)
        finally:
            net.strength = 1.0

    return estimate


@torch.no_grad()
def measure(on: Located, net: Locator, size: Size, seed: int) -> list[Errors]:
    """Every estimator at every SNR, on the same draws."""
    rows = []
    for snr_db in size.snr_db:
        at_snr = on.shifted(snr_db=float(snr_db))
        x, obs = draw(at_snr, size.draws, seed, Stream.TESTING, 0)
        best = at_snr.posterior(obs)
        assert best.var is not None
        bound = crb(at_snr)
        prior = at_snr.prior_information
        assert prior is not None
        van_trees = 1 / (1 / bound + prior[0, 0].item())  # the data's information is the same everywhere
        row = Errors(snr_db, best.var.double().mean().item(), bound, van_trees)
        few = slice(0, size.peer_draws)
        estimates = {BEST: best.x, NETWORK: net(obs).x, UNTRAINED: untrained(net)(obs).x}
        estimates |= {ML: MaximumLikelihood.of(at_snr)(obs[few]).x, MAP: MaximumAPosteriori.of(at_snr)(obs[few]).x}
        for name, x_hat in estimates.items():
            row.mse[name] = expected_error(x_hat, best, row.mmse)
            row.seen[name] = (x_hat - x[: len(x_hat)]).double().square().mean().item()
        rows.append(row)
    return rows


def expected_error(x_hat: Tensor, best: Estimate, mmse: float) -> float:
    """`E|x_hat - x|²` given the observations: the posterior variance, and the distance to its mean."""
    return mmse + (x_hat - best.x[: len(x_hat)]).double().square().mean().item()


def goals(measured: Sequence[Sequence[Errors]], size: Size) -> list[Goal]:
    """At each SNR how far the network is from the MMSE and, above the threshold, from the bound; means over seeds."""
    wanted = []
    for at in zip(*measured, strict=True):
        snr_db = at[0].snr_db
        values = [e.over_mmse_db(NETWORK) for e in at]
        wanted.append(mean_goal(f"network over the MMSE, {snr_db:g} dB", "dB", "<=", size.within_db, values))
        if snr_db >= THRESHOLD_DB:
            values = [db(e.mse[NETWORK] / e.crb) for e in at]
            wanted.append(mean_goal(f"network over the CRB, {snr_db:g} dB", "dB", "<=", WITHIN_DB, values))
    broken = [max(e.over_mmse_db(ML) for e in rows) for rows in measured]
    wanted.append(mean_goal("ML over the MMSE, where it is worst", "dB", ">=", 3.0, broken))
    return wanted


def section(on: Located, rows: Sequence[Errors], size: Size) -> Section:
    """The chart of one seed, with a table of all estimators."""
    far = [ziv_zakai(on.shifted(snr_db=float(e.snr_db)), cells=size.cells).mse for e in rows]
    curves = {n: ("learned" if n == NETWORK else "classical", [e.mse[n] for e in rows]) for n in (NETWORK, ML, MAP)}
    curves |= {"MMSE": ("limit", [e.mmse for e in rows]), "CRB": ("limit", [e.crb for e in rows])}
    curves["Ziv–Zakai"] = ("limit", far)
    noise_db = [-e.snr_db for e in reversed(rows)]  # to the right, where names stand, curves part
    series = [Series(n, noise_db, [v**0.5 for v in reversed(mse)], kind) for n, (kind, mse) in curves.items()]
    table = [
        {"SNR (dB)": e.snr_db, "RMS of the MMSE": f"{e.mmse**0.5:.3g}", "CRB over MMSE (dB)": db(e.crb / e.mmse)}
        | {"Van Trees over MMSE (dB)": db(e.van_trees / e.mmse), "Ziv–Zakai over MMSE (dB)": db(z / e.mmse)}
        | {f"{n} over MMSE (dB)": e.over_mmse_db(n) for n in (NETWORK, UNTRAINED, ML, MAP)}
        | {f"{n}, these draws' own errors (dB)": db(e.seen[n] / e.seen[BEST]) for n in (NETWORK,)}
        for e, z in zip(rows, far, strict=True)
    ]
    text = (
        f"Root mean squared error of a {on.place} against the noise of a sample over its signal; {size.draws} draws at "
        f"each, {size.peer_draws} of them for ML and MAP.\n"
        "The posterior is known, by quadrature. An estimator's error is therefore the mean posterior variance, which "
        "is the MMSE, and its mean squared distance to the posterior mean: an expectation over x, free of the luck of "
        "the few draws in which a wrong peak is the highest. The last column has these draws' own errors.\n"
        "The network is one for all SNRs, and is told the noise variance; untrained, it is the softened top of the "
        "periodogram. Below the threshold the CRB is no bound on the mean squared error of a biased estimator."
    )
    title = "One tone, 25 samples" if isinstance(on, Tone) else "A delay, the same network on other templates"
    chart = line_chart(series, "noise over signal (dB)", f"RMS error of the {on.place}", log_y=True)
    return Section(title, text, [chart], Table(table))


def verdict(rows: Sequence[Errors]) -> str:
    """How far from the best the network is at worst, and ML."""
    net, ml = (max(rows, key=lambda e: e.over_mmse_db(n)) for n in (NETWORK, ML))
    top = max((e for e in rows if e.snr_db >= THRESHOLD_DB), key=lambda e: e.mse[NETWORK] / e.crb)
    return (
        f"One network finds the frequency of a tone within {net.over_mmse_db(NETWORK):.2f} dB of the MMSE at each of "
        f"{len(rows)} SNRs from {rows[0].snr_db:g} to {rows[-1].snr_db:g} dB (worst at {net.snr_db:g} dB), where ML "
        f"loses up to {ml.over_mmse_db(ML):.1f} dB (at {ml.snr_db:g} dB), and from {THRESHOLD_DB:g} dB on within "
        f"{db(top.mse[NETWORK] / top.crb):.2f} dB of the CRB; do not trust it with another number of samples, another "
        "amplitude or a wrong noise variance."
    )


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: three seeds and a delay, or one seed with a shorter training if quick."""
    began, size = time.perf_counter(), QUICK if quick else FULL
    tone = Tone(density="raised-cosine")
    seeds = [seed] if quick else [seed, seed + 1, seed + 2]
    measured = [measure(tone, train(tone, size, s, watch), size, s) for s in seeds]
    sections = [section(tone, measured[0], size)]
    wanted = goals(measured, size)
    if not quick:
        delay = TimeDelay(density="raised-cosine")
        rows = measure(delay, train(delay, size, seed, watch), size, seed)
        sections.append(section(delay, rows, size))
        worst = max(e.over_mmse_db(NETWORK) for e in rows)
        wanted.append(Goal("delay: network over the MMSE, where it is worst", "dB", "<=", WITHIN_DB, worst))
    return Study(
        "single-tone",
        "One network is as good as the posterior mean at every SNR, below and above the threshold.",
        verdict(measured[0]),
        time.perf_counter() - began,
        wanted,
        sections,
        {"seeds": seeds, "samples": tone.n},
    )
