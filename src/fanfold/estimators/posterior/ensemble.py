"""The default end-to-end estimator: cross-validated networks beside closed forms, weighed by errors on left-out draws.

It is one long file, since what trains, what is left out and what is said are views of the same few products.
Squared error gives the posterior mean, a Gaussian likelihood mean and variance (Nix & Weigend, 1994); members differ in
their start and in the fold that they leave out (Krogh & Vedelsby, 1995).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from fanfold.core.units import nmse_db
from fanfold.estimators.base import Conclusion, LeftOut, Settings
from fanfold.estimators.posterior.closed_forms import LinearForm, PolynomialForm, degree_of
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.folds import fold_of
from fanfold.estimators.posterior.heads import GaussianHead, squared_error
from fanfold.estimators.posterior.plan import Plan, networks_of, plan_for
from fanfold.estimators.posterior.real_parts import RealParts
from fanfold.estimators.posterior.scales import POSITIVE, REAL, Limits, ParameterScales
from fanfold.estimators.posterior.stacking import Weighing, verdict
from fanfold.measurements import takes_measurements
from fanfold.networks import Members
from fanfold.observation import Estimate, Estimator, Observation

ROWS_AT_ONCE, MOST_ROWS = 5000, 20_000  # that are judged together, and in all
MOST_SURPRISE = 25.0  # square of an error over its variance, beyond which it tells no more
GAUSSIAN_DECAY = 0.25  # of the weight decay
KINDS_APART = 500_000  # of their seeds
LEAST_VAR = 1e-12  # of the prior's, that is taken for a variance


class Bases(NamedTuple):
    """The linear estimates that networks deviate from, `(batch, d)`, on the parameters' scale and the unbounded one."""

    mean: Tensor
    free: Tensor


