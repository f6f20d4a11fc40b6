"""What competes on RF scenes with structure: tuned classical methods, and networks with their training."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.core.abilities import ability
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators import BackProjectionUNet, HybridEP, HybridOAMP, MoDL, OnePhase
from fanfold.estimators.base import SelfTaught
from fanfold.estimators.imaging.one_phase import stacked
from fanfold.estimators.linear.image import WhiteLMMSE, back_projection, signal_power
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.peers import lam_grid
from fanfold.experiments.rf.scene_data import Field, Setting
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.priors.gaussian_field import GaussianField
from fanfold.problems import Problem, RFImaging
from fanfold.problems.draws import draw
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate

LEARNED = ("noise_scale", "v_linear", "v_denoised", "spread", "damping")
LONG, EP_LONG = 300, 12
BACK_PROJECTION, WHITE, LINEAR, L1, CLASSICAL_OAMP, CLASSICAL_EP, HYBRID, UNET, MODL = (
    "back-projection",
    "LMMSE, white scene",
    "LMMSE, learned covariance",
    f"FISTA, {LONG} iterations, best λ",
    "OAMP, 30 iterations, best setting",
    f"EP, {EP_LONG} iterations, best prior",
    "unfolded hybrid",
    "U-Net on the LMMSE image",
    "MoDL",
)
NETWORKS = (HYBRID, UNET, MODL)


@torch.no_grad()
def best(candidates: Sequence[Any], make: Callable[[Any], Estimator], on: RFImaging, seed: int, samples: int) -> Any:
    """The candidate with the least error on tuning draws."""
    x, obs = draw(on, samples, seed, Stream.TUNING, 0)

    def error(candidate: Any) -> float:
        estimator = make(candidate)
        parts = [estimator(obs[first : first + 5]).x for first in range(0, samples, 5)]
        value = nmse_db(torch.cat(parts), x)
        return value if value == value else math.inf

    return min(candidates, key=error)


def classical(setting: Setting, seed: int, *, quick: bool) -> dict[str, Estimator]:
    """Each with its best settings; on photographs told mean and covariance, and that there is one phase."""
    on = setting.problem(seed)
    field = Field.of(on, on.scene, seed) if setting.photographs else None

    def iterated(algorithm: Any, iterations: int) -> Estimator:
        within: Estimator = lambda obs: iterate(algorithm, iterations)(obs)  # noqa: E731
        return within if field is None else OnePhase(field.image, within)

    signal_var = signal_power(on, seed)
    prior = GaussianField(field.mean, field.covariance) if field else BernoulliGaussian(0.3, signal_var / 0.3)
    candidates = [OAMP(prior, damping=d, spread=s) for d, s in itertools.product((1.0, 0.7, 0.5), (1e-6, 0.03, 1.0))]
    if field is None:
        candidates += [replace(oamp, settings="estimated") for oamp in candidates]
    lams = lam_grid(on, seed, points=10)[3:]
    lams += [lams[-1] / 2, lams[-1] / 4]
    grids = {L1: (LONG, [FISTA(lam) for lam in lams], 20), CLASSICAL_OAMP: (30, candidates, 30)}
    if quick:
        grids = {CLASSICAL_OAMP: (30, candidates[1:2], 2)}
    peers: dict[str, Estimator] = {
        BACK_PROJECTION: back_projection,
        WHITE: WhiteLMMSE(signal_var),
    }
    if field is not None:
        peers[LINEAR] = OnePhase(field.image, field.linear)
    for name, (iterations, grid, samples) in grids.items():
        peers[name] = iterated(best(grid, lambda a, t=iterations: iterated(a, t), on, seed, samples), iterations)
    if field is None and not quick:
        peers[CLASSICAL_EP] = best_ep(on, signal_var, seed)
    return peers


def best_ep(on: RFImaging, signal_var: float, seed: int) -> Estimator:
    """EP with the best Bernoulli-Gaussian prior and way with improper factors: p first, then the variance."""

    def make(ep: EP) -> Estimator:
        return lambda obs: iterate(ep, EP_LONG)(obs)

    kept = [EP(BernoulliGaussian(p, signal_var / p), damping=0.9) for p in (0.05, 0.1, 0.3)]
    grid = kept + [replace(ep, improper="forget") for ep in kept]
    chosen = best(grid, make, on, seed, 5)
    p, var = chosen.prior.p, chosen.prior.var
    grid = [replace(chosen, prior=BernoulliGaussian(p, var * factor)) for factor in (1 / 3, 1, 3)]
    return make(best(grid, make, on, seed, 5))


def network(name: str, setting: Setting, training: Problem, seed: int) -> nn.Module:
    """An untrained network; what it is told of the scenes comes from the draws that it trains on."""
    on = setting.problem(seed)
    shape = {"width": 24, "depth": 5, "seed": seed}
    if setting.photographs:
        field = Field.of(training, on.scene, seed)
        if name == HYBRID:
            real = Observation.unchecked(torch.zeros(2 * on.A.m), stacked(on.A))
            oamp = OAMP(GaussianField(field.mean, field.covariance))
            learn = dict.fromkeys(LEARNED, "per-layer")
            height, width = on.scene
            cnn = {"width": 14, "depth": 4, "seed": seed}
            within: nn.Module = HybridOAMP.of(
                real, oamp, 5, learn, correct="mean", share="per-layer", scene=(height, width), **cnn
            )
        elif name == UNET:
            within = BackProjectionUNet(on.scene, field.linear, seed=seed)
        else:
            within = MoDL(on.scene, field.linear, **shape)
        return OnePhase(field.image, within)
    signal_var = signal_power(training, seed)
    if name == HYBRID:
        ep = EP(BernoulliGaussian(0.3, signal_var / 0.3), damping=1.0)
        return HybridEP.of(on, ep, 8, width=24, reach=2, seed=seed)
    if name == UNET:
        return BackProjectionUNet.of(on, signal_var=signal_var, seed=seed)
    return MoDL.of(on, signal_var=signal_var, **shape)


RATES = {"extended": {HYBRID: 3e-3, UNET: 5e-3, MODL: 3e-3}, "photographs": {HYBRID: 3e-3, UNET: 1e-3, MODL: 3e-3}}


def trained(
    name: str, setting: Setting, on: Problem, steps: int, seed: int, watch: Watcher, what: str
) -> tuple[nn.Module, float]:
    """A network after training, and the processor seconds that it took."""
    began = time.process_time()
    with torch.enable_grad():
        net = network(name, setting, on, seed)
        if ability(net, SelfTaught):
            how = {"validate_every": steps, "validation_samples": 8}
            fit(net, on, steps=steps, seed=seed, on_event=watch(what), **how)
        else:
            lr = RATES[setting.changes["targets"]][name]
            fit(net, on, steps=steps, batch=16, lr=lr, validation_samples=60, seed=seed, on_event=watch(what))
    return net, time.process_time() - began
