"""End-to-end estimators: the best linear one, learned from data, plus a network that starts at zero.

Squared error makes it the posterior mean, no more and no less; see `heads` for what other losses give. An ensemble is
the mean of networks that differ in their start (Lakshminarayanan, Pritzel & Blundell, 2017, section 2.4).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.posterior.ensemble import Ensemble
from fanfold.estimators.posterior.features import Features, fit_linear, linear_features, rows_to_fit
from fanfold.estimators.posterior.focused import Focused, numbers_of_one, observation_of
from fanfold.estimators.posterior.heads import Head, Loss, LossName, QuantileHead, head_for
from fanfold.estimators.posterior.plan import Plan
from fanfold.measurements import Measurements, takes_measurements
from fanfold.networks import DeepSet, PooledCNN, ResidualMLP
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems.base import Problem
from fanfold.problems.protocols import kind_of, limits_of

SIZES = frozenset(field.name for field in fields(Plan))
NetworkFactory = Callable[[tuple[int, ...], int, int], nn.Module]  # shape of the features, outputs, seed


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
    levels: tuple[float, ...] = (0.05, 0.5, 0.95)  # Levels of the quantiles, for pinball.
    width: int | None = None  # Width of the network; a sensible one if not given.
    network_seed: int = 0  # Seed of the starting weights.
    network: NetworkFactory | None = None  # In Python: what makes another network than the usual one.
    folds: int | None = None  # Folds, each left out by a network of each kind; as many as the draws allow.
    depth: int | None = None  # Layers of the cross-validated networks; as many as the draws allow.
    dropout: float | None = None  # Share of entries that a training step leaves out of them; as the draws want it.
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
    levels: Sequence[float] = (0.05, 0.5, 0.95),
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
        ValueError: If a setting is unknown or the problem's draws do not fit it.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> ff.neural(problem, "gaussian").origin[0]
        'best linear estimator'
    """
    numbers = None if observed is None else numbers_of_one(observed, problem)
    settings = NeuralSettings(loss, members, tuple(levels), width, seed, network, observed=numbers, rounds=rounds)
    return _built(settings, problem)


def _built(settings: NeuralSettings, problem: Problem) -> "Neural | Ensemble | Focused":
    x, obs = problem.sample(2, torch.Generator().manual_seed(0))
    features, loss, members = Features(obs, kind_of(problem)), settings.loss, settings.members
    if members is not None and members < 1:
        raise ValueError(f"members is {members}; pass at least 1.")
    if settings.observed is None and settings.rounds is not None:
        raise ValueError(f"rounds is {settings.rounds} without an observation to come nearer to; pass observed=y.")
    if members is None and settings.network is None and (loss == "squared-error" or loss == "gaussian"):
        said = {name: size for name, size in vars(settings).items() if name in SIZES and size is not None}
        limits = limits_of(problem, x)

        def ensemble(features: Features) -> Ensemble:
            net = Ensemble(features, x, limits, said, loss, settings.network_seed)
            net.described = lambda plan: replace(settings, **vars(plan))
            return net

        if settings.observed is None:
            return ensemble(features)
        observation = observation_of(settings.observed, x, obs)
        rounds = 3 if settings.rounds is None else settings.rounds
        of_y = Observation(obs.y)  # without the noise variance, which is the same in all draws
        return Focused(lambda: ensemble(Features(of_y, features.kind)), observation, limits, rounds)
    if settings.observed is not None:
        raise ValueError(
            "observed needs the default estimator: leave members and network out, and take squared-error or gaussian."
        )
    net: Neural
    parts = {"members": members or 1, "width": settings.width, "network": settings.network}
    if loss == "cross-entropy":
        _check_one_hot(x)
        net = ClassPosterior(features, x, seed=settings.network_seed, **parts)
    else:
        head = head_for(loss, settings.levels)
        net = Regression(features, x, head, seed=settings.network_seed, **parts)
    net.settings = settings
    return net


