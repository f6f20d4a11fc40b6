"""Lone end-to-end networks: the best linear estimator, learned from data, plus a network that starts at zero.

Squared error makes it the posterior mean, no more and no less; see `heads` for what other losses give. Several members
are the mean of networks that differ in their start (Lakshminarayanan, Pritzel & Blundell, 2017, section 2.4).
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fanfold.estimators.base import Settings
from fanfold.estimators.posterior.closed_forms import LinearForm
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.heads import Head, QuantileHead
from fanfold.estimators.posterior.real_parts import RealParts
from fanfold.measurements import takes_measurements
from fanfold.networks import DeepSet, PooledCNN, ResidualMLP
from fanfold.observation import Estimate, Estimator, Observation

NetworkFactory = Callable[[tuple[int, ...], int, int], nn.Module]  # shape of the features, outputs, seed


def check_one_hot(x: Tensor) -> None:
    """Refuse what is no discrete parameter.

    Raises:
        ValueError: If x `(batch, classes)` has anything else than a single 1 in each row.
    """
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
    settings: Settings | None = None  # that build it again; `neural` sets them

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

    scale: Tensor

    def __init__(self, features: Features, x: Tensor, head: Head, **network: Any):
        parts = RealParts(x.is_complex())
        d = parts.count(x)
        super().__init__(features, head.size * d, **network)
        self.real_parts = parts
        self.head, self.strength = head, 1.0
        self.linear = LinearForm(features, d).to(features.mean.dtype)
        self.register_buffer("scale", torch.ones(d, dtype=features.mean.dtype))

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The best linear estimator, which training started from."""
        return "best linear estimator", self.linear_part

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data and fit the linear estimator, in double precision; training calls it once."""
        rows = self.linear.rows
        x, obs = x[:rows], obs[:rows]
        self.features.prepare(obs)
        self.scale.copy_(self.linear.fit(self.features(obs), self.real_parts.real(x)).var.sqrt())

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean over the members `(..., n)`; the variance, where a member has one, is that of their mixture."""
        leading = self.features.leading(obs)
        z = self.features(obs)
        means, variances = self.head.estimate(self._split(self.strength * self.raw(z)))
        x = self.linear(z) + self.scale * means.mean(0)
        if variances is None:
            return Estimate(self.real_parts.signal(x, leading))
        var = variances.mean(0) + means.var(0, correction=0)
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.scale.square() * var, leading)
        )

    def said_by_members(self, obs: Observation) -> Tensor:
        """What each member says, real parameters `(members, batch, d)`."""
        z = self.features(obs)
        return self.linear(z) + self.scale * self.head.estimate(self._split(self.strength * self.raw(z)))[0]

    def linear_part(self, obs: Observation) -> Estimate:
        """The best linear estimator that training started from, with the variance of its error."""
        leading = self.features.leading(obs)
        x = self.linear(self.features(obs))
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.scale.square().expand(x.shape), leading)
        )

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of each sample, mean over the members, `(batch,)`."""
        z = self.features(obs)
        target = (self.real_parts.real(x) - self.linear(z)) / self.scale
        return self.head.losses(self._split(self.raw(z)), target.expand(len(self.members), *target.shape)).mean(0)

    def held_out_losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The loss of what the members say together, `(batch,)`: what decides which weights are the best."""
        z = self.features(obs)
        return self.head.held_out(self._split(self.raw(z)), (self.real_parts.real(x) - self.linear(z)) / self.scale)

    def quantiles(self, obs: Observation) -> Tensor:
        """The quantiles of a network with the "pinball" loss, `(..., levels, n)`, in rising order.

        Raises:
            ValueError: If the network has another loss or x is complex, which has no order.
        """
        if not isinstance(self.head, QuantileHead) or self.real_parts.complex:
            raise ValueError("quantiles need a network with loss='pinball' on real parameters.")
        leading, z = self.features.leading(obs), self.features(obs)
        deviation = self.head.quantiles(self._split(self.strength * self.raw(z))).mean(0)
        q = self.linear(z).unsqueeze(-2) + self.scale * deviation
        return q.reshape(*leading, *q.shape[-2:])

    def _split(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-1, (self.head.size, -1))


class ClassPosterior(Neural):
    """A discrete parameter: probabilities of its classes, `x_hat = P(class | y)`, the posterior mean of one-hot x."""

    log_share: Tensor

    def __init__(self, features: Features, x: Tensor, **network: Any):
        super().__init__(features, x.shape[-1], **network)
        self.register_buffer("log_share", features.mean.new_zeros(x.shape[-1]))

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.log_share.shape[0]

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data, and start from the classes' frequencies, each counted once more than seen."""
        check_one_hot(x)
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