class Ensemble(nn.Module):
    """`x = Σ w_c x_c(y)` over closed forms and networks, with weights from draws that each had not seen.

    Made by `ff.neural`. Squared-error networks learn a deviation from the best linear estimator; heteroscedastic ones a
    Gaussian on an unbounded scale of each parameter. The estimate lies within the limits of the prior. Not
    scale-equivariant: features are standardised by what the training data were.

    Args:
        features: What the networks see of an observation.
        x: Parameters as they are drawn, `(..., n)`.
        limits: The least and the largest value of each parameter.
        sizes: The sizes that the user asks for, by name; others follow the number of draws.
        loss: "squared-error" for both kinds of networks, "gaussian" for the heteroscedastic ones alone.
        seed: The seed of the starting weights.

    Attributes:
        strength: In [0, 1], scales the deviation from the best linear estimator.

    Example:
        >>> import fanfold as ff
        >>> ff.neural(ff.problems.LinearGaussian(n=2, m=3)).sources
        ('linear', 'polynomial', 'squared-error networks', 'heteroscedastic networks')
    """

    scale_equivariant: ClassVar[bool] = False
    described: Callable[[Plan], Settings] | None = None  # the settings that build it with a plan
    spread: Tensor
    unit: Tensor
    free_unit: Tensor

    def __init__(
        self,
        features: Features,
        x: Tensor,
        limits: Limits,
        sizes: Mapping[str, Any],
        loss: Literal["squared-error", "gaussian"],
        seed: int,
    ):
        super().__init__()
        self.features, self.sizes, self.loss, self.seed, self.strength = features, sizes, loss, seed, 1.0
        self.real_parts = RealParts(x.is_complex())
        self.d = self.real_parts.count(x)
        self.scales = ParameterScales(limits)
        self.linear, self.free_linear = LinearForm(features, self.d), LinearForm(features, self.d)
        self.polynomial = PolynomialForm(features, self.d) if loss == "squared-error" and degree_of(features) else None
        self.sources = self._sources()
        self.weighing = Weighing(len(self.sources), self.d)
        self.register_buffer("spread", torch.ones(self.d))  # of the variance that networks claim
        self.register_buffer("unit", torch.ones(self.d))  # the linear estimator's error
        self.register_buffer("free_unit", torch.ones(self.d))  # the same on the unbounded scale
        self.resize(replace(plan_for(0, features.kind)[0], **sizes))
        self.to(features.mean.dtype)

    def resize(self, plan: Plan) -> None:
        """Take networks of other sizes, untrained."""
        self.plan = plan
        kinds = [networks_of(self.features, 2 * self.d, plan, self.seed + KINDS_APART * i) for i in range(self._kinds)]
        self.members = nn.ModuleList(kinds).to(self.features.mean)  # its device too

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Networks that say a variance are pulled less towards the linear estimator: they weigh what noise drowns."""
        scales = {"squared-error networks": 1.0, "heteroscedastic networks": GAUSSIAN_DECAY}
        kinds = zip(self.sources[-self._kinds :], self.members)
        return [{"params": [*m.parameters()], "lr": lr, "decay_scale": scales[kind]} for kind, m in kinds]

    @property
    def settings(self) -> Settings | None:
        """What builds it again, with the sizes that it has taken."""
        return None if self.described is None else self.described(self.plan)

    def follow(self, simulations: int) -> Mapping[str, Any]:
        """Take the size for a number of draws, but for what the user said."""
        plan, training = plan_for(simulations, self.features.kind)
        plan = replace(plan, **self.sizes)
        if plan != self.plan:  # else what it has learned stays
            self.resize(plan)
        return training

    @property
    def by_chance(self) -> bool:
        """Whether training leaves entries out by chance."""
        return self.plan.dropout > 0

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The best linear estimator, which training started from."""
        return "best linear estimator", self.linear_part

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """As for fresh draws at every step."""
        return plan_for(0, self.features.kind)[1]

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data and fit the closed forms, in double precision; training calls it once."""
        x = self.real_parts.real(x)
        self.features.prepare(obs)
        self.scales.prepare(x)
        rows = slice(min(self.linear.rows, MOST_ROWS))
        z = self.features(obs[rows])
        self.unit.copy_(self.linear.fit(z, x[rows]).var.sqrt())
        if self._has_free:
            self.free_unit.copy_(self.free_linear.fit(z, self.scales.free(x[rows])).var.sqrt())
        else:
            self.free_unit.copy_(self.unit)
            self.free_linear.load_state_dict(self.linear.state_dict())
        if self.polynomial is not None:
            self.polynomial.fit(z, x[rows])

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean and variance of the posterior, `(..., n)`."""
        leading, z = self.features.leading(obs), self.features(obs)
        base = self._bases(z)
        means, var = self._of_networks(self._raw(z), base)
        polynomial = None if self.polynomial is None else self.polynomial(z)
        x = self.weighing(self._all_sources(base.mean, polynomial, means), var)
        x = self.scales.within(base.mean + self.strength * (x - base.mean))
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.scales.capped(self.spread * var), leading)
        )

    def linear_part(self, obs: Observation) -> Estimate:
        """The best linear estimator that training started from, with the variance of its error."""
        leading = self.features.leading(obs)
        x = self.linear(self.features(obs))
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.unit.square().expand(x.shape), leading)
        )

    @torch.no_grad()
    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Draws `(count, ..., n)` from the mixture of the heteroscedastic networks' Gaussians on the unbounded scale.

        They lie within the limits. Their mean is that of these networks, which `forward` weighs among others.
        """
        leading, z = self.features.leading(obs), self.features(obs)
        mean, var = self._gaussians(self._raw(z), self.free_linear(z))
        mean, var = self.scales.near(mean), torch.minimum(var, self.scales.most_var)
        which = torch.randint(len(mean), (count, len(z)), generator=generator)
        at = torch.arange(len(z))
        noise = torch.randn(count, len(z), self.d, generator=generator).to(mean)
        u = mean[which, at] + (self.spread * var[which, at]).sqrt() * noise
        return self.real_parts.signal(self.scales.back(u), (count, *leading))

    # Training

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The mean loss over the members that do not leave a sample out, `(batch,)`."""
        x = self.real_parts.real(x)
        z = self.features(obs)
        seen = self.features.seen(z)
        raw = torch.cat([kind.noisy(seen) for kind in self._networks]).unflatten(-1, (2, self.d))
        taught = ~self._leaves_out(x, obs)
        return (self._member_losses(raw, self._bases(z), x) * taught).sum(0) / taught.sum(0).clamp_min(1)

    @torch.no_grad()
    def left_out(self, obs: Observation, x: Tensor) -> LeftOut:
        """The loss of each member on its fold, and what members say of the samples that they left out."""
        x = self.real_parts.real(x)
        leaves = self._judges(x, obs)
        losses, means = [], []
        for rows in _blocks(x):
            z = self.features(obs[rows])
            raw, base = self._raw(z), self._bases(z)
            losses.append(self._member_losses(raw, base, x[rows]))
            means.append(self._of_networks(raw, base, leaves[:, rows])[0][0])
        scores = (torch.cat(losses, 1) * leaves).sum(1) / leaves.sum(1).clamp_min(1)
        judged = leaves.any(0)
        return LeftOut(scores, self.real_parts.signal(torch.cat(means)[judged], (-1,)), judged)

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of the members `which` into the best ones, in place."""
        for i, (kind, chosen) in enumerate(zip(self._networks, which.split(self.plan.folds))):
            kind.take(*(_within(tensors, f"members.{i}.") for tensors in (best, weights)), which=chosen)

    @torch.no_grad()
    def conclude(self, x: Tensor, obs: Observation) -> Conclusion:
        """Weigh closed forms and networks by their errors on the samples that each left out."""
        rows = slice(min(self.linear.rows, MOST_ROWS))
        truth, obs = self.real_parts.real(x)[rows], obs[rows]
        leaves = self._judges(truth, obs)
        z = self.features(obs)
        # linear estimators too are those of all other samples: what they learned of a sample by heart is not in them
        free = self.scales.free(truth)
        linear = truth - self.linear.fitted(z, truth).left_out
        free = free - self.free_linear.fitted(z, free).left_out if self._has_free else linear
        parts = [
            self._of_networks(self._raw(z[r]), Bases(linear[r].to(z), free[r].to(z)), leaves[:, r])
            for r in _blocks(truth)
        ]
        means, var = torch.cat([m for m, _ in parts], 1), torch.cat([v for _, v in parts])
        polynomial = None if self.polynomial is None else truth - self.polynomial.fit(z, truth)
        judged, prior = leaves.any(0), truth.double().var(0)
        each = self._all_sources(linear, polynomial, means)[:, judged].double()
        truth = truth[judged].double()
        var = torch.maximum(var[judged], LEAST_VAR * prior).to(var)
        self.weighing.fit(each, truth, var, decades=self.scales.kind == POSITIVE)
        x_hat = self.scales.within(self.weighing(each.to(self.unit), var))
        error = (x_hat - truth).square()
        self.spread.copy_((error / var).clamp_max(MOST_SURPRISE).mean(0).clamp(0.1, 10.0))
        risks = ((each - truth).square().mean(1) / prior).mean(-1).tolist()
        base = ((linear[judged] - truth).square().mean(0) / prior).mean().item()
        sentence = verdict(self.sources, risks, (error.mean(0) / prior).mean().item(), base, len(x))
        return Conclusion(nmse_db(x_hat, truth.to(x_hat.dtype)), sentence)

    # Parts

    def _sources(self) -> tuple[str, ...]:
        """What is weighed, by name."""
        if self.loss == "gaussian":
            return ("heteroscedastic networks",)
        polynomial = () if self.polynomial is None else ("polynomial",)
        return ("linear", *polynomial, "squared-error networks", "heteroscedastic networks")

    @property
    def _networks(self) -> Iterable[Members]:
        return cast("Iterable[Members]", self.members)

    @property
    def _kinds(self) -> int:
        return 2 if self.loss == "squared-error" else 1

    def _leaves_out(self, x: Tensor, obs: Observation) -> Tensor:
        """Whether each member leaves out each sample, `(members, samples)`."""
        folds = torch.arange(self.plan.folds, device=x.device).repeat(self._kinds)
        return fold_of(x, obs.y, self.plan.parts) == folds[:, None]

    def _judges(self, x: Tensor, obs: Observation) -> Tensor:
        """Whether each member is judged by each sample: by all where it left out none, as may be of few draws."""
        leaves = self._leaves_out(x, obs)
        return leaves | ~leaves.any(1, keepdim=True)

    def _raw(self, z: Tensor) -> Tensor:
        """What the members say, `(members, batch, 2, d)`: those of squared error first."""
        seen = self.features.seen(z)
        raw = torch.cat([kind(seen) for kind in self._networks])
        return (self.strength * raw).unflatten(-1, (2, self.d))

    def _member_losses(self, raw: Tensor, base: Bases, x: Tensor) -> Tensor:
        """The loss of each member, `(members, batch)`, from what they say, `(members, batch, 2, d)`."""
        folds = self.plan.folds
        free = (self.scales.free(x) - base.free) / self.free_unit
        gaussian = GaussianHead().losses(raw[-folds:], free.expand(folds, *free.shape))
        if self._kinds == 1:
            return gaussian
        square = squared_error(raw[:folds, :, 0], (x - base.mean) / self.unit)
        return torch.cat([square, gaussian])

    @property
    def _has_free(self) -> bool:
        """Whether the unbounded scale of some parameter is another than its own."""
        return bool((self.scales.kind != REAL).any())

    def _bases(self, z: Tensor) -> Bases:
        return Bases(self.linear(z), self.free_linear(z))

    def _gaussians(self, raw: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance on the unbounded scale of each heteroscedastic member, `(folds, batch, d)`."""
        deviation, var = GaussianHead().estimate(raw[-self.plan.folds :])
        assert var is not None
        return base + self.free_unit * deviation, self.free_unit.square() * var

    def _of_networks(self, raw: Tensor, base: Bases, leaves: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What each kind of networks says, `(kinds, batch, d)`, and the variance `(batch, d)` of the second kind.

        With `leaves` only the members that leave a sample out are asked, with zeros where there is none.
        """
        folds = self.plan.folds
        share = torch.full((folds, 1, 1), 1 / folds, dtype=raw.dtype, device=raw.device)
        if leaves is not None:
            share = leaves[:folds].to(raw.dtype).unsqueeze(-1)
            share = share / share.sum(0).clamp_min(1)
        mean, var = self.scales.moments(*self._gaussians(raw, base.free))
        middle = (share * mean).sum(0)
        var = (share * (var + (mean - middle).square())).sum(0)
        if self._kinds == 1:
            return middle[None], var
        square = (share * (base.mean + self.unit * raw[:folds, :, 0])).sum(0)
        return torch.stack([square, middle]), var

    def _all_sources(self, linear: Tensor, polynomial: Tensor | None, means: Tensor) -> Tensor:
        """What is weighed, `(sources, batch, d)`."""
        if self.loss == "gaussian":
            return means
        return torch.stack([linear, *([] if polynomial is None else [polynomial]), *means])


def _within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    return torch.arange(len(x), device=x.device).split(ROWS_AT_ONCE)
