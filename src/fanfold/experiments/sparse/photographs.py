"""A photograph from a quarter or half as many measurements as pixels, by a network trained on two other photographs.

Claim: sixteen unfolded layers with learned weights beat FISTA-16 by more than 4 dB and the linear MMSE estimator that
knows the training pictures' covariance. Source: block compressive sensing, Gan (2007), with LISTA-CP (2018).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.algorithms import FISTA, LISTACP
from fanfold.core.table import Table
from fanfold.core.units import psnr_db
from fanfold.estimators import LMMSE
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.experiments.base import Goal, Study
from fanfold.observation import Observation
from fanfold.problems import Photographs
from fanfold.problems.sparse.photographs import load_picture
from fanfold.report.compared import compared
from fanfold.report.page import Section
from fanfold.training.events import Event
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate, unfold

LAYERS = 16
SHORT, LONG, LINEAR, UNFOLDED = "FISTA, 16 iterations", "FISTA, 300 iterations", "LMMSE", "unfolded, 16 layers"
TARGETS = {0.25: 28.0, 0.5: 31.8}
Watcher = Callable[[str], Callable[[Event], None]]


@dataclass(frozen=True)
class Recovery:
    """A test picture and what each method makes of its measurements."""

    ratio: float
    flips: bool  # whether training blocks were also mirrored and turned
    original: Tensor
    pictures: dict[str, Tensor]
    psnr_db: dict[str, float]
    parameters: dict[str, int]
    operator: str


def recover(ratio: float, steps: int, seed: int, watch: Watcher, *, flips: bool = False) -> Recovery:
    """Train on `camera` and `ascent`, recover `aero` by every method."""
    problem, test_picture = Photographs(ratio=ratio, flips=flips, seed=seed), "aero"
    test = problem.shifted(pictures=(test_picture,))
    learn = {"W": "per-layer", "threshold": "per-layer vector"}
    net = unfold(LISTACP(lam=0.02), problem, LAYERS, learn)
    fit(net, problem, steps=steps, batch=256, lr=2e-3, seed=seed, on_event=watch(f"{UNFOLDED}, ratio {ratio:g}"))
    lams = lam_grid(problem, seed, points=10)
    linear = LMMSE.of(problem, samples=100_000, seed=seed)
    estimators: dict[str, Estimator] = {
        SHORT: iterate(tuned(FISTA, lams, problem, LAYERS, seed), LAYERS),
        LONG: iterate(tuned(FISTA, lams, problem, 300, seed), 300),
        LINEAR: linear,
        UNFOLDED: net,
    }
    picture = load_picture(test_picture)
    x = test.blocks(picture)
    obs = test.observe(x, torch.Generator().manual_seed(seed))
    h, w = picture.shape
    original = test.assemble(x, h, w)
    pictures = {name: _recovered(test, estimator, obs, h, w) for name, estimator in estimators.items()}
    scores = {name: psnr_db(p, original) for name, p in pictures.items()}
    n = problem.A.n
    parameters = {SHORT: 1, LONG: 1, LINEAR: n + n * (n + 1) // 2, UNFOLDED: sum(p.numel() for p in net.parameters())}
    return Recovery(ratio, flips, original, pictures, scores, parameters, problem.A.fingerprint())


@torch.no_grad()
def _recovered(problem: Photographs, estimator: Estimator, obs: Observation, h: int, w: int) -> Tensor:
    return problem.assemble(estimator(obs).x, h, w)


def goals(recovery: Recovery) -> list[Goal]:
    """Against the absolute numbers, FISTA-16 and the linear peer."""
    p, ratio = recovery.psnr_db, recovery.ratio
    where = f"ratio {ratio:g}" + (", blocks also mirrored and turned" if recovery.flips else "")
    return [
        Goal(f"{UNFOLDED}, {where}", "dB PSNR", ">=", TARGETS[ratio], p[UNFOLDED]),
        Goal(f"gain over best-λ {SHORT}, {where}", "dB", ">=", 4.0, p[UNFOLDED] - p[SHORT]),
        Goal(f"gain over {LINEAR} with the training covariance, {where}", "dB", ">=", 0.0, p[UNFOLDED] - p[LINEAR]),
    ]


def section(recovery: Recovery) -> Section:
    """The pictures side by side, PSNR under each."""
    p = recovery.psnr_db
    captions = {name: f"{value:.2f} dB PSNR" for name, value in p.items()}
    shown = {name: recovery.pictures[name] for name in sorted(p, key=p.__getitem__, reverse=True)}
    errors = {name: (picture - recovery.original).abs() for name, picture in shown.items()}
    about, rows_of_pictures = compared(recovery.original, shown, captions, errors)
    text = (
        f"The picture is measured in blocks of 16 × 16 pixels with {recovery.ratio:.0%} as many random projections as "
        "pixels and noise of standard deviation 0.01. The network and the linear estimator have seen two other "
        "photographs"
        f"{', their blocks also mirrored and turned' if recovery.flips else ''}.\n"
        f"The unfolded network is {p[UNFOLDED] - p[SHORT]:.1f} dB above FISTA with as many iterations and "
        f"{p[UNFOLDED] - p[LINEAR]:+.2f} dB from the linear MMSE estimator with the training covariance, the strongest "
        "simple peer. What would take it further: larger or overlapping blocks, a denoiser that sees across blocks, "
        f"more pictures.\n{about}"
    )
    rows = [{"method": name, "PSNR (dB)": p[name], "learned numbers": recovery.parameters[name]} for name in p]
    return Section("A photograph it has not seen", text, rows_of_pictures, Table(rows))


def verdict(recovery: Recovery) -> str:
    """Who won, by how much and against which bound: the first half of a sentence."""
    first, second = sorted(recovery.psnr_db, key=recovery.psnr_db.__getitem__, reverse=True)[:2]
    best, next_best = recovery.psnr_db[first], recovery.psnr_db[second]
    return f"{first} wins with {best:.2f} dB PSNR, {best - next_best:.2f} dB ahead of {second} (no bound is known)"


CAVEAT = "do not trust the network at other noise or on other kinds of picture without evaluating there"


def study(*, quick: bool, seed: int, watch: Watcher) -> Study:
    """The experiment: both ratios, or one with shorter training if quick."""
    began = time.perf_counter()
    variants = [(0.5, False)] if quick else [(0.25, False), (0.5, False), (0.25, True), (0.5, True)]
    recoveries = [recover(ratio, 350 if quick else 1500, seed, watch, flips=flips) for ratio, flips in variants]
    return Study(
        "photographs",
        "Unfolded layers with learned weights beat FISTA-16 by 4 dB and the linear MMSE estimator.",
        f"On a photograph, {verdict(recoveries[0])}; {CAVEAT}.",
        time.perf_counter() - began,
        [goal for recovery in recoveries for goal in goals(recovery)],
        [section(recovery) for recovery in recoveries],
        {"seed": seed, "operator": recoveries[-1].operator[:12]},
    )
