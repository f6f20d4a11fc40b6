"""Three worlds, and in each what a model-based, an end-to-end and an unfolded estimator learn from so many pairs.

What is fixed here was chosen with seed 1; the study reports others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.bounds import bayes_limit, state_evolution
from fanfold.core.units import db, nmse_db
from fanfold.estimators import BackProjectionUNet, neural
from fanfold.estimators.ofdm import (
    ADMMSettings,
    ChannelCovariance,
    CNNSettings,
    Interpolation,
    KroneckerGMM,
    Mixture,
    Wiener,
)
from fanfold.evaluation.peers import lam_grid, tuned
from fanfold.experiments.comparison.supply import GUESS, Size, Supply, covariance_of, prior_of_signals, trained
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Estimator, Observation
from fanfold.problems import CompressedSensing, OFDMChannel, Problem, RFImaging
from fanfold.propagation.models import Kronecker
from fanfold.training.settings import TrainingOptions
from fanfold.unfolding.unfold import iterate, unfold

Family = Literal["model-based", "end-to-end", "unfolding"]
FAMILIES: tuple[Family, ...] = ("model-based", "end-to-end", "unfolding")
LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")
LONG = 300  # iterations of FISTA
ANTENNAS, SUBCARRIERS = (2, 4, 4), 24
PLACES = [(angle, delay) for angle in (5, 40) for delay in (50, 800)]  # degrees and nanoseconds
AXES = f"array={'x'.join(map(str, ANTENNAS))},subcarriers={SUBCARRIERS}"
MIXED = " + ".join(f"kronecker:angle_spread_deg={angle},delay_spread_ns={ns},{AXES}" for angle, ns in PLACES)


Learn = Callable[[Supply], Estimator]


@dataclass(frozen=True)
class Contender:
    """One estimator of a family in a world, and how it learns.

    Example:
        >>> from fanfold.experiments.comparison.worlds import FAMILIES, Size, sparse_world
        >>> [contender.family for contender in sparse_world(Size.quick(), 0, lambda title: print).contenders]
        ['model-based', 'end-to-end', 'unfolding']
    """

    family: Family
    name: str
    steps: str  # what a call does: iterations, one pass, layers
    learn: Learn
    statistics: int = 0  # numbers that are taken of pairs in closed form, each a quantity that the model names
    training: TrainingOptions | None = None  # how its network is trained
    least: int = 1  # pairs that it learns from at all


@dataclass(frozen=True)
class Arena:
    """A problem with its limit, a conservative baseline and one estimator of each family.

    Example:
        >>> from fanfold.experiments.comparison.worlds import sparse_world
        >>> world = sparse_world(Size.quick(), 0, lambda title: print)
        >>> world.limit_of(*world.problem.sample(2, torch.Generator())) < -30
        True
    """

    name: str
    about: str
    problem: Problem
    baseline: str
    conservative: Estimator  # what risks under shifts are relative to; it learns next to nothing
    limit: str  # what the limit is
    limit_of: Callable[[Tensor, Observation], float]  # in dB, of these draws
    contenders: tuple[Contender, ...]
    wider: str  # the study that measures this world at full size
    slow: bool = False  # whether fewer draws have to do


def sparse_world(size: Size, seed: int, watch: Watcher) -> Arena:
    """Sparse recovery, 100 measurements of 200 unknowns at 30 dB, one in ten not zero."""
    on = CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=30.0, seed=seed)
    fista = tuned(FISTA, lam_grid(on, seed, points=8), on, LONG, seed)
    limit = bayes_limit(on)
    assert limit is not None
    training: TrainingOptions = {"steps": size.sparse_steps, "lr": 1e-2, "loss_layers": 2}
    perceptron: TrainingOptions = {"steps": size.perceptron_steps}

    def iterated(supply: Supply) -> Estimator:
        return iterate(OAMP(prior_of_signals(supply)), 20)

    def unfolded(supply: Supply) -> Estimator:
        net = unfold(OAMP(GUESS, noise="estimated"), on, 10, dict.fromkeys(LEARNED, "per-layer"))
        return trained(net, supply, "unfolded OAMP", watch, training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(neural(on, members=1, width=256, seed=seed), supply, "perceptron", watch, perceptron)

    return Arena(
        "sparse recovery",
        "100 × 200 iid matrix, Bernoulli-Gaussian signals with p = 0.1, 30 dB",
        on,
        f"FISTA, {LONG} iterations, best λ",
        iterate(fista, LONG),
        "state evolution",
        lambda x, obs: db(limit),
        (
            Contender("model-based", "OAMP, prior counted", "20 iterations", iterated, 2),
            Contender("end-to-end", "residual perceptron", "one pass", end_to_end, training=perceptron, least=300),
            Contender("unfolding", "unfolded OAMP", "10 layers", unfolded, training=training),
        ),
        "sparse-limit",
    )


def channel_world(size: Size, seed: int, watch: Watcher) -> Arena:
    """OFDM channels of four kinds of place in equal parts, 32 antennas, a pilot on every fourth of 24 subcarriers."""
    on = OFDMChannel(MIXED, "comb-4", snr_db=10.0)
    exact = KroneckerGMM.of(on, mixture_of_places(), known_power=True)
    training: TrainingOptions = {"steps": size.channel_steps, "batch": 32, "lr": 5e-3}
    convolutional: TrainingOptions = {"steps": size.channel_steps, "batch": 32}

    def lmmse(supply: Supply) -> Estimator:
        robust = ChannelCovariance.robust(on.layout)
        return Wiener.of(on, robust if supply.count == 0 else covariance_of(supply.signals(), on.layout.antennas))

    def unfolded(supply: Supply) -> Estimator:
        net = ADMMSettings(network_seed=seed, beams=64, modes=6).build(on)
        return trained(net, supply, "unfolded ADMM", watch, training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(CNNSettings(network_seed=seed).build(on), supply, "grid CNN", watch, convolutional)

    return Arena(
        "channel estimation",
        "32 antennas, 24 subcarriers, four kinds of place (angle spread 5° or 40°, delay spread 50 or 800 ns), 10 dB",
        on,
        "least squares, linear",
        Interpolation.of(on),
        "exact posterior mean, told the four places",
        lambda x, obs: nmse_db(exact(obs).x, x),
        (
            Contender("model-based", "LMMSE, covariance estimated", "one filter", lmmse, 32**2 + SUBCARRIERS**2),
            Contender("end-to-end", "grid CNN", "one pass", end_to_end, training=convolutional),
            Contender("unfolding", "unfolded ADMM", "6 layers", unfolded, training=training),
        ),
        "channel-estimation",
    )


def scene_world(size: Size, seed: int, watch: Watcher) -> Arena:
    """RF imaging, 12 × 12 voxels through 10 × 10 Gaussian measurements at 30 dB, one voxel in ten a point."""
    on = RFImaging("gaussian", (12, 12), (10, 10), seed=seed)
    fista = tuned(FISTA, lam_grid(on, seed, points=8), on, LONG, seed)
    prior = on.prior
    assert prior is not None
    evolution = state_evolution.vamp(prior, on.A.svd().s, on.A.n, on.noise_var, 50, is_complex=True)[-1]
    training: TrainingOptions = {
        "steps": size.scene_steps,
        "batch": 32,
        "lr": 1e-2,
        "loss_layers": 2,
        "nmse_over": "sample",
    }
    picture: TrainingOptions = {"steps": size.scene_steps, "batch": 16, "lr": 2e-3}

    def propagated(supply: Supply) -> Estimator:
        return iterate(EP(prior_of_signals(supply), damping=0.95, improper="forget"), 12)

    def unfolded(supply: Supply) -> Estimator:
        oamp = OAMP(GUESS, noise="estimated", adapt=True)
        return trained(unfold(oamp, on, 12, dict.fromkeys(LEARNED, "per-layer")), supply, "unfolded", watch, training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(BackProjectionUNet.of(on, width=16, seed=seed), supply, "U-Net", watch, picture)

    return Arena(
        "RF imaging",
        "Kron(Gauss), 12 × 12 voxels through 10 × 10 measurements, points with p = 0.1, 30 dB",
        on,
        f"FISTA, {LONG} iterations, best λ",
        iterate(fista, LONG),
        "state evolution",
        lambda x, obs: db(evolution / prior.power),
        (
            Contender("model-based", "EP, prior counted", "12 iterations", propagated, 2),
            Contender("end-to-end", "U-Net on the LMMSE image", "one pass", end_to_end, training=picture),
            Contender("unfolding", "unfolded OAMP", "12 layers", unfolded, training=training),
        ),
        "rf-imaging",
        slow=True,
    )


WORLDS: tuple[Callable[[Size, int, Watcher], Arena], ...] = (sparse_world, channel_world, scene_world)


def mixture_of_places() -> Mixture:
    """The law that the channels are drawn from: a Gaussian with Kronecker covariance for each kind of place."""
    space, grid = [], []
    for angle, ns in PLACES:
        place = Kronecker(ANTENNAS, subcarriers=SUBCARRIERS, angle_spread_deg=angle, delay_spread_ns=ns)
        *over_space, _, over_grid = place.correlations()
        space.append(reduce(torch.kron, over_space))
        grid.append(over_grid)
    weights = torch.full((len(space),), 1 / len(space))
    return Mixture(weights, torch.stack(space), torch.stack(grid), torch.eye(SUBCARRIERS, dtype=torch.complex128))
