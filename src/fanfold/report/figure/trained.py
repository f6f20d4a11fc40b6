"""The figure's problems, and what was learned and tuned on them: measured by `make_trained`, kept in `trained.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fanfold.algorithms import AMP, FISTA, ISTA, OAMP, Algorithm
from fanfold.bounds import bayes_limit
from fanfold.core.files import write_whole
from fanfold.core.streams import Stream
from fanfold.core.units import db, nmse_db
from fanfold.evaluation.peers import ALPHAS, lam_grid, tuned
from fanfold.observation import Estimator
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing
from fanfold.problems.draws import draw
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

LAYERS = 16
CONVERGED = 300  # iterations for which the λ of ISTA is tuned, from which the unfolded one starts
GUESS = BernoulliGaussian(0.3)  # the prior that the unfolded OAMP starts from, wrong on purpose
PROBLEMS = {  # the text's, half of it, and half of it with a third of the measurements
    "200x100": CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=20.0),
    "100x50": CompressedSensing(n=100, m=50, sparsity=0.1, snr_db=20.0),
    "100x34": CompressedSensing(n=100, m=34, sparsity=0.1, snr_db=20.0),
}
SNRS_DB = tuple(range(0, 41, 2))  # of the slider, for which limits are kept
SPARSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
LEARN = {
    "ista": {"step": "per-layer", "threshold": "per-layer"},
    "oamp": {"prior": "per-layer", "noise_var": "per-layer", "variances": "per-layer"},
}
STEPS = {"ista": 400, "oamp": 150}
RATES = {"ista": 4e-3, "oamp": 2e-3}
FILE = Path(__file__).parent / "trained.json"
Say = Callable[[str], None]


class TrainedFigure(NamedTuple):
    """What was tuned and learned on one problem of the figure.

    Attributes:
        lam: The weight of the l1 norm that is best for ISTA after 300 iterations.
        fista_lam: The one that is best for FISTA at 16.
        alpha: The threshold of AMP that is best at 16.
        deviations: Of each network, of each quantity, of each layer.
        nmse_db: Of each estimator after the last layer, on 1000 held-out draws.
        limits_db: The Bayes limit of each sparsity, at each SNR; None where it is not known.

    Example:
        >>> from fanfold.report.figure.trained import kept
        >>> kept()["200x100"].nmse_db["unfolded OAMP"] < -23
        True
    """

    lam: float
    fista_lam: float
    alpha: float
    deviations: Mapping[str, Mapping[str, Sequence[float]]]
    nmse_db: Mapping[str, float]
    limits_db: Sequence[Sequence[float | None]]


@lru_cache
def kept() -> dict[str, TrainedFigure]:
    """What `make_trained` measured, by problem."""
    return {name: TrainedFigure(**row) for name, row in json.loads(FILE.read_text()).items()}


def networks(name: str, trained: TrainedFigure) -> dict[str, Unfolded]:
    """The trained networks of a problem, by kind."""
    nets = _untrained(PROBLEMS[name], trained.lam)
    for kind, net in nets.items():
        for quantity, values in trained.deviations[kind].items():
            net.deviations[quantity].data.copy_(torch.tensor(values).reshape(net.deviations[quantity].shape))
    return nets


def estimators(name: str, trained: TrainedFigure) -> dict[str, Estimator]:
    """Every estimator of the figure as torch runs it, by its name there; told the prior of the trained condition."""
    problem, nets = PROBLEMS[name], networks(name, trained)
    classical: dict[str, Algorithm] = {
        "ISTA": ISTA(trained.lam),
        "FISTA": FISTA(trained.fista_lam),
        "AMP": AMP(trained.alpha),
        "OAMP": OAMP(problem.prior),
    }
    rows: dict[str, Estimator] = {key: iterate(algorithm, LAYERS) for key, algorithm in classical.items()}
    return rows | {"unfolded ISTA": nets["ista"], "unfolded OAMP": nets["oamp"]}


def _untrained(problem: CompressedSensing, lam: float) -> dict[str, Unfolded]:
    starts = {"ista": ISTA(lam), "oamp": OAMP(GUESS, noise="estimated")}
    return {kind: unfold(start, problem, LAYERS, LEARN[kind]) for kind, start in starts.items()}


def make_trained(say: Say = lambda line: None, names: Sequence[str] = tuple(PROBLEMS), **fewer: Any) -> dict[str, Any]:
    """Tune, train and measure everything of the figure, in about two minutes of one core.

    Args:
        say: Called with a line after each problem.
        names: The problems.
        **fewer: `steps` of training, and `conditions`, the number of SNRs that limits are computed for.

    Returns:
        Rows for `trained.json`, by problem.
    """
    rows = {}
    for name in names:
        problem = PROBLEMS[name]
        lams = lam_grid(problem)
        ista, fista = tuned(ISTA, lams, problem, CONVERGED), tuned(FISTA, lams, problem, LAYERS)
        amp = tuned(AMP, ALPHAS, problem, LAYERS)
        assert isinstance(ista, ISTA)
        assert isinstance(fista, FISTA)
        assert isinstance(amp, AMP)
        nets = _untrained(problem, ista.lam)
        for kind, net in nets.items():
            fit(net, problem, steps=fewer.get("steps", STEPS[kind]), lr=RATES[kind], seed=0)
        deviations = {
            kind: {quantity: [round(v, 6) for v in d.flatten().tolist()] for quantity, d in net.deviations.items()}
            for kind, net in nets.items()
        }
        row = TrainedFigure(ista.lam, fista.lam, amp.alpha, deviations, {}, ())
        snrs = SNRS_DB[: fewer.get("conditions")]
        rows[name] = row._replace(nmse_db=measured(name, row), limits_db=limits(problem, snrs))._asdict()
        say(f"{name}: {rows[name]['nmse_db']}")
    return rows


@torch.no_grad()
def measured(name: str, trained: TrainedFigure, samples: int = 1000) -> dict[str, float]:
    """The NMSE in dB of each estimator after the last layer, on held-out draws."""
    x, obs = draw(PROBLEMS[name], samples, 0, Stream.TESTING, 0)
    return {key: round(nmse_db(one(obs).x, x), 3) for key, one in estimators(name, trained).items()}


def limits(problem: CompressedSensing, snrs_db: Sequence[float]) -> list[list[float | None]]:
    """The Bayes limit in dB, for each sparsity of the slider at each SNR."""
    rows: list[list[float | None]] = []
    for sparsity in SPARSITIES:
        values = (bayes_limit(problem.shifted(sparsity=sparsity, snr_db=float(s))) for s in snrs_db)
        rows.append([None if v is None else round(db(v), 2) for v in values])
    return rows


def write_trained(rows: Mapping[str, Any]) -> Path:
    """Keep what `make_trained` gave."""
    write_whole(FILE, f"{json.dumps(rows, separators=(',', ':'))}\n".encode())
    kept.cache_clear()
    return FILE
