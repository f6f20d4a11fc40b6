"""The networks of an ensemble by their kind: what they are, what they say, and what each says of what it left out."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.heads import GaussianHead, squared_error
from fanfold.estimators.posterior.plan import Plan, networks_of
from fanfold.estimators.posterior.scales import ParameterScales
from fanfold.networks import Members

SQUARED, GAUSSIAN, TAUGHT = "squared-error networks", "heteroscedastic networks", "networks taught by an emulator"
FAMILY = "Newton steps on an exponential family"  # with no weights that are trained
CLIMBED = "Gauss-Newton steps on the emulator"  # from where heteroscedastic ones lead, with no weights of its own
DECAY = {SQUARED: 1.0, GAUSSIAN: 0.25, TAUGHT: 0.05}  # of the weight decay: those that are taught have draws enough
UNDROPPED = {GAUSSIAN: 1.0}  # where every fold is left out once, and no entries are
KINDS_APART = 500_000  # of their seeds

Raw = dict[str, Tensor]  # what the networks of each kind say, `(members, batch, 2, d)`


class Base(NamedTuple):
    """What networks deviate from: linear estimates `(..., batch, d)`, and the units `(d,)` of the deviations."""

    mean: Tensor
    free: Tensor  # on the unbounded scale
    unit: Tensor
    free_unit: Tensor
    scales: ParameterScales

    def at(self, rows: Tensor) -> "Base":
        """Of some samples."""
        return self._replace(mean=self.mean[rows], free=self.free[rows])

    def raw(self, mean: Tensor, var: Tensor) -> Tensor:
        """What a heteroscedastic network would say, `(..., batch, 2, d)`, for mean and variance on that scale."""
        return GaussianHead.raw((mean - self.free) / self.free_unit, var / self.free_unit.square())

    def gaussians(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance on the unbounded scale of heteroscedastic members, `(members, batch, d)`."""
        deviation, var = GaussianHead().estimate(raw)
        assert var is not None
        return self.free + self.free_unit * deviation, self.free_unit.square() * var


