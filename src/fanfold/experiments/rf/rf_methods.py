"""What is run on RF imaging's operators: OAMP and EP, as published and unfolded, and what else one would run."""

import itertools

import torch

from fanfold.algorithms import ADMM, EP, FISTA, OAMP
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators import BackProjectionUNet
from fanfold.estimators.linear.image import WhiteLMMSE, back_projection
from fanfold.estimators.sparse import OMP
from fanfold.evaluation.evaluate import Estimator
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.penalties import L1
from fanfold.priors import BernoulliGaussian
from fanfold.problems import RFImaging
from fanfold.problems.draws import draw
from fanfold.problems.rf.imaging import Sensing
from fanfold.training.fit import fit
from fanfold.training.settings import TrainingOptions
from fanfold.unfolding.unfold import Unfolded, iterate, unfold

WRONG = BernoulliGaussian(0.3)  # the guess that every training starts from; the truth is 0.1
LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")
EP_LEARNED = ("p", "var", "noise_scale", "damping", "widest")
LAYERS, LONG = 12, 300
BACK_PROJECTION, LINEAR, PURSUIT = "back-projection", "LMMSE", "OMP, stops at the noise"
LONG_FISTA, LONG_ADMM = (f"{name}, {LONG} iterations, best λ" for name in ("FISTA", "ADMM"))
PLAIN, DAMPED, ADAPTED = (f"OAMP, told all, {how}" for how in ("as published", "best damping", "damping itself"))
UNFOLDED_FISTA, UNFOLDED, UNFOLDED_EP = (f"unfolded {name}, {LAYERS} layers" for name in ("FISTA", "OAMP", "EP"))
INFORMED_EP, UNET, EVOLUTION = f"EP, told all, {LAYERS} iterations", "U-Net on the LMMSE image", "state evolution"
SOLVED = 12  # scenes that EP gets through three factors: m is 1728, and an inverse takes half a second
DAMPINGS, SPREADS = (1.0, 0.85, 0.7, 0.5), (1e-6, 0.03, 1.0)


def problem(sensing: Sensing, seed: int) -> RFImaging:
    """Points at 30 dB, one voxel in ten."""
    if sensing == "fourier":
        return RFImaging("fourier", (16, 16, 16), (12, 12, 12), seed=seed)
    return RFImaging(sensing, seed=seed)


def linear_images(on: RFImaging) -> dict[str, Estimator]:
    """Without any iteration."""
    assert on.prior is not None
    return {BACK_PROJECTION: back_projection, LINEAR: WhiteLMMSE(on.prior.power)}


def best_damped(on: RFImaging, iterations: int, seed: int) -> OAMP:
    """OAMP that is told prior and noise, with the damping and spread of a grid that do best on 100 draws."""
    assert on.prior is not None
    x, obs = draw(on, 100, seed, Stream.TUNING, 0)
    grid = [OAMP(on.prior, damping=d, spread=s) for d, s in itertools.product(DAMPINGS, SPREADS)]

    def error(oamp: OAMP) -> float:
        value = nmse_db(iterate(oamp, iterations)(obs).x, x)
        return value if value == value else float("inf")

    return min(grid, key=error)


def trained(net: Unfolded, on: RFImaging, lr: float, steps: int, batch: int, seed: int, watch: Watcher) -> Unfolded:
    """The network after so many steps."""
    name = f"{type(net.algorithm).__name__}, {on.sensing}"
    with torch.enable_grad():
        return fit(
            net,
            on,
            steps=steps,
            batch=batch,
            lr=lr,
            loss_layers=2,
            validation_samples=100,
            seed=seed,
            on_event=watch(name),
        )


def trained_peers(on: RFImaging, steps: int, seed: int, watch: Watcher) -> dict[str, Estimator]:
    """What else one would run: OMP, tuned FISTA, ADMM and OAMP, unfolded FISTA and a U-Net."""
    assert on.prior is not None
    lams, learn = lam_grid(on, seed, points=10), dict.fromkeys(("step", "threshold", "momentum"), "per-layer")
    fista = unfold(tuned(FISTA, lams, on, LAYERS, seed), on, LAYERS, learn)
    unet = BackProjectionUNet.of(on, seed=seed)
    with torch.enable_grad():
        fit(unet, on, steps=steps, batch=16, lr=2e-3, validation_samples=100, seed=seed, on_event=watch(UNET))
    admm = tuned(lambda lam: ADMM(L1(lam), rho=0.03), lams[-4:], on, LONG, seed)  # with rho = 1 it is still on its way
    return {
        PURSUIT: OMP(),
        LONG_FISTA: iterate(tuned(FISTA, lams, on, LONG, seed), LONG),
        LONG_ADMM: iterate(admm, LONG),
        DAMPED: iterate(best_damped(on, 30, seed), 30),
        ADAPTED: iterate(OAMP(on.prior, adapt=True), 30),
        UNFOLDED_FISTA: trained(fista, on, 4e-3, steps, 32, seed, watch),
        UNET: unet,
    }


def unfolded_ep(on: RFImaging, steps: int, seed: int, watch: Watcher) -> Unfolded:
    """EP from a wrong prior and an unknown noise variance; its numbers are learned on an array of half the size.

    An inverse there costs an eighth or less for each axis. Scenes that fail are rare and large, so the loss is that of
    each scene in dB.
    """
    small = on.shifted(scene=[n // 2 for n in on.scene], elements=[m // 2 for m in on.elements])
    ep = EP(WRONG, noise="estimated", damping=0.95, improper="forget")
    net = unfold(ep, small, LAYERS, dict.fromkeys(EP_LEARNED, "per-layer"))
    with torch.enable_grad():
        how: TrainingOptions = {"lr": 3e-3, "nmse_over": "sample", "loss_layers": 4, "validation_samples": 60}
        fit(net, small, steps=steps, batch=32, seed=seed, on_event=watch(f"EP, {on.sensing}"), **how)
    return net.moved_to(on)
