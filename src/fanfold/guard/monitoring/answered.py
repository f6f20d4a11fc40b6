"""Observations beside what an estimator says of them: all that a score of strangeness may look at."""

from functools import cache, cached_property

import torch
from torch import Tensor

from fanfold.core.abilities import ability, offers
from fanfold.core.precision import double
from fanfold.core.units import power
from fanfold.estimators.base import ScaleAware, WithFeatures, WithMembers, WithTrajectory
from fanfold.observation import Estimate, Estimator, Observation

MOST_FEATURES, SKETCHED = 1024, 256  # numbers of one observation that are all looked at, and sums of more of them


class Answered:
    """A batch of observations and their estimates; what costs more than a look is computed once, when it is asked for.

    Args:
        estimator: The estimator.
        obs: The observations, y `(..., *event)`.
        estimate: What the estimator says of them, x `(..., n)`; it is asked if None.

    Attributes:
        count: How many samples there are; leading axes of y count as one.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.OAMP(), problem, 3, {"damping": "tied"})
        >>> seen = Answered(net, problem.sample(5, torch.Generator().manual_seed(0))[1])
        >>> seen.count, len(seen.trajectory), seen.residual.shape
        (5, 3, torch.Size([5, 20]))
    """

    def __init__(self, estimator: Estimator, obs: Observation, estimate: Estimate | None = None):
        self.estimator, self.obs, self.given = estimator, obs, estimate

    @cached_property
    def trajectory(self) -> list[Estimate]:
        """The estimates of all layers or iterations, flattened to `(count, n)`; none where there is one alone."""
        if not offers(self.estimator, WithTrajectory):
            return []
        return [_flat(estimate) for estimate in self.estimator.trajectory(self.obs)]

    @cached_property
    def estimate(self) -> Estimate:
        """The estimate, flattened to `(count, n)`."""
        if self.given is not None:
            return _flat(self.given)
        return self.trajectory[-1] if self.trajectory else _flat(self.estimator(self.obs))

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.estimate.x.shape[0]  # which a trace leaves open, as it does not leave a length

    @cached_property
    def energy(self) -> Tensor:
        """`‖y‖²`, `(count,)`."""
        return powers(self.y).sum(-1)

    @property
    def y(self) -> Tensor:
        """The measurements, `(count, m)`."""
        return self.obs.y.reshape(self.count, -1)

    @cached_property
    def noise_var(self) -> Tensor | None:
        """The noise variance of each sample, `(count, 1)`; None where it is unknown."""
        var = self.obs.noise_var
        if var is None:
            return None
        if not var.ndim:
            return var.double().expand(self.count, 1)
        return var.double().broadcast_to(*self.obs.y.shape[:-1], 1).reshape(self.count, -1)[:, :1]

    @cached_property
    def residual(self) -> Tensor | None:
        """`y - A x_hat`, `(count, m)`; None where no operator says what the measurements should have been."""
        A, x = self.obs.A, self.estimate.x
        fits = A is not None and (A.m, A.n) == (self.obs.y.shape[-1], x.shape[-1])
        if A is None or not fits or (x.is_complex() and not A.dtype.is_complex):
            return None
        explained = A @ x.to(A.dtype).reshape(*self.obs.y.shape[:-1], A.n)
        return (self.obs.y - explained).reshape(self.count, -1)

    @cached_property
    def scale_free(self) -> bool:
        """Whether measurements in other units give the estimate in other units and no other: scale tells nothing."""
        aware = ability(self.estimator, ScaleAware)
        return aware is not None and aware.scale_equivariant

    @property
    def unit(self) -> Tensor:
        """What powers are compared with, `(count,)`: one, or the energy where the estimator knows no scale."""
        return self.energy if self.scale_free else torch.ones_like(self.energy)

    @cached_property
    def features(self) -> Tensor:
        """Real numbers that sum y up, `(count, d)`: the estimator's features, else y itself in its own units."""
        if offers(self.estimator, WithFeatures):
            return _sketched(self.estimator.features(self.obs).reshape(self.count, -1))
        y = self.y / self.unit.sqrt().clamp_min(torch.finfo(self.y.real.dtype).tiny)[:, None].to(self.y.real.dtype)
        return _sketched(torch.cat([y.real, y.imag], -1) if y.is_complex() else y)

    @cached_property
    def members(self) -> Tensor | None:
        """What each member says, `(members, count, n)`; None where there are no members."""
        if not offers(self.estimator, WithMembers):
            return None
        said = self.estimator.said_by_members(self.obs)
        return said.reshape(len(said), self.count, -1)


def powers(values: Tensor) -> Tensor:
    """The power of each entry in double precision, whose squares hold all sizes of single precision."""
    return power(values.to(double(values.dtype)))


def _sketched(values: Tensor) -> Tensor:
    """Numbers `(count, d)` as they are, or of too many of them sums with random signs, `(count, 256)`.

    Distances hold to a tenth. Achlioptas (2003).
    """
    d = values.shape[-1]
    if d <= MOST_FEATURES:
        return values.double()
    return (values @ _signs(d).to(values)).double() / SKETCHED**0.5


@cache
def _signs(d: int) -> Tensor:
    """Random signs `(d, 256)`, kept since no trace holds a generator: what is exported was asked once before."""
    return torch.randint(2, (d, SKETCHED), generator=torch.Generator().manual_seed(0)) * 2 - 1


def _flat(estimate: Estimate) -> Estimate:
    n = estimate.x.shape[-1]
    var = estimate.var
    return Estimate(estimate.x.reshape(-1, n), None if var is None else var.expand(estimate.x.shape).reshape(-1, n))