class NetworkKinds(nn.Module):
    """Networks of squared error, heteroscedastic ones, and such that are taught by an emulator of y given x.

    Each kind has as many members as folds are left out, or the first few of them.

    Args:
        features: What they see of an observation.
        d: The number of parameters.
        plan: The sizes.
        loss: "squared-error" for all kinds, "gaussian" for the heteroscedastic ones alone.
        seed: The seed of the starting weights.

    Attributes:
        trained: How many networks there are of each kind.
        counts: How many members have a say, of each kind: these, and steps on an emulator or a family, if there is one.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.estimators.posterior.features import Features
        >>> from fanfold.estimators.posterior.network_kinds import NetworkKinds
        >>> from fanfold.estimators.posterior.plan import Plan
        >>> features = Features(ff.Observation(torch.ones(2, 3)), "vector")
        >>> NetworkKinds(features, d=4, plan=Plan(folds=3, students=2), loss="squared-error", seed=0).trained
        {'squared-error networks': 3, 'heteroscedastic networks': 3, 'networks taught by an emulator': 2}
    """

    of_family: Tensor
    emulated: Tensor

    def __init__(self, features: Features, d: int, plan: Plan, loss: Literal["squared-error", "gaussian"], seed: int):
        super().__init__()
        self.d, self.dropped = d, plan.dropout > 0
        sizes = {SQUARED: plan} if loss == "squared-error" else {}
        sizes[GAUSSIAN] = plan
        if plan.students:
            sizes[TAUGHT] = replace(plan, folds=plan.students, dropout=0.0)
        self.decay = DECAY | UNDROPPED if plan.folds > 1 and not plan.dropout else DECAY
        self.trained = {kind: size.folds for kind, size in sizes.items()}
        self.counts = self.trained | ({CLIMBED: plan.emulators} if plan.emulators else {})
        self.counts |= {FAMILY: plan.families} if plan.families else {}
        self.register_buffer("of_family", torch.zeros((), dtype=torch.bool))
        self.register_buffer("emulated", torch.ones((), dtype=torch.bool))
        self.members = nn.ModuleList(
            networks_of(features, 2 * d, size, seed + KINDS_APART * i) for i, size in enumerate(sizes.values())
        )

    @property
    def each(self) -> dict[str, Members]:
        """The networks of each kind."""
        return dict(zip(self.trained, cast("Iterable[Members]", self.members)))

    @property
    def silent(self) -> set[str]:
        """The kinds without a say."""
        return (set() if self.takes_family else {FAMILY}) | (set() if self.takes_emulator else {TAUGHT, CLIMBED})

    @property
    def takes_family(self) -> bool:
        """Whether draws are those of an exponential family."""
        return bool(self.of_family)

    @property
    def takes_emulator(self) -> bool:
        """Whether an emulator is learned, and has pupils."""
        return bool(self.emulated)

    @property
    def learning(self) -> list[int]:
        """Which kinds there are to be weighed."""
        return [i for i, kind in enumerate(self.counts) if kind not in self.silent]

    @property
    def speaking(self) -> set[int]:
        """Which of these say a variance."""
        kinds = list(self.counts)
        return {i for i in self.learning if kinds[i] != SQUARED}

    def costs(self) -> dict[str, int]:
        """The number of weights that an answer of each kind of networks multiplies by."""
        return {kind: networks.cost() for kind, networks in self.each.items()}

    def parameter_groups(self, lr: float, *, matrices: bool) -> list[dict[str, Any]]:
        """Each kind with its share of the weight decay; those that are stacked may offer their matrices."""
        return [
            {
                "params": [*networks.parameters()],
                "lr": lr,
                "decay_scale": self.decay[kind],
                "matrices": networks.of_matrices and matrices,
            }
            for kind, networks in self.each.items()
        ]

    def prepare(self, *, family: bool, emulator: bool) -> None:
        """Settle whether draws are those of an exponential family, and whether an emulator has a say."""
        self.of_family.fill_(family)
        self.emulated.fill_(emulator)

    def forward(self, seen: Tensor, kinds: Iterable[str]) -> Raw:
        """What some kinds say of features."""
        each = self.each
        return {kind: self._pairs(each[kind](seen)) for kind in kinds}

    def noisy(self, seen: Tensor) -> Raw:
        """What those say that learn of the draws themselves, with entries left out by chance."""
        return {kind: self._pairs(networks.noisy(seen)) for kind, networks in self.each.items() if kind != TAUGHT}

    def taught(self, drawn: Tensor) -> Tensor:
        """What those that are taught say of draws of their own, `(members, batch, ...)`."""
        return self._pairs(self.each[TAUGHT].apart(drawn))

    def by_kind(self, members: Tensor) -> tuple[Tensor, ...]:
        """What all members have, `(members, ...)`, for each kind."""
        return members.split(list(self.counts.values()))

    def left_out(self, seen: Tensor, leaves: Tensor) -> Raw:
        """What networks say of the samples that they left out, `leaves` of `(members, batch)`; zeros of most others."""
        raw = {}
        for (kind, networks), own in zip(self.each.items(), self.by_kind(leaves)):
            members, rows = left_out_rows(own)
            raw[kind] = seen.new_zeros(*own.shape, 2, self.d)
            raw[kind][members, rows] = self._pairs(networks.apart(seen[rows]))
        return raw

    def losses(self, raw: Raw, base: Base, x: Tensor) -> list[Tensor]:
        """The loss of each member, `(members, batch)`, for each kind, of parameters `(batch, d)`."""
        free = (base.scales.free(x) - base.free) / base.free_unit
        return [
            squared_error(said[:, :, 0], (x - base.mean) / base.unit)
            if kind == SQUARED
            else GaussianHead().losses(said, free.expand(len(said), *free.shape))
            for kind, said in raw.items()
        ]

    def moments(self, raw: Raw, base: Base, leaves: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance of the parameters that each kind says, `(kinds, batch, d)`; zeros of kinds not in `raw`.

        Squared-error networks say no variance, but zeros. With `leaves` `(members, batch)` only the members that leave
        a sample out are asked, with zeros where there is none.
        """
        nothing = torch.zeros_like(base.mean)
        means, variances = ([nothing] * len(self.counts) for _ in range(2))
        parts = [None] * len(self.counts) if leaves is None else self.by_kind(leaves)
        for i, ((kind, count), own) in enumerate(zip(self.counts.items(), parts)):
            if kind not in raw:
                continue
            share = base.mean.new_full((count, 1, 1), 1 / count)
            if own is not None:
                share = own.to(base.mean).unsqueeze(-1) / own.sum(0).clamp_min(1).unsqueeze(-1)
            if kind == SQUARED:
                means[i] = (share * (base.mean + base.unit * raw[kind][:, :, 0])).sum(0)
                continue
            mean, var = base.scales.moments(*base.gaussians(raw[kind]))
            means[i] = (share * mean).sum(0)
            variances[i] = (share * (var + (mean - means[i]).square())).sum(0)
        return torch.stack(means), torch.stack(variances)

    def adopt(self, best: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of some members, `which` of `(members,)`, into the best ones, in place."""
        for i, (networks, chosen) in enumerate(zip(self.each.values(), self.by_kind(which))):
            networks.take(*(within(tensors, f"members.{i}.") for tensors in (best, weights)), which=chosen)

    def _pairs(self, said: Tensor) -> Tensor:
        return said.unflatten(-1, (2, self.d))


def left_out_rows(leaves: Tensor) -> tuple[Tensor, Tensor]:
    """Members `(members, 1)` and as many rows of each, with all that it leaves out, of `leaves` `(members, batch)`."""
    rows = leaves.int().argsort(1, descending=True)[:, : int(leaves.sum(1).max())]  # a few others behind them
    return torch.arange(len(leaves), device=leaves.device)[:, None], rows


def within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part, by the names that they have there."""
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
