"""What competes on RF scenes with structure: tuned classical methods, and networks with their training."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db, power
from fanfold.estimators import BackProjectionUNet, HybridEP, HybridOAMP, MoDL, OnePhase
from fanfold.estimators.imaging.one_phase import stacked
from fanfold.estimators.linear.image import back_projection, white_lmmse
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.peers import lam_grid
from fanfold.experiments.rf.scene_data import Field, Setting, signal_power
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.priors.gaussian_field import GaussianField
from fanfold.problems import Problem, RFImaging
from fanfold.problems.draws import draw
from fanfold.training.events import Finished, Stepped
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
    told = [OAMP(prior, damping=d, spread=s) for d, s in itertools.product((1.0, 0.7, 0.5), (1e-6, 0.03, 1.0))]
    if field is None:
        told += [replace(oamp, settings="estimated") for oamp in told]
    lams = lam_grid(on, seed, points=10)[3:]
    lams += [lams[-1] / 2, lams[-1] / 4]
    grids = {L1: (LONG, [FISTA(lam) for lam in lams], 20), CLASSICAL_OAMP: (30, told, 30)}
    if quick:
        grids = {CLASSICAL_OAMP: (30, told[1:2], 2)}
    peers: dict[str, Estimator] = {
        BACK_PROJECTION: back_projection,
        WHITE: lambda obs: white_lmmse(obs, signal_var),
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

    told = [EP(BernoulliGaussian(p, signal_var / p), damping=0.9) for p in (0.05, 0.1, 0.3)]
    grid = told + [replace(ep, improper="forget") for ep in told]
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
            within: nn.Module = HybridOAMP(oamp, real, on.scene, 5, learn, correct="mean", share="per-layer",
                                           width=14, depth=4, seed=seed)  # fmt: skip
        elif name == UNET:
            within = BackProjectionUNet(on.scene, 1.0, field.linear, seed=seed)
        else:
            within = MoDL(on.scene, field.linear, **shape)
        return OnePhase(field.image, within)
    signal_var = signal_power(training, seed)
    if name == HYBRID:
        ep = EP(BernoulliGaussian(0.3, signal_var / 0.3), damping=1.0)
        return HybridEP(ep, on, on.scene, 8, seed=seed, width=24, reach=2)
    if name == UNET:
        return BackProjectionUNet(on.scene, signal_var, seed=seed)
    return MoDL(on.scene, lambda obs: white_lmmse(obs, signal_var), **shape)


RATES = {"extended": {HYBRID: 3e-3, UNET: 5e-3, MODL: 3e-3}, "photographs": {HYBRID: 3e-3, UNET: 1e-3, MODL: 3e-3}}


def trained(
    name: str, setting: Setting, on: Problem, steps: int, seed: int, watch: Watcher, what: str
) -> tuple[nn.Module, float]:
    """A network after training, and the processor seconds that it took."""
    began = time.process_time()
    with torch.enable_grad():
        net = network(name, setting, on, seed)
        if isinstance(net, HybridEP):
            learn_maps(net, on, steps, seed, watch, what)
        else:
            lr = RATES[setting.changes["targets"]][name]
            fit(net, on, steps=steps, batch=16, lr=lr, validation_samples=60, seed=seed, on_event=watch(what))
    return net, time.process_time() - began


def learn_maps(net: HybridEP, on: Problem, steps: int, seed: int, watch: Watcher, what: str) -> None:
    """Teach the prior its maps, by the likelihood of the scene: beside white noise of any level, then beside EP's own.

    A third of the steps each: noise as drawn, then cavities of some scenes, then these and those of others that are
    left by what was learned. No gradient passes through a step of EP, whose inverse makes that dear.
    """
    began, show, count = time.perf_counter(), watch(what), max(steps // 3, 1)
    optimiser = torch.optim.Adam(net.denoiser.parameters())
    generator = torch.Generator().manual_seed(seed)
    for stage, lr in enumerate((3e-3, 2e-3, 2e-3)):
        lesson = (
            white_noise(net, on, seed) if stage == 0 else layer_noise(net, on, seed, stage, 32 if count > 100 else 12)
        )
        for step in range(count):
            x, r, v = lesson(step, generator)
            for group in optimiser.param_groups:
                group["lr"] = lr * (1.05 - step / count)
            loss = surprise(x, **net.settings(r, v))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            show(Stepped(stage * count + step + 1, loss.item(), math.nan, lr, skipped=False))
    x, obs = draw(on.held_out(), 8, seed, Stream.VALIDATION, 0)
    with torch.no_grad():
        show(Finished(3 * count, "steps", nmse_db(net(obs).x, x), 0, time.perf_counter() - began))


Lesson = Callable[[int, torch.Generator], tuple[Tensor, Tensor, Tensor]]  # scenes, what is seen of them, its variance


def white_noise(net: HybridEP, on: Problem, seed: int) -> Lesson:
    """Fresh scenes in noise as drawn."""

    def lesson(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        x, _ = draw(on, 16, seed, Stream.TRAINING, step)
        return x, *noisy(x, net.prior.power, generator)

    return lesson


def layer_noise(net: HybridEP, on: Problem, seed: int, stage: int, scenes: int) -> Lesson:
    """Scenes as the layers of EP see them, with the maps of now; small batches, as EP fills the memory."""
    x, obs = draw(on, scenes, seed, Stream.TRAINING, 1_000_000 + stage)
    parts = [net.cavities(obs[first : first + 4]) for first in range(0, scenes, 4)]
    r, v = (torch.cat(part, 1) for part in zip(*parts, strict=True))

    def lesson(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        layer, scene = (torch.randint(size, (16,), generator=generator) for size in r.shape[:2])
        return x[scene], r[layer, scene], v[layer, scene]

    return lesson


def noisy(x: Tensor, level: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scenes in noise from their own power down to 50 dB below, its variance uneven over voxels; and the variance."""
    decades = 5 * torch.rand((len(x), 1), generator=generator)
    uneven = torch.exp(0.5 * torch.randn(x.shape, generator=generator))
    v = level * 10**-decades * uneven
    return x + v.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype), v


def surprise(x: Tensor, p: Tensor, var: Tensor) -> Tensor:
    """Mean of `-log p(x)` under Bernoulli-Gaussian priors of one voxel each, but for constants."""
    there = x != 0
    return -torch.where(there, torch.log(p) - power(x) / var - torch.log(var), torch.log1p(-p)).mean()
