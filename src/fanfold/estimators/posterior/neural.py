"""End-to-end estimators for any problem that can be drawn from, and what builds them again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.posterior.ensemble import Ensemble
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.focused import Focused, numbers_of_one, observation_of
from fanfold.estimators.posterior.heads import Loss, LossName, head_for
from fanfold.estimators.posterior.lone import ClassPosterior, NetworkFactory, Neural, Regression, check_one_hot
from fanfold.estimators.posterior.plan import Plan
from fanfold.estimators.posterior.scales import Limits
from fanfold.measurements import Measurements
from fanfold.observation import Observation
from fanfold.problems.base import Problem
from fanfold.problems.kinds import Kind
from fanfold.problems.protocols import kind_of, limits_of

SIZES = frozenset(field.name for field in fields(Plan))
LEVELS = (0.05, 0.5, 0.95)  # of quantiles, where none are given


@dataclass(frozen=True)
class NeuralSettings(Checked):
    """A network that learns from draws alone: the posterior mean, median, quantiles, mean and variance, or a class.

    Example:
        >>> import fanfold as ff
        >>> net = ff.estimators.NeuralSettings("gaussian", members=2).build(ff.problems.LinearGaussian(n=2, m=3))
        >>> len(net.members)
        2
    """

    loss: LossName | Loss = "squared-error"  # For the mean, median, quantiles, mean and variance, or class.
    members: int | None = None  # Networks that are averaged; cross-validated and weighed ones if not given.
    levels: tuple[float, ...] = LEVELS  # Levels of the quantiles, for pinball.
    width: int | None = None  # Width of the network; a sensible one if not given.
    network_seed: int = 0  # Seed of the starting weights.
    network: NetworkFactory | None = None  # In Python: what makes another network than the usual one.
    folds: int | None = None  # Folds, each left out by a network of each kind; as many as the draws allow.
    depth: int | None = None  # Layers of the cross-validated networks; as many as the draws allow.
    dropout: float | None = None  # Share of entries that a training step leaves out of them; as the draws want it.
    students: int | None = None  # Networks that a learned model of y given x teaches; as the draws want it.
    family: bool | None = None  # Whether an exponential family of vectors is fitted, and taken where they are one.
    mirrored: bool | None = None  # Whether images of draws teach too, where they look alike; of few vectors.
    observed: tuple[float, ...] | None = None  # In Python: the one observation that rounds of simulations are for.
    rounds: int | None = None  # In Python: how many of them; three.

    def build(self, problem: Problem) -> "Neural | Ensemble | Focused":
        """The untrained estimator."""
        return _built(self, problem)


@checks_arguments
def neural(
    problem: Problem,
    loss: LossName | Loss = "squared-error",
    *,
    members: int | None = None,
    levels: Sequence[float] = LEVELS,
    width: int | None = None,
    network: NetworkFactory | None = None,
    seed: int = 0,
    observed: Measurements | None = None,
    rounds: int | None = None,
) -> "Neural | Ensemble | Focused":
    """An untrained estimator for any problem that can be drawn from; `fit` trains it.

    Where no more is said than the loss, "squared-error" or "gaussian", it is an `Ensemble`: sizes and training follow
    the number of draws, and errors on draws left out decide between closed forms and networks.

    Args:
        problem: Two draws tell the shapes; its `kind` ("vector" if it has none) chooses the network: a residual
            perceptron, a 1-D or 2-D CNN, or a set network. Limits of its parameters bound the estimates.
        loss: "squared-error" (posterior mean), "absolute" (median), "pinball" (quantiles), "gaussian" (mean and
            variance), "cross-entropy" (class posterior, x one-hot), or a function of x_hat and x `(batch, d)` that
            gives `(batch,)`, in units of the linear estimator's error.
        members: Networks whose estimates are averaged, all trained on the same draws; None for an `Ensemble` where the
            loss allows it, else one.
        levels: Levels of the quantiles, for "pinball".
        width: Width of the network; a sensible one if None.
        network: Makes another network from the shape of the features, the number of outputs and a seed; what it
            returns is added to the linear estimate and should start near zero.
        seed: Seed of the starting weights.
        observed: One observation, of the shape of one sample: simulations then come in rounds, each nearer to what can
            have given it. None for an estimator of any observation.
        rounds: The number of rounds; three if None.

    Raises:
        ValueError: If a setting is unknown, or the problem's draws or other settings do not fit it.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> ff.neural(problem, "gaussian").origin[0]
        'best linear estimator'
    """
    numbers = None if observed is None else numbers_of_one(observed, problem)
    settings = NeuralSettings(loss, members, tuple(levels), width, seed, network, observed=numbers, rounds=rounds)
    return _built(settings, problem)


def _sized(settings: NeuralSettings, plan: Plan) -> NeuralSettings:
    """The settings with the sizes that an ensemble has taken."""
    return replace(settings, **vars(plan))


def _ensemble(settings: NeuralSettings, kind: Kind, x: Tensor, limits: Limits, obs: Observation) -> Ensemble:
    assert settings.loss == "squared-error" or settings.loss == "gaussian"
    sizes = {name: size for name, size in vars(settings).items() if name in SIZES and size is not None}
    for name in ("depth", "dropout", "family", "mirrored"):
        if kind != "vector" and sizes.get(name, vars(Plan())[name]) != vars(Plan())[name]:
            raise ValueError(
                f"{name} is {sizes[name]}, of networks of vectors, and y is of kind {kind!r}; leave it out."
            )
    net = Ensemble(Features(obs, kind, adaptive=True), x, limits, sizes, settings.loss, settings.network_seed)
    net.described = partial(_sized, settings)
    return net


def _built(settings: NeuralSettings, problem: Problem) -> "Neural | Ensemble | Focused":
    x, obs = problem.sample(2, torch.Generator().manual_seed(0))
    kind, loss, members = kind_of(problem), settings.loss, settings.members
    if settings.levels != LEVELS and loss != "pinball":
        raise ValueError(f"levels are {settings.levels}, of quantiles, and the loss is {loss!r}; take loss='pinball'.")
    if members is not None and members < 1:
        raise ValueError(f"members is {members}; pass at least 1.")
    if settings.observed is None and settings.rounds is not None:
        raise ValueError(f"rounds is {settings.rounds} without an observation to come nearer to; pass observed=y.")
    if members is None and settings.network is None and (loss == "squared-error" or loss == "gaussian"):
        limits = limits_of(problem, x)
        make = partial(_ensemble, settings, kind, x, limits)
        if settings.observed is None:
            return make(obs)
        observation = observation_of(settings.observed, x, obs)
        rounds = 3 if settings.rounds is None else settings.rounds
        of_y = Observation(obs.y)  # without the noise variance, which is the same in all draws
        return Focused(partial(make, of_y), observation, limits, rounds)
    if settings.observed is not None:
        raise ValueError(
            "observed needs the default estimator: leave members and network out, and take squared-error or gaussian."
        )
    net: Neural
    features = Features(obs, kind)
    parts = {"members": members or 1, "width": settings.width, "network": settings.network}
    if loss == "cross-entropy":
        check_one_hot(x)
        net = ClassPosterior(features, x, seed=settings.network_seed, **parts)
    else:
        head = head_for(loss, settings.levels)
        net = Regression(features, x, head, seed=settings.network_seed, **parts)
    net.settings = settings
    return net
