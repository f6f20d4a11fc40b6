"""Three worlds, and in each what a model-based, an end-to-end and an unfolded estimator learn from so many pairs.

What is fixed here was chosen with seed 1; the study reports others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.bounds import bayes_limit, state_evolution
from fanfold.core.settings import Checked
from fanfold.core.streams import Stream
from fanfold.core.units import db, nmse_db, power
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
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Estimator, Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, OFDMChannel, Pairs, Problem, RFImaging
from fanfold.problems.draws import draw
from fanfold.propagation import source_of
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate, unfold

Family = Literal["model-based", "end-to-end", "unfolding"]
FAMILIES: tuple[Family, ...] = ("model-based", "end-to-end", "unfolding")
GUESS = BernoulliGaussian(0.3)  # of those who have seen nothing; the truth is 0.1
LEARNED = ("p", "var", "noise_scale", "v_linear", "v_denoised", "spread", "damping")
LONG = 300  # iterations of FISTA
MOST = 1000  # pairs that a supply counts
FRESH = 5000  # draws that statistics are taken of where pairs are without limit
ANTENNAS, SUBCARRIERS = (2, 4, 4), 24
PLACES = [(angle, delay) for angle in (5, 40) for delay in (50, 800)]  # degrees and nanoseconds
AXES = f"array={'x'.join(map(str, ANTENNAS))},subcarriers={SUBCARRIERS}"
MIXED = " + ".join(f"kronecker:angle_spread_deg={angle},delay_spread_ns={ns},{AXES}" for angle, ns in PLACES)


@dataclass(frozen=True)
class Supply:
    """What an estimator may learn from: so many pairs, none if 0, or fresh draws without end if None.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.experiments.comparison.worlds import Supply
        >>> few = Supply(ff.problems.CompressedSensing(n=40, m=20), count=10, seed=0)
        >>> len(few.signals()), len(few.problem.rows())  # a fifth is for validation
        (10, 8)
    """

    on: Problem
    count: int | None
    seed: int

    def pairs(self) -> tuple[Tensor, Observation]:
        """The pairs; those of a smaller supply of this seed are among those of a larger one's."""
        x, obs = draw(self.on, MOST, self.seed, Stream.TUNING, 20)
        return x[: self.count], obs[: self.count]

    def signals(self) -> Tensor:
        """What statistics are taken of, `(pairs, n)`."""
        return draw(self.on, FRESH, self.seed, Stream.TUNING, 21)[0] if self.count is None else self.pairs()[0]

    @property
    def problem(self) -> Problem:
        """What networks train on; the last fifth of stored pairs chooses the weights."""
        if self.count is None:
            return self.on
        x, obs = self.pairs()
        return Pairs(x=x, y=obs.y, A=obs.A, noise_var=obs.noise_var)


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
    training: Mapping[str, Any] | None = None  # how its network is trained


