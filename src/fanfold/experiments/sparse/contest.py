"""One line-up of estimators, held against each other on a problem: untrained, with few numbers that learn, dense."""

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.algorithms import ISTA, LISTA, LISTACP, LVAMP, OAMP, Algorithm
from fanfold.algorithms.base import Theta
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db, power, psnr_db
from fanfold.estimators import LMMSE
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, GaussianMixture
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.training.events import Event, Finished
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

Kind = Literal["untrained", "light", "dense", "told"]  # light: numbers that learn; told: what the others are not
UNTRAINED, LINEAR = "OAMP, untrained, best separable prior", "LMMSE, training covariance"
SCALARS, VECTORS = "unfolded OAMP, scalars", "unfolded OAMP, p and var of each unknown"
CP, TWO, LEARNED_SVD = "LISTA-CP, W a layer", "LISTA, W1 and W2 a layer", "learned VAMP, U and V"
NUMBERS = ("noise_scale", "v_linear", "v_denoised", "spread")  # of OAMP, beside its prior
WAYS: tuple[Literal["given", "estimated"], ...] = ("given", "estimated")


@dataclass(frozen=True)
class Entrant:
    """A network: the algorithm that it is untrained, what it learns, and how it is trained."""

    name: str
    kind: Kind
    start: Algorithm
    learn: Mapping[str, str]
    training: Mapping[str, Any]
    rates: tuple[float, ...]  # learning rates to try


@dataclass(frozen=True)
class Contest:
    """One place where the line-up meets: where training draws come from, and what is tested on."""

    case: str
    at: float  # the place of its chart: error of A, ratio, layers
    on: Problem
    layers: int
    x: Tensor
    obs: Observation
    others: Mapping[str, Estimator] = field(default_factory=dict)  # told something
    lam: float | None = None  # that LISTA starts from; None takes ISTA's best
    pictures: bool = False  # PSNR instead of NMSE

    def gain(self, x_hat: Tensor) -> float:
        """In dB, larger is better: PSNR, or the NMSE with its sign changed."""
        return psnr_db(x_hat, self.x) if self.pictures else -nmse_db(x_hat, self.x)


@dataclass(frozen=True)
class Result:
    """What a method reaches in a contest; `gain_db` as `Contest.gain`."""

    name: str
    kind: Kind
    gain_db: float
    learned: int = 0
    seconds: float = 0.0  # of the processor, for training


Results = dict[str, Result]


