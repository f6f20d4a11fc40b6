"""Maximum likelihood and maximum a posteriori: a grid, then Newton steps. Kay (1993), sections 7.7 and 11.5.

Newton with the absolute values of the Hessian's eigenvalues: Nocedal & Wright (2006), section 3.4.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fanfold.core.abilities import offers, require
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import (
    KnownJoint,
    KnownLikelihood,
    Limited,
    Profiled,
    Searchable,
    periodic_of,
    wanted_of,
)

AXIS = {1: 128, 2: 48, 3: 24}  # points of a grid along each axis, by the number of axes
POINTS_AT_ONCE = 2**16  # of the grid, times samples, for their memory
FLATTEST = 1e-9  # of the largest eigenvalue, in units of the grid's ranges: curvature that a step counts with at least

Objective = Callable[[Tensor, Observation], Tensor]


class SearchLimits(NamedTuple):
    """The limits within which parameters lie, in double precision, `(n,)` each.

    Example:
        >>> import fanfold as ff
        >>> ff.estimators.MaximumLikelihood.of(ff.problems.Tone()).search.periodic
        tensor([False,  True])
    """

    low: Tensor
    high: Tensor
    periodic: Tensor  # whether high is next to low


class MaximumLikelihood:
    """`argmax_x log p(y|x)` over all parameters, of which the wanted ones are given, by a grid and Newton's method.

    The best point of the grid for each observation is improved by Newton steps along autograd's gradient and Hessian,
    in units of each parameter's range. A step that does not raise the objective is halved. A parameter at its limit
    stays there while the objective rises outwards; one that is periodic goes round.

    Args:
        model: A `problems.protocols.KnownLikelihood`, whose `log_likelihood` broadcasts x `(batch, points, n)` with y
            `(batch, 1, m)`. Where it is `Profiled` too, the grid's points take the parameters that suit y best.
        points: The grid, `(points, n)`.
        search: Limits of the parameters.
        steps: Newton steps at most.
        tolerance: A step shorter than this, in standard deviations of the estimate, is the last.

    Raises:
        ValueError: If the model lacks an ability, or there is no step.

    Example:
        >>> import fanfold as ff, torch
        >>> tone = ff.problems.Tone(snr_db=20.0)
        >>> x, obs = tone.sample(3, torch.Generator().manual_seed(0))
        >>> bool((ff.estimators.MaximumLikelihood.of(tone)(obs).x - x).abs().max() < 0.05)
        True
    """

    def __init__(self, model: object, points: Tensor, search: SearchLimits, steps: int = 30, tolerance: float = 1e-6):
        self.model = require(model, KnownLikelihood, type(self).__name__)
        if steps < 1:
            raise ValueError(f"steps is {steps}; pass at least one step.")
        self.points, self.search, self.steps, self.tolerance = points, search, steps, tolerance
        self.wanted = wanted_of(model, len(self.model.names))

    @classmethod
    def of(cls, problem: object, grid: int | None = None, steps: int = 30, tolerance: float = 1e-6) -> Self:
        """The estimator for a problem, which is asked for more than its likelihood.

        A `Limited` problem has limits of all parameters or of the wanted ones; others are unbounded. A `Searchable` one
        has a grid; without it the grid is the product of evenly spaced points on the limits, less those outside the
        prior's support where that is known. A `Profiled` one sets the parameters that have a closed form, such as a
        complex amplitude; without it every parameter needs limits, or a grid of the problem's. A `Periodic` one says
        which parameters live on a circle.

        Args:
            problem: The model.
            grid: Points of the grid: in all if the problem has a grid, else along each axis; None takes a usual number.
            steps: Newton steps at most.
            tolerance: A step shorter than this, in standard deviations of the estimate, is the last.

        Raises:
            ValueError: If the problem has no likelihood or there is nothing to make a grid of.
        """
        if grid is not None and grid < 2:
            raise ValueError(f"grid is {grid}; pass at least two points.")
        model = require(problem, KnownLikelihood, cls.__name__)
        search = search_of(model)
        return cls(model, grid_of(model, search, grid), search, steps, tolerance)

    def objective(self, x: Tensor, obs: Observation) -> Tensor:
        """The objective that is maximised, `(..., n)` with `(..., m)` -> `(...)`."""
        return self.model.log_likelihood(x, obs)

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The wanted parameters at the maximum, and their variances by the inverse of the observed information there.

        A variance is infinite where the objective is not curved: at a limit, or along what y does not tell.
        """
        flat, real = _flat(obs), obs.y.real.dtype
        size = max(1, POINTS_AT_ONCE // len(self.points))
        parts = [self._maximise(flat[i : i + size]) for i in range(0, len(flat.y), size)]
        x, var = (torch.cat(part).reshape(*obs.y.shape[:-1], -1).to(real) for part in zip(*parts, strict=True))
        return Estimate(x[..., self.wanted], var[..., self.wanted])

    def _maximise(self, obs: Observation) -> tuple[Tensor, Tensor]:
        x = self._best_point(obs)
        return newton(self.objective, x, obs, self.search, self.steps, self.tolerance)

    @torch.no_grad()
    def _best_point(self, obs: Observation) -> Tensor:
        each = Observation.unchecked(obs.y[:, None], None, None if obs.noise_var is None else obs.noise_var[:, None])
        x = self.model.profile(self.points, each) if offers(self.model, Profiled) else self.points
        x = x.expand(len(obs.y), *x.shape[-2:])
        best = self.objective(x, each).nan_to_num(nan=-math.inf).argmax(-1)
        return x[torch.arange(len(best)), best]


class MaximumAPosteriori(MaximumLikelihood):
    """`argmax_x log p(y|x) + log p(x)`, jointly over all parameters; otherwise as `MaximumLikelihood`.

    Where the prior is uniform this is maximum likelihood within its support.

    Example:
        >>> import fanfold as ff, torch
        >>> tone = ff.problems.Tone(snr_db=20.0, density="raised-cosine")
        >>> x, obs = tone.sample(3, torch.Generator().manual_seed(0))
        >>> ff.estimators.MaximumAPosteriori.of(tone)(obs).x.shape
        torch.Size([3, 1])
    """

    def __init__(self, model: object, points: Tensor, search: SearchLimits, steps: int = 30, tolerance: float = 1e-6):
        self.joint = require(model, KnownJoint, type(self).__name__)
        super().__init__(model, points, search, steps, tolerance)

    def objective(self, x: Tensor, obs: Observation) -> Tensor:
        """The objective that is maximised, `(..., n)` with `(..., m)` -> `(...)`."""
        return self.joint.log_likelihood(x, obs) + self.joint.log_prior(x)


def newton(
    objective: Objective, x: Tensor, obs: Observation, search: SearchLimits, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Climb from `x`, `(batch, n)`, to a maximum, and the variances there, `(batch, n)` each."""
    low, high, periodic = search
    unit = torch.where(torch.isfinite(high - low), high - low, 1.0)
    with torch.no_grad():
        value = objective(x, obs)
    climbing = torch.ones_like(value, dtype=torch.bool)
    for _ in range(steps):
        gradient, hessian = derivatives(objective, x, obs, unit)
        held = ((x <= low) & (gradient < 0) | (x >= high) & (gradient > 0)) & ~periodic
        step, length = _step(gradient, hessian, held)
        climbing = climbing & (length > tolerance)
        if not climbing.any():
            break
        x, value = _climb(objective, x, value, unit * step * climbing[:, None], obs, search)
    gradient, hessian = derivatives(objective, x, obs, unit)
    held = ((x <= low) & (gradient < 0) | (x >= high) & (gradient > 0)) & ~periodic
    return x, _variances(hessian, held) * unit.square()


def derivatives(objective: Objective, x: Tensor, obs: Observation, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient `(batch, n)` and Hessian `(batch, n, n)` with respect to `x / unit`; samples do not see each other."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x, obs).sum(), x, create_graph=True)
        if not gradient.requires_grad:  # linear in x
            return gradient * unit, x.new_zeros((*x.shape, x.shape[-1]))
        rows = [
            torch.autograd.grad(g.sum(), x, retain_graph=True, materialize_grads=True)[0] for g in gradient.unbind(-1)
        ]
    hessian = torch.stack(rows, -2) * unit[:, None] * unit
    return gradient.detach() * unit, (hessian + hessian.mT) / 2


def _step(gradient: Tensor, hessian: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """The step uphill of the parameters that are not held, and its length in standard deviations."""
    gradient = torch.where(held, 0.0, gradient)
    values, vectors = torch.linalg.eigh(_without(hessian, held))
    values = torch.maximum(values.abs(), FLATTEST * values.abs().amax(-1, keepdim=True)).clamp_min(1e-300)
    along = (vectors.mT @ gradient.unsqueeze(-1)).squeeze(-1)
    step = (vectors @ (along / values).unsqueeze(-1)).squeeze(-1)
    return torch.where(held, 0.0, step), (along.square() / values).sum(-1).sqrt()


def _without(hessian: Tensor, held: Tensor) -> Tensor:
    """With the rows and columns of held parameters those of `-1` on the diagonal."""
    off = held.unsqueeze(-1) | held.unsqueeze(-2)
    return torch.where(off, -torch.eye(held.shape[-1], dtype=hessian.dtype, device=hessian.device), hessian)


def _climb(
    objective: Objective, x: Tensor, value: Tensor, step: Tensor, obs: Observation, search: SearchLimits
) -> tuple[Tensor, Tensor]:
    """A step, halved until it does not lower the objective; where none does, none is taken."""
    low, high, periodic = search
    done = torch.zeros_like(value, dtype=torch.bool)
    with torch.no_grad():
        for halvings in range(12):
            moved = x + step * 0.5**halvings
            round_ = torch.remainder(moved - low, high - low) + low
            moved = torch.where(periodic, round_, moved.clamp(low, high))
            reached = objective(moved, obs)
            better = (reached >= value) & ~done
            x, value = torch.where(better[:, None], moved, x), torch.where(better, reached, value)
            done = done | better
            if done.all():
                break
    return x, value


def _variances(hessian: Tensor, held: Tensor) -> Tensor:
    """Diagonal of the inverse of minus the Hessian; infinite where that is not positive definite, or held."""
    information = -_without(hessian, held)
    good = torch.linalg.eigvalsh(information)[:, 0] > 0
    identity = torch.eye(held.shape[-1], dtype=hessian.dtype, device=hessian.device)
    inverse = torch.linalg.inv(torch.where(good[:, None, None], information, identity))
    return torch.where(good[:, None] & ~held, inverse.diagonal(dim1=-2, dim2=-1), math.inf)


def search_of(model: KnownLikelihood) -> SearchLimits:
    """The limits that a model says of its parameters; without a word, none.

    Raises:
        ValueError: If there are limits neither for all parameters nor for the wanted ones.
    """
    n, limits = len(model.names), model.limits if offers(model, Limited) else ()
    wanted = wanted_of(model, n)
    if limits and len(limits) not in (n, len(wanted)):
        raise ValueError(f"{len(limits)} limits for {n} parameters, {len(wanted)} wanted; give one for each of either.")
    low, high = torch.full((n,), -math.inf, dtype=torch.float64), torch.full((n,), math.inf, dtype=torch.float64)
    for i, (least, most) in zip(range(n) if len(limits) == n else wanted, limits):
        low[i], high[i] = least, most
    return SearchLimits(low, high, torch.tensor(periodic_of(model, n)))


def grid_of(model: KnownLikelihood, search: SearchLimits, count: int | None = None) -> Tensor:
    """Points `(points, n)` that a search starts from, within the support of the prior.

    Raises:
        ValueError: If a parameter has neither limits nor a profile, or there are too many axes for a usual size.
    """
    if offers(model, Searchable):
        return model.grid(count).double()
    low, high, _ = search
    free = [i for i in range(len(low)) if not math.isfinite(high[i] - low[i])]
    if free and not offers(model, Profiled):
        names = ", ".join(model.names[i] for i in free[:3]) + (", ..." if len(free) > 3 else "")
        raise ValueError(
            f"{type(model).__name__} has no limits for {names}: there is no grid over them. Give the problem limits, a "
            "grid(count), or a profile(x, obs) that sets them."
        )
    axes = [i for i in range(len(low)) if i not in free]
    if len(axes) not in AXIS and count is None:
        raise ValueError(f"a grid over {len(axes)} parameters has no usual size; pass grid, points along each axis.")
    along = count or AXIS[len(axes)]
    shares = (torch.arange(along, dtype=torch.float64) + 0.5) / along
    ticks = [(low[i] + (high[i] - low[i]) * shares).tolist() for i in axes]
    points = torch.ones(along ** len(axes), len(low), dtype=torch.float64)
    points[:, axes] = torch.tensor(list(itertools.product(*ticks)), dtype=torch.float64)
    if free or not offers(model, KnownJoint):
        return points
    return points[model.log_prior(points) > -math.inf]


def _flat(obs: Observation) -> Observation:
    """The observation in double precision with one batch axis, and a noise variance for each sample."""
    y = obs.y.to(torch.complex128 if obs.y.is_complex() else torch.float64)
    var = obs.noise_var
    if var is not None:
        var = var.double().expand(*y.shape[:-1], 1).reshape(-1, 1)
    return Observation.unchecked(y.reshape(-1, y.shape[-1]), None, var)