def _check_one_hot(x: Tensor) -> None:
    if x.is_complex() or not (((x == 0) | (x == 1)).all() and (x.sum(-1) == 1).all()):
        raise ValueError("cross-entropy takes a discrete parameter as one-hot x, (batch, classes) with a single 1.")


class Neural(nn.Module):
    """What regression and classification share: features, members, and the defaults of their training.

    Made by `neural`. Not scale-equivariant: features are standardised by what the training data were.

    Example:
        >>> import fanfold as ff
        >>> isinstance(ff.neural(ff.problems.LinearGaussian(), members=2), ff.estimators.Neural)
        True
    """

    scale_equivariant: ClassVar[bool] = False
    training_defaults: ClassVar[dict[str, Any]] = {
        "steps": 1900,
        "batch": 512,
        "lr": 4e-3,
        "validate_every": 200,
        "validation_samples": 10_000,
    }
    settings: NeuralSettings | None = None  # that build it again; `neural` sets them

    def __init__(
        self,
        features: Features,
        outputs: int,
        *,
        members: int,
        width: int | None,
        network: NetworkFactory | None,
        seed: int,
    ):
        super().__init__()
        self.features = features
        make = network or _default_network(features, width)
        # seeds of members stay apart from those of the parts of one
        self.members = nn.ModuleList(make(features.shape, outputs, seed + 1000 * i) for i in range(members))
        self.to(features.mean.dtype)

    def raw(self, z: Tensor) -> Tensor:
        """What each member says, `(members, batch, outputs)`."""
        seen = self.features.seen(z)
        return torch.stack([member(seen) for member in self.members])