def separable_priors(on: Problem, seed: int) -> list[BernoulliGaussian | GaussianMixture]:
    """Priors of one unknown like any other: Bernoulli-Gaussians of the right power, and the mixture of most likelihood.

    The mixture is fitted by expectation maximisation to unknowns of training draws taken together.
    """
    x, _ = draw(on, 2000, seed, Stream.TUNING, 3)
    x = x.flatten()[None, :: max(1, x.numel() // 20_000)].double()
    mean_square = power(x).mean().item()
    mixture = GaussianMixture((1.0,) * 8, (0.0,) * 8, tuple(mean_square * 10.0**k for k in range(-5, 3)))
    tiny, given = mean_square * 1e-7, None
    for _ in range(50):
        given = Theta(**mixture.refit(x, tiny, given, mixture, x.new_tensor(1e-6)))
    assert given is not None
    weights, variances = given.weights.flatten().tolist(), given.variances.flatten().clamp_min(tiny).tolist()
    plain = [BernoulliGaussian(p, mean_square / p) for p in (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)]
    return [*plain, GaussianMixture(tuple(weights), mixture.means, tuple(variances))]


@torch.no_grad()
def best_oamp(on: Problem, layers: int, seed: int) -> tuple[OAMP, OAMP]:
    """OAMP with the separable prior, and with noise and settings given or estimated, that does best on 200 draws.

    The second is the best with a Bernoulli-Gaussian prior that is given: what networks start from, whose p and var
    learn.
    """
    x, obs = draw(on, 200, seed, Stream.TUNING, 0)
    errors: dict[OAMP, float] = {}
    for prior, noise, settings in itertools.product(separable_priors(on, seed), WAYS, WAYS):
        oamp = OAMP(prior, noise=noise, settings=settings)
        value = nmse_db(iterate(oamp, layers)(obs).x, x)
        errors[oamp] = value if math.isfinite(value) else math.inf
    plain = [o for o in errors if isinstance(o.prior, BernoulliGaussian) and o.settings == "given"]
    return min(errors, key=errors.__getitem__), min(plain, key=errors.__getitem__)


def line_up(contest: Contest, oamp: OAMP, seed: int, *, quick: bool) -> list[Entrant]:
    """The networks, light ones first; those of OAMP's kind start from `oamp`."""
    on, layers = contest.on, contest.layers
    lam = contest.lam
    if lam is None:
        ista = tuned(ISTA, lam_grid(on, seed, points=10), on, layers, seed)
        assert isinstance(ista, ISTA)
        lam = ista.lam
    scalars = dict.fromkeys((*NUMBERS, "p", "var"), "per-layer")
    vectors = dict.fromkeys(("p", "var"), "per-layer vector")
    matrices = {"U": "tied", "V": "tied", "s": "tied", "noise_scale": "per-layer"}
    threshold = {"threshold": "per-layer vector"}
    light = {"steps": 300, "batch": 64, "loss_layers": 2}
    fine = {"steps": 600 if contest.pictures else 400, "batch": 128, "loss_layers": 2}
    dense = {"steps": 1500 if contest.pictures else 1000, "batch": 256 if layers > 6 else 128}
    # U and V that begin close to right take small steps only
    tried = (1e-3,) if contest.pictures else (3e-3, 3e-4)
    assert isinstance(oamp.prior, BernoulliGaussian)
    entrants = [
        Entrant(SCALARS, "light", oamp, scalars, light, (6e-3,)),
        Entrant(VECTORS, "light", oamp, scalars | vectors, fine, (3e-3,)),
        Entrant(LEARNED_SVD, "dense", LVAMP(oamp.prior), vectors | matrices, light | {"steps": 600}, tried),
        Entrant(CP, "dense", LISTACP(lam), {"W": "per-layer"} | threshold, dense, (2e-3,)),
        Entrant(TWO, "dense", LISTA(lam), dict.fromkeys(("W1", "W2"), "per-layer") | threshold, dense, (1e-3,)),
    ]
    if not quick:
        return entrants
    few = {SCALARS: 60, LEARNED_SVD: 400, CP: 200}
    return [
        replace(e, training={**e.training, "batch": 64, "steps": few[e.name]}, rates=e.rates[:1])
        for e in entrants
        if e.name in few
    ]


def trained(entrant: Entrant, contest: Contest, seed: int, watch: Watcher) -> tuple[Unfolded, float]:
    """The network, of the learning rates that are tried the best on held-out draws, and the processor seconds of all.

    Where a network scales the noise variance it begins with the one that training pairs show: an error of A is noise.
    """
    x, obs = draw(contest.on, 500, seed, Stream.TUNING, 0)
    assert obs.A is not None
    assert obs.noise_var is not None
    excess = (power(obs.y - obs.A @ x).mean() / obs.noise_var).log()
    began, candidates = time.process_time(), []
    watched = watch(f"{entrant.name}: {contest.case} {contest.at:g}")
    for rate in entrant.rates:
        net = unfold(entrant.start, contest.on, contest.layers, entrant.learn)
        if isinstance(entrant.start, LVAMP):
            net.deviations["noise_scale"].data.fill_(excess)
        errors: list[float] = []

        def note(event: Event, errors: list[float] = errors) -> None:
            watched(event)
            if isinstance(event, Finished):
                errors.append(event.nmse_db)

        fit(net, contest.on, seed=seed, lr=rate, validate_every=100, on_event=note, **entrant.training)
        candidates.append((errors[0], net))
    return min(candidates, key=lambda pair: pair[0])[1], time.process_time() - began


def hold(contest: Contest, seed: int, watch: Watcher, *, quick: bool = False) -> Results:
    """Train the line-up and measure it beside what is not trained."""
    results: Results = {}

    @torch.no_grad()
    def enter(name: str, kind: Kind, estimator: Estimator, learned: int = 0, seconds: float = 0.0) -> None:
        results[name] = Result(name, kind, contest.gain(estimator(contest.obs).x), learned, seconds)

    oamp, start = best_oamp(contest.on, contest.layers, seed)
    enter(UNTRAINED, "untrained", iterate(oamp, contest.layers))
    enter(LINEAR, "untrained", LMMSE.of(contest.on, 20_000 if quick else 100_000, seed))
    for name, estimator in contest.others.items():
        enter(name, "told", estimator)
    for entrant in line_up(contest, start, seed, quick=quick):
        net, seconds = trained(entrant, contest, seed, watch)
        enter(entrant.name, entrant.kind, net, sum(p.numel() for p in net.parameters()), seconds)
    return results


def best(results: Results, *kinds: Kind) -> Result:
    """Who wins among some kinds."""
    return max((r for r in results.values() if r.kind in kinds), key=lambda r: r.gain_db)
