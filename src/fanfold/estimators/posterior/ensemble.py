"""The default end-to-end estimator, in one file, as training, leaving out and answering are views of the same products.

Cross-validated networks stand beside closed forms, weighed by errors on left-out draws.
Squared error gives the posterior mean, a Gaussian likelihood mean and variance (Nix & Weigend, 1994); members differ in
their start and in the fold that they leave out (Krogh & Vedelsby, 1995).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fanfold.core.units import nmse_db
from fanfold.estimators.base import Conclusion, LeftOut, Region, Settings
from fanfold.estimators.posterior.closed_forms import LinearForm, PolynomialForm, degree_of
from fanfold.estimators.posterior.emulator import MOST_FEATURES, Emulator, may_be_emulated
from fanfold.estimators.posterior.exponential_family import (
    FEWEST_DRAWS,
    MOST_MEASUREMENTS,
    MOST_PARAMETERS,
    ExponentialFamily,
    may_be_of_family,
)
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.folds import fold_of
from fanfold.estimators.posterior.heads import GaussianHead
from fanfold.estimators.posterior.mirror import Mirror
from fanfold.estimators.posterior.network_kinds import (
    CLIMBED,
    FAMILY,
    GAUSSIAN,
    KINDS_APART,
    TAUGHT,
    Base,
    NetworkKinds,
    Raw,
    left_out_rows,
    within,
)
from fanfold.estimators.posterior.pairing import Pairing, paired
from fanfold.estimators.posterior.plan import Plan, plan_for
from fanfold.estimators.posterior.real_parts import RealParts
from fanfold.estimators.posterior.scales import POSITIVE, REAL, Limits, ParameterScales
from fanfold.estimators.posterior.stacking import Weighing, verdict
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation

ROWS_AT_ONCE, MOST_ROWS = 5000, 20_000  # that are judged together, and in all
MOST_SURPRISE = 25.0  # square of an error over its variance, beyond which it tells no more
CLEARLY = 0.9  # of what other fits leave, that a family has to leave less than, where no gradient speaks for it
NEGLIGIBLE = 2e-3  # of the least error that a choice of kinds gives, by which a cheaper one may be above it
FARTHEST_CLIMB = 3.0  # standard deviations that a network claims, from its mean
LINEAR, POLYNOMIAL = "linear", "polynomial"
LEAST_VAR = 1e-12  # of the prior's, that is taken for a variance


class Ensemble(nn.Module):
    """`x = Σ w_c x_c(y)` over closed forms and networks, with weights from draws that each had not seen.

    Made by `ff.neural`. Squared-error networks learn a deviation from the best linear estimator; heteroscedastic ones a
    Gaussian on an unbounded scale of each parameter. Of few draws, vectors of few numbers, a model of y given x is
    learned as well, and draws of its own teach further heteroscedastic networks. Where draws are those of an
    exponential family, one takes its place. Kinds of networks that have no share are not computed. The estimate lies
    within the limits of the prior. Not scale-equivariant: features are standardised by what the training data were.

    Args:
        features: What the networks see of an observation.
        x: Parameters as they are drawn, `(..., n)`.
        limits: The least and the largest value of each parameter.
        sizes: The sizes that the user asks for, by name; others follow the number of draws.
        loss: "squared-error" for all kinds of networks, "gaussian" for the heteroscedastic ones alone.
        seed: The seed of the starting weights.

    Attributes:
        strength: In [0, 1], scales the deviation from the best linear estimator.

    Example:
        >>> import fanfold as ff
        >>> ff.neural(ff.problems.LinearGaussian(n=2, m=3)).sources[:4]
        ('linear', 'polynomial', 'squared-error networks', 'heteroscedastic networks')
    """

    scale_equivariant: ClassVar[bool] = False
    described: Callable[[Plan], Settings] | None = None  # the settings that build it with a plan
    spread: Tensor
    unit: Tensor
    free_unit: Tensor
    speaker: Tensor

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
        self.scales = ParameterScales(limits, features.mean.dtype)
        self.linear, self.free_linear = LinearForm(features, self.d), LinearForm(features, self.d)
        self.polynomial = PolynomialForm(features, self.d) if loss == "squared-error" and degree_of(features) else None
        self.register_buffer("spread", torch.ones(self.d))  # of the variance that networks claim
        self.register_buffer("unit", torch.ones(self.d))  # the linear estimator's error
        self.register_buffer("free_unit", torch.ones(self.d))  # the same on the unbounded scale
        self.resize(self._planned(0)[0])
        self.to(features.mean.dtype)

    def resize(self, plan: Plan) -> None:
        """Take networks of other sizes, untrained."""
        self.plan = plan
        self.networks = NetworkKinds(self.features, self.d, plan, self.loss, self.seed)
        m = self.features.mean.numel()
        self.family = ExponentialFamily(m, self.d, plan.families, self.seed) if plan.family else None
        kinds, closed = tuple(self.networks.counts), [LINEAR, *([] if self.polynomial is None else [POLYNOMIAL])]
        self.sources = (*(closed if self.loss == "squared-error" else []), *kinds)
        self.weighing = Weighing(len(self.sources), self.d)
        # behind the others however often sizes change: the order of parameters tells the rounding of their norm
        seed = self.seed + KINDS_APART * len(self.networks.trained)
        few = {"decay": 1.0, "fastest": 1.0} if plan.dropout else {}
        self.emulator = Emulator(self.features, self.d, plan.emulators, seed, **few) if plan.emulators else None
        self.mirror = Mirror(self.features, self.d) if plan.mirrored else None
        speaker = torch.tensor([float(kind == GAUSSIAN) for kind in kinds])
        self.register_buffer("speaker", speaker)  # the kind of networks that says the variance
        self.asked = (GAUSSIAN,)
        self.to(self.features.mean)  # its device too

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Of few draws, networks that say a variance are pulled less towards the linear estimator: they weigh noise.

        Of the emulator, and of networks that leave no entries out, an optimiser of matrices moves these.
        """
        model = [] if self.emulator is None else [self.emulator.parameter_group(lr)]
        centre = [] if self.mirror is None else [self.mirror.parameter_group(lr)]
        matrices = self.emulator is None or not self.networks.dropped
        return [*self.networks.parameter_groups(lr, matrices=matrices), *model, *centre]

    @property
    def settings(self) -> Settings | None:
        """What builds it again, with the sizes that it has taken."""
        return None if self.described is None else self.described(self.plan)

    def follow(self, simulations: int) -> Mapping[str, Any]:
        """Take the size for a number of draws, but for what the user said."""
        plan, training = self._planned(simulations)
        if plan != self.plan:  # else what it has learned stays
            self.resize(plan)
        return training

    @property
    def by_chance(self) -> bool:
        """Whether training leaves entries out by chance, draws what it learns of, or turns draws into images."""
        return self.plan.dropout > 0 or self.plan.students > 0 or self.plan.mirrored

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The best linear estimator, which training started from."""
        return "best linear estimator", self.linear_part

    @property
    def support(self) -> Region:
        """The limits of the parameters, infinite where there are none; of complex ones those of either part."""
        return Region(self.scales.floor, self.scales.ceiling)

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """As for fresh draws at every step."""
        return plan_for(0, self.features.kind)[1]

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise from data and fit the closed forms, in double precision; training calls it once."""
        x = self.real_parts.real(x)
        self.features.prepare(obs)
        self.scales.prepare(x)
        if self.mirror is not None:
            self.mirror.prepare(x, obs.y, self.scales.floor, self.scales.ceiling)
        rows = slice(min(self.linear.rows, MOST_ROWS))
        z = self.features(obs[rows])
        linear = self.linear.fit(z, x[rows])
        self.unit.copy_(linear.var.sqrt())
        if self._has_free:
            self.free_unit.copy_(self.free_linear.fit(z, self.scales.free(x[rows])).var.sqrt())
        else:
            self.free_unit.copy_(self.unit)
            self.free_linear.load_state_dict(self.linear.state_dict())
        closed = [linear.left_out] if self.polynomial is None else [linear.left_out, self.polynomial.fit(z, x[rows])]
        emulator, family = self.emulator is not None, False
        if emulator or self.family is not None:
            pairing = paired(z[:, : self.linear.W.shape[-1]], x[rows])
            risks = [pairing.risk(errors) for errors in closed]
            if self.family is not None:
                family = self._fits(self.family, x[rows], obs[rows], pairing, min(risks))
            # where nothing is seen but a straight line, no more is to be learned of an emulator
            emulator = emulator and not family and not (pairing.straight and risks[0] == min(risks))
        self.networks.prepare(family=family, emulator=emulator)
        if self.emulator is not None:
            self.emulator.prepare(self.scales.free(x[rows]), z)

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean and variance of the posterior, `(..., n)`."""
        if not torch.compiler.is_compiling():  # what is traced was called before
            self.asked = self._asked()
        leading, z = self.features.leading(obs), self.features(obs)
        base = self._base(z)
        means, variances = self.networks.moments(self._raw(obs, z, base, self.asked), base)
        var = self._spoken(variances)
        polynomial = None if self.polynomial is None else self.polynomial(z)
        x = self.weighing(self._all_sources(base.mean, polynomial, means), var)
        x = self.scales.within(base.mean + self.strength * (x - base.mean))
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.scales.capped(self.spread * var), leading)
        )

    def said_by_members(self, obs: Observation) -> Tensor:
        """What closed forms and kinds of networks that have a share say, real parameters `(members, batch, d)`."""
        z, asked = self.features(obs), self._asked()
        base = self._base(z)
        means = self.networks.moments(self._raw(obs, z, base, asked), base)[0]
        said = [mean for kind, mean in zip(self.networks.counts, means) if kind in asked]
        closed = [base.mean, *([] if self.polynomial is None else [self.polynomial(z)])]
        return self.scales.within(torch.stack([*closed, *said]))

    def linear_part(self, obs: Observation) -> Estimate:
        """The best linear estimator that training started from, with the variance of its error."""
        leading = self.features.leading(obs)
        x = self.linear(self.features(obs))
        return Estimate(
            self.real_parts.signal(x, leading), self.real_parts.variance(self.unit.square().expand(x.shape), leading)
        )

    @torch.no_grad()
    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Draws `(count, ..., n)` from the mixture of the Gaussians, on the unbounded scale, that say the variance.

        They lie within the limits. Their mean is that of these networks, which `forward` weighs among others.
        """
        leading, z = self.features.leading(obs), self.features(obs)
        speaker = list(self.networks.counts)[int(self.speaker.argmax())]
        base = self._base(z)
        mean, var = base.gaussians(self._raw(obs, z, base, (speaker,))[speaker])
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
        taught = ~self._leaves_out(x, obs)
        if self.mirror is not None and self.mirror.symmetric:
            x, y = self.mirror(x, obs.y)
            obs = replace(obs, y=y)
        z = self.features(obs)
        raw = self.networks.noisy(self.features.seen(z))
        losses = _mean_over(torch.cat(self.networks.losses(raw, self._base(z), x)), taught)
        if self.emulator is None or not self.networks.takes_emulator:
            return losses
        return losses + _mean_over(*self._lesson(self.emulator, z, x, taught[: self.plan.emulators]))

    @torch.no_grad()
    def left_out(self, obs: Observation, x: Tensor) -> LeftOut:
        """The loss of each member on its fold, and what members say of the samples that they left out."""
        x = self.real_parts.real(x)
        leaves = self._judges(x, obs)
        losses, means = [], []
        for rows in _blocks(x):
            z = self.features(obs[rows])
            raw, base = self._scaled(self.networks.left_out(self.features.seen(z), leaves[:, rows])), self._base(z)
            losses.append(torch.cat([*self.networks.losses(raw, base, x[rows]), *self._untaught(x[rows], z)]))
            means.append(self.networks.moments(raw, base, leaves[:, rows])[0][0])
        scores = torch.where(leaves, torch.cat(losses, 1), 0.0).sum(1) / leaves.sum(1).clamp_min(1)
        judged = leaves.any(0)
        return LeftOut(scores, self.real_parts.signal(torch.cat(means)[judged], (-1,)), judged)

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of the members `which` into the best ones, in place."""
        # steps have no weights of their own: in their place stand the emulator's; a family has been fitted before
        self.networks.adopt(within(best, "networks."), within(weights, "networks."), which)
        if self.emulator is not None:
            of_emulator = dict(zip(self.networks.counts, self.networks.by_kind(which)))[CLIMBED]
            self.emulator.adopt(within(best, "emulator."), within(weights, "emulator."), of_emulator)

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
        parts = []
        for r in _blocks(truth):
            base = self._base(z[r], linear[r].to(z), free[r].to(z))
            raw = self._raw_left_out(obs[r], z[r], base, leaves[:, r])
            parts.append(self.networks.moments(raw, base, leaves[:, r]))
        means, variances = (torch.cat(each, 1) for each in zip(*parts))
        polynomial = None if self.polynomial is None else truth - self.polynomial.fit(z, truth)
        # a sample counts that every kind of networks has a judge for
        judged = torch.stack([part.any(0) for part in self.networks.by_kind(leaves)]).all(0)
        prior = truth.double().var(0)
        each = self._all_sources(linear, polynomial, means)[:, judged].double()
        truth, base = truth[judged].double(), linear[judged]
        variances = torch.maximum(variances[:, judged], LEAST_VAR * prior).to(variances)
        x_hat, var = self._weigh(each, truth, variances, prior)
        error = (x_hat - truth).square()
        self.spread.copy_((error / var).clamp_max(MOST_SURPRISE).mean(0).clamp(0.1, 10.0))
        risks = ((each - truth).square().mean(1) / prior).mean(-1).tolist()
        linear_risk = ((base - truth).square().mean(0) / prior).mean().item()
        silent = self.networks.silent
        sources = {source: risk for source, risk in zip(self.sources, risks) if source not in silent}
        sentence = verdict(sources, (error.mean(0) / prior).mean().item(), linear_risk, len(x))
        if self.mirror is not None and self.mirror.symmetric:
            sentence += " Draws look like their images about a centre, which were learned of as well."
        if FAMILY in self._asked():
            sentence += " Draws look like those of an exponential family, which was fitted."
        return Conclusion(nmse_db(x_hat, truth.to(x_hat.dtype)), sentence)

    # Parts

    def _fits(self, family: ExponentialFamily, x: Tensor, obs: Observation, pairing: Pairing, others: float) -> bool:
        """Fit a family to draws, unless a scout sees that it is none, and tell whether it leaves less than other fits.

        Args:
            family: An unfitted one.
            x: Parameters, `(samples, d)`.
            obs: Their measurements.
            pairing: What draws tell of gradients.
            others: What the closed forms leave of draws left out, in units of the pairing.
        """
        if len(x) < FEWEST_DRAWS:
            return False
        y, free, fold = (
            self.features.plain(obs).double(),
            self.scales.free(x.double()),
            fold_of(x, obs.y, self.plan.parts),
        )
        family.standardise(y, free)

        def left(mean: Tensor, var: Tensor, rows: Tensor) -> float:
            return pairing.risk(self.scales.moments(mean[rows], var[rows])[0] - x[rows])

        if not pairing.holds and not left(*family.scout(y, free, fold), fold == 0) < others:
            return False
        most = min(others, pairing.least) * (1.0 if pairing.holds else CLEARLY)
        return left(*family.fit(y, free, fold), fold < family.members) < most

    def _planned(self, simulations: int) -> tuple[Plan, dict[str, Any]]:
        """The sizes and the training for a number of draws, with what the user said."""
        plan, training = plan_for(simulations, self.features.kind)
        if self.loss == "gaussian" or not may_be_emulated(self.features):
            if self.sizes.get("students"):
                raise ValueError(
                    f"no emulator of y can teach {self.sizes['students']} networks: that takes the squared error, and "
                    f"vectors of at most {MOST_FEATURES} real numbers; leave students out."
                )
            plan = replace(plan, students=0)
        if self.loss == "gaussian" or not may_be_of_family(self.features, self.d):
            if self.sizes.get("family"):
                raise ValueError(
                    "family is True: that takes the squared error, and vectors of no fewer numbers than there are "
                    f"parameters, at most {MOST_MEASUREMENTS} and {MOST_PARAMETERS}; leave it out."
                )
            plan = replace(plan, family=False)
        plan = replace(plan, students=min(plan.students, self.sizes.get("folds", plan.folds)))
        plan = replace(plan, **self.sizes)
        if plan.dropout and not plan.students:  # of few draws matrices are the emulator's
            training |= {"optimiser": "adam"}
        return plan, training

    def _asked(self) -> tuple[str, ...]:
        """The kinds of networks that have a share in the estimate, or say its variance."""
        kinds = self.networks.counts
        shares = self.weighing.shares[:, -len(kinds) :].amax((0, 2))
        return tuple(kind for kind, share in zip(kinds, (shares + self.speaker).tolist()) if share > 0)

    def _spoken(self, variances: Tensor) -> Tensor:
        """The variance `(batch, d)` of the kind that says it, of those of all kinds, `(kinds, batch, d)`."""
        return (self.speaker[:, None, None] * variances).sum(0)

    def _leaves_out(self, x: Tensor, obs: Observation) -> Tensor:
        """Whether each member leaves out each sample, `(members, samples)`, but for those taught by an emulator."""
        direct = len(self.networks.trained) - (self.plan.students > 0)
        folds = torch.arange(self.plan.folds, device=x.device).repeat(direct)
        return fold_of(x, obs.y, self.plan.parts) == folds[:, None]

    def _untaught(self, x: Tensor, z: Tensor) -> list[Tensor]:
        """The losses of an emulator on samples, and zeros of families, which no step changes, `(members, batch)`."""
        losses = []
        if self.emulator is not None:
            zeros = z.new_zeros(self.plan.emulators, len(z))
            losses.append(self.emulator.losses(self.scales.free(x), z) if self.networks.takes_emulator else zeros)
        if self.family is not None:
            losses.append(z.new_zeros(self.family.members, len(z)))
        return losses

    def _judges(self, x: Tensor, obs: Observation) -> Tensor:
        """Whether each member is judged by each sample: by all where it left out none, as may be of few draws."""
        leaves = self._leaves_out(x, obs)
        # of those that are taught, of an emulator's and of families, which are judged as the steps on them are
        of_others = self.plan.students, self.plan.emulators, self.plan.families
        leaves = torch.cat([leaves, *(leaves[:count] for count in of_others)])
        return leaves | ~leaves.any(1, keepdim=True)

    def _raw(self, obs: Observation, z: Tensor, base: Base, kinds: Iterable[str]) -> Raw:
        """What some kinds say, `(members, batch, 2, d)` each."""
        kinds = set(kinds)
        networks = [k for k in self.networks.trained if k in kinds or (k == GAUSSIAN and CLIMBED in kinds)]
        raw = self.networks(self.features.seen(z), networks)
        if CLIMBED in kinds:
            raw[CLIMBED] = self._climbed(z, base, raw[GAUSSIAN][: self.plan.emulators])
        if FAMILY in kinds:
            assert self.family is not None
            raw[FAMILY] = base.raw(*self.family(self.features.plain(obs)))
        return self._scaled({kind: raw[kind] for kind in self.networks.counts if kind in kinds})

    def _raw_left_out(self, obs: Observation, z: Tensor, base: Base, leaves: Tensor) -> Raw:
        """What members say of the samples that they left out, `leaves` of `(members, batch)`; zeros of others."""
        raw = self.networks.left_out(self.features.seen(z), leaves)
        of_kind = dict(zip(self.networks.counts, self.networks.by_kind(leaves)))
        if self.networks.takes_family:
            assert self.family is not None
            members, rows = left_out_rows(of_kind[FAMILY])
            raw[FAMILY] = z.new_zeros(*of_kind[FAMILY].shape, 2, self.d)
            raw[FAMILY][members, rows] = base.at(rows).raw(*self.family(self.features.plain(obs)[rows]))
        if self.emulator is not None and self.networks.takes_emulator:
            members, rows = left_out_rows(of_kind[CLIMBED])
            raw[CLIMBED] = torch.zeros_like(raw[GAUSSIAN][: self.plan.emulators])
            raw[CLIMBED][members, rows] = self._climbed(z[rows], base.at(rows), raw[GAUSSIAN][members, rows])
        return self._scaled(raw)

    def _climbed(self, z: Tensor, base: Base, start: Tensor) -> Tensor:
        """Where members of the emulator climb from what networks of the same folds say, `(members, batch, 2, d)`."""
        assert self.emulator is not None
        begun, claimed = base.gaussians(start)
        begun = self.scales.near(begun)
        mean, var = self.emulator.climbed(z, begun)
        reach = FARTHEST_CLIMB * claimed.sqrt()
        mean = begun + (mean - begun).clamp(-reach, reach)
        return base.raw(mean, var)

    def _scaled(self, raw: Raw) -> Raw:
        return {kind: self.strength * said for kind, said in raw.items()}

    def _lesson(self, emulator: Emulator, z: Tensor, x: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of an emulator and of the networks that its draws teach, `(members, batch)`, and which count.

        A network learns from the member of the emulator that leaves out the same fold: it never meets what is left out.
        """
        free = self.scales.free(x)
        of_given = emulator.training_losses(free, z)
        if TAUGHT in self.networks.silent:
            return of_given, taught
        near, drawn = emulator.draws(free, self.plan.students)
        drawn = self.features.completed(drawn)
        base = self.free_linear(drawn.flatten(0, 2)).unflatten(0, drawn.shape[:3])
        said = self.networks.taught(self.features.seen(drawn.flatten(1, 2)))
        of_drawn = GaussianHead().losses(said, ((near - base) / self.free_unit).flatten(1, 2))
        of_drawn = of_drawn.unflatten(1, drawn.shape[1:3]).mean(1)
        return torch.cat([of_given, of_drawn]), torch.cat([taught, taught[: self.plan.students]])

    @property
    def _has_free(self) -> bool:
        """Whether the unbounded scale of some parameter is another than its own."""
        return bool((self.scales.kind != REAL).any())

    def _base(self, z: Tensor, mean: Tensor | None = None, free: Tensor | None = None) -> Base:
        """What networks deviate from, `(batch, d)` each: the linear estimates, if no others are given."""
        mean = self.linear(z) if mean is None else mean
        free = self.free_linear(z) if free is None else free
        return Base(mean, free, self.unit, self.free_unit, self.scales)

    def _all_sources(self, linear: Tensor, polynomial: Tensor | None, means: Tensor) -> Tensor:
        """What is weighed, `(sources, batch, d)`."""
        if self.loss == "gaussian":
            return means
        return torch.stack([linear, *([] if polynomial is None else [polynomial]), *means])

    def _weigh(self, each: Tensor, truth: Tensor, variances: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Take the cheapest kinds of networks that are as good as all, and one of them that says the variance.

        Args:
            each: What is weighed, of samples that were left out, `(sources, samples, d)`.
            truth: `(samples, d)`.
            variances: What each kind of networks says, `(kinds, samples, d)`.
            prior: The variance of the parameters, `(d,)`.

        Returns:
            What comes of it and the variance, `(samples, d)` each.
        """
        costs, speaking = self.networks.costs(), self.networks.speaking
        if self.emulator is not None:
            costs[CLIMBED] = costs[GAUSSIAN] + self.emulator.cost()  # where its steps begin
        if self.family is not None:
            costs[FAMILY] = self.family.cost()
        closed, decades = len(self.sources) - len(costs), self.scales.kind == POSITIVE
        squares = (each[closed:] - truth).square()
        surprise = (squares / variances.clamp_min(torch.finfo(variances.dtype).tiny)).clamp_max(MOST_SURPRISE)
        said = (surprise.mean(1).log() + variances.log().mean(1)).sum(-1).tolist()  # the best scale of each is taken

        honest = variances[sorted(speaking)].amax(0)

        def weighed(kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            speaker = min(speaking.intersection(kept), key=lambda i: said[i])
            self.speaker.copy_(torch.arange(len(costs), device=truth.device) == speaker)
            among = [*range(closed), *(closed + i for i in kept)]
            self.weighing.fit(each, truth, variances[speaker], honest, decades, among)
            return self.scales.within(self.weighing(each.to(self.unit), variances[speaker])), variances[speaker]

        learned = self.networks.learning
        groups = [g for n in range(1, len(learned) + 1) for g in itertools.combinations(learned, n)]
        groups = [group for group in groups if speaking.intersection(group)]
        squared = [(weighed(group)[0] - truth).square() for group in groups]
        measures = [torch.stack([(each.mean(0) / prior).sum() for each in squared])]
        if decades.any():  # of all together the largest draws would decide alone
            shares = [(each / honest).clamp_max(MOST_SURPRISE)[:, decades].mean() for each in squared]
            measures.append(torch.stack(shares))
        tiny = torch.finfo(measures[0].dtype).tiny
        relative = torch.stack([risk / risk.min().clamp_min(tiny) for risk in measures]).mean(0)
        risks = relative.nan_to_num(torch.inf).tolist()
        enough = [group for group, risk in zip(groups, risks) if risk <= (1 + NEGLIGIBLE) * min(risks)]
        kinds = list(costs)
        return weighed(min(enough, key=lambda group: sum(costs[kinds[i]] for i in group)))


def _mean_over(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of losses `(members, batch)` over the members that count, and zero where none does: `(batch,)`."""
    return (losses * counted).sum(0) / counted.sum(0).clamp_min(1)


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    return torch.arange(len(x), device=x.device).split(ROWS_AT_ONCE)