class Regression(Neural):
    """Numbers: `x = linear(y) + scale * network(y)`, with the scale of the linear estimator's error; made by `neural`.

    Attributes:
        strength: In [0, 1], scales what the network says: 0 is the best linear estimator.
    """

    linear: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, features: Features, x: Tensor, head: Head, **network: Any):
        self.complex = x.is_complex()
        d = x.shape[-1] * (2 if self.complex else 1)
        super().__init__(features, head.size * d, **network)
        self.head, self.strength = head, 1.0
        count = linear_features(features)
        for name, start in (("linear", torch.zeros(d, count)), ("centre", torch.zeros(d)), ("scale", torch.ones(d))):
            self.register_buffer(name, start.to(features.mean.dtype))

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The best linear estimator, which training started from."""
        return "best linear estimator", self.linear_part

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data and fit the linear estimator, in double precision; training calls it once."""
        rows = rows_to_fit(self.linear.shape[-1])
        x, obs = x[:rows], obs[:rows]
        self.features.prepare(obs)
        z = self.features(obs).flatten(1).double() if self.linear.shape[-1] else None
        fit = fit_linear(z, self._real(x).double())
        self.linear.copy_(fit.W)
        self.centre.copy_(fit.centre)
        self.scale.copy_(fit.var.sqrt())

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean over the members `(..., n)`; the variance, where a member has one, is that of their mixture."""
        leading = self.features.leading(obs)
        z = self.features(obs)
        means, variances = self.head.estimate(self._split(self.strength * self.raw(z)))
        x = self._base(z) + self.scale * means.mean(0)
        if variances is None:
            return Estimate(self._signal(x, leading))
        var = variances.mean(0) + means.var(0, correction=0)
        return Estimate(self._signal(x, leading), self._variance(self.scale.square() * var, leading))

    def linear_part(self, obs: Observation) -> Estimate:
        """The best linear estimator that training started from, with the variance of its error."""
        leading = self.features.leading(obs)
        x = self._base(self.features(obs))
        return Estimate(self._signal(x, leading), self._variance(self.scale.square().expand(x.shape), leading))

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of each sample, mean over the members, `(batch,)`."""
        z = self.features(obs)
        target = (self._real(x) - self._base(z)) / self.scale
        return self.head.losses(self._split(self.raw(z)), target.expand(len(self.members), *target.shape)).mean(0)

    def held_out_losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of what the members say together, `(batch,)`: what decides which weights are the best."""
        z = self.features(obs)
        return self.head.held_out(self._split(self.raw(z)), (self._real(x) - self._base(z)) / self.scale)

    def quantiles(self, obs: Observation) -> Tensor:
        """The quantiles of a network with the "pinball" loss, `(..., levels, n)`, in rising order.

        Raises:
            ValueError: If the network has another loss or x is complex, which has no order.
        """
        if not isinstance(self.head, QuantileHead) or self.complex:
            raise ValueError("quantiles need a network with loss='pinball' on real parameters.")
        leading, z = self.features.leading(obs), self.features(obs)
        deviation = self.head.quantiles(self._split(self.strength * self.raw(z))).mean(0)
        q = self._base(z).unsqueeze(-2) + self.scale * deviation
        return q.reshape(*leading, *q.shape[-2:])

    def _base(self, z: Tensor) -> Tensor:
        return self.centre + z.flatten(1) @ self.linear.mT if self.linear.shape[-1] else self.centre.expand(len(z), -1)

    def _split(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-1, (self.head.size, -1))

    def _real(self, x: Tensor) -> Tensor:
        return torch.cat([x.real, x.imag], -1) if self.complex else x

    def _signal(self, x: Tensor, leading: tuple[int, ...]) -> Tensor:
        x = torch.complex(*x.chunk(2, -1)) if self.complex else x
        return x.reshape(*leading, x.shape[-1])

    def _variance(self, var: Tensor, leading: tuple[int, ...]) -> Tensor:
        if self.complex:
            of_real, of_imaginary = var.chunk(2, -1)
            var = of_real + of_imaginary
        return var.reshape(*leading, var.shape[-1])


class ClassPosterior(Neural):
    """A discrete parameter: probabilities of its classes, `x_hat = P(class | y)`, the posterior mean of one-hot x."""

    log_share: Tensor

    def __init__(self, features: Features, x: Tensor, **network: Any):
        super().__init__(features, x.shape[-1], **network)
        self.register_buffer("log_share", features.mean.new_zeros(x.shape[-1]))

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data, and start from the classes' frequencies, each counted once more than seen."""
        _check_one_hot(x)
        self.features.prepare(obs)
        self.log_share.copy_(torch.log((x.double().sum(0) + 1) / (len(x) + x.shape[-1])))

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Probabilities `(..., classes)`, the mean of the members', and the variance `p (1 - p)` of the one-hot x."""
        leading = self.features.leading(obs)
        p = torch.softmax(self.log_share + self.raw(self.features(obs)), -1).mean(0)
        p = p.reshape(*leading, p.shape[-1])
        return Estimate(p, p * (1 - p))

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Minus the log probability of the true class, in nats, mean over the members, `(batch,)`."""
        log_p = torch.log_softmax(self.log_share + self.raw(self.features(obs)), -1)
        return -(x * log_p).sum(-1).mean(0)

    def held_out_losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Minus the log of the members' mean probability of the true class, `(batch,)`."""
        log_p = torch.log_softmax(self.log_share + self.raw(self.features(obs)), -1)
        return math.log(len(self.members)) - torch.logsumexp((x * log_p).sum(-1), 0)


def _default_network(features: Features, width: int | None) -> NetworkFactory:
    sized = {} if width is None else {"width": width}
    if features.kind == "vector":
        return lambda shape, outputs, seed: ResidualMLP(shape[0], outputs, seed=seed, **sized)
    if features.kind == "set":
        return lambda shape, outputs, seed: DeepSet(shape[-1], outputs, seed=seed, **sized)
    return lambda shape, outputs, seed: PooledCNN(shape, outputs, seed=seed, **sized)