@dataclass(frozen=True)
class World:
    """A problem with its limit, a conservative baseline and one estimator of each family.

    Example:
        >>> from fanfold.experiments.comparison.worlds import Size, sparse_world
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


@dataclass(frozen=True)
class Size(Checked):
    """How much is drawn, trained and timed.

    Example:
        >>> from fanfold.experiments.comparison.worlds import Size
        >>> Size.quick().tests < Size.full().tests
        True
    """

    counts: tuple[int, ...]  # pairs of the learning curves, beside fresh draws
    few: tuple[int, ...]  # the same, that networks are not trained with
    sparse_steps: int
    perceptron_steps: int
    channel_steps: int
    scene_steps: int
    tests: int  # draws of an error
    slow_tests: int  # the same, of what is slow: scenes
    calibration: int  # draws that conformal intervals are calibrated on
    shifted: int  # draws of a shift
    shifts: int | None  # every so many of the shifts; all if None
    calls: int  # that are timed
    backends: tuple[str, ...]  # the first of these that an estimator runs in

    @classmethod
    def quick(cls) -> "Size":
        """What runs in seconds."""
        return cls((0, 30, 300), (10,), 40, 40, 40, 30, 400, 60, 200, 30, 7, 10, ("eager",))

    @classmethod
    def full(cls) -> "Size":
        """What runs in minutes."""
        few = (1, 3, 10)
        return cls((0, 30, 100, 300, 1000), few, 150, 300, 250, 150, 2000, 300, 1000, 100, None, 300, ("c", "eager"))


def sparse_world(size: Size, seed: int, watch: Watcher) -> World:
    """Sparse recovery, 100 measurements of 200 unknowns at 30 dB, one in ten not zero."""
    on = CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=30.0, seed=seed)
    fista = tuned(FISTA, lam_grid(on, seed, points=8), on, LONG, seed)
    limit = bayes_limit(on)
    assert limit is not None
    training = {"steps": size.sparse_steps, "lr": 1e-2, "loss_layers": 2}
    perceptron = {"steps": size.perceptron_steps}

    def unfolded(supply: Supply) -> Estimator:
        net = unfold(OAMP(GUESS, noise="estimated"), on, 6, dict.fromkeys(LEARNED, "per-layer"))
        return trained(net, supply, "unfolded OAMP", watch, **training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(neural(on, members=1, width=256, seed=seed), supply, "perceptron", watch, **perceptron)

    return World(
        "sparse recovery",
        "100 × 200 iid matrix, Bernoulli-Gaussian signals with p = 0.1, 30 dB",
        on,
        f"FISTA, {LONG} iterations, best λ",
        iterate(fista, LONG),
        "state evolution",
        lambda x, obs: db(limit),
        (
            Contender("model-based", "OAMP, prior counted", "20 iterations", lambda s: iterate(OAMP(counted(s)), 20), 2),
            Contender("end-to-end", "residual perceptron", "one pass", end_to_end, training=perceptron),
            Contender("unfolding", "unfolded OAMP", "6 layers", unfolded, training=training),
        ),
        "sparse-limit",
    )


def channel_world(size: Size, seed: int, watch: Watcher) -> World:
    """OFDM channels of four kinds of place in equal parts, 32 antennas, a pilot on every fourth of 24 subcarriers."""
    on = OFDMChannel(MIXED, "comb-4", snr_db=10.0)
    exact = KroneckerGMM.of(on, mixture_of_places(), known_power=True)
    training = {"steps": size.channel_steps, "batch": 32, "lr": 5e-3}
    convolutional = {"steps": size.channel_steps, "batch": 32}

    def lmmse(supply: Supply) -> Estimator:
        robust = ChannelCovariance.robust(on.layout)
        return Wiener.of(on, robust if supply.count == 0 else covariance_of(supply.signals(), on.layout.antennas))

    def unfolded(supply: Supply) -> Estimator:
        net = ADMMSettings(network_seed=seed, beams=64, modes=6).build(on)
        return trained(net, supply, "unfolded ADMM", watch, **training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(CNNSettings(network_seed=seed).build(on), supply, "grid CNN", watch, **convolutional)

    return World(
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


def scene_world(size: Size, seed: int, watch: Watcher) -> World:
    """RF imaging, 12 × 12 voxels through 10 × 10 Gaussian measurements at 30 dB, one voxel in ten a point."""
    on = RFImaging("gaussian", (12, 12), (10, 10), seed=seed)
    fista = tuned(FISTA, lam_grid(on, seed, points=8), on, LONG, seed)
    prior = on.prior
    assert prior is not None
    evolution = state_evolution.vamp(prior, on.A.svd().s, on.A.n, on.noise_var, 50, is_complex=True)[-1]
    training = {"steps": size.scene_steps, "batch": 32, "lr": 1e-2, "loss_layers": 2, "nmse_over": "sample"}
    picture = {"steps": size.scene_steps, "batch": 16, "lr": 2e-3}

    def propagated(supply: Supply) -> Estimator:
        return iterate(EP(counted(supply), damping=0.95, improper="forget"), 12)

    def unfolded(supply: Supply) -> Estimator:
        oamp = OAMP(GUESS, noise="estimated", adapt=True)
        return trained(unfold(oamp, on, 12, dict.fromkeys(LEARNED, "per-layer")), supply, "unfolded", watch, **training)

    def end_to_end(supply: Supply) -> Estimator:
        return trained(BackProjectionUNet.of(on, width=16, seed=seed), supply, "U-Net", watch, **picture)

    return World(
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
    )


WORLDS: tuple[Callable[[Size, int, Watcher], World], ...] = (sparse_world, channel_world, scene_world)


def trained(net: nn.Module, supply: Supply, name: str, watch: Watcher, **options: Any) -> nn.Module:
    """The network after its training, or untrained where there are no pairs."""
    if supply.count == 0:
        return net
    count = "fresh draws" if supply.count is None else f"{supply.count} pairs"
    steps = options["steps"]
    how = {"validate_every": max(1, steps // 3), "validation_samples": 200, "threads": 1} | options
    with torch.enable_grad():
        return fit(net, supply.problem, seed=supply.seed, on_event=watch(f"{name}, {count}"), **how)


def counted(supply: Supply) -> BernoulliGaussian:
    """The prior whose share of non-zeros, and their mean power, are those of the signals; a guess without any."""
    if supply.count == 0:
        return GUESS
    size = power(supply.signals())
    points = size[size > 0]
    return BernoulliGaussian(max(1, len(points)) / size.numel(), points.mean().item() if len(points) else 1.0)


def covariance_of(h: Tensor, antennas: int) -> ChannelCovariance:
    """The covariance of channels `(pairs, n)`: the mean over grid and pairs, and over antennas and pairs."""
    h = h.unflatten(1, (antennas, -1)).to(torch.complex128)
    factors = (torch.einsum("nai,nbi->ab", h, h.conj()), torch.einsum("nai,naj->ij", h, h.conj()))
    return ChannelCovariance(*(factor * len(factor) / factor.trace() for factor in factors))


def mixture_of_places() -> Mixture:
    """The law that the channels are drawn from: a Gaussian with Kronecker covariance for each kind of place."""
    space, grid = [], []
    for name in MIXED.split(" + "):
        *over_space, _, over_grid = source_of(name).correlations()
        joined = over_space[0]
        for correlation in over_space[1:]:
            joined = torch.kron(joined, correlation)
        space.append(joined)
        grid.append(over_grid)
    weights = torch.full((len(space),), 1 / len(space))
    return Mixture(weights, torch.stack(space), torch.stack(grid), torch.eye(SUBCARRIERS, dtype=torch.complex128))
