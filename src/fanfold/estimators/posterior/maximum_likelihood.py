"""Maximum likelihood and maximum a posteriori: a grid, then Newton steps. Kay (1993), sections 7.7 and 11.5."""

import itertools
import math
import warnings
from typing import Self

import torch
from torch import Tensor

from fanfold.core.abilities import offers, require
from fanfold.estimators.posterior.newton import SearchLimits, newton
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
UNTOLD = 1e-12  # of the objective's size: what changes by less over the whole grid changes by rounding alone


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

        A variance is infinite where the objective is not curved: at a limit, or along what y does not tell. Where y
        tells nothing at all, as silence tells nothing of a direction, the objective is the same on the whole grid: that
        sample is NaN, and a warning names it.
        """
        flat, real = _flat(obs), obs.y.real.dtype
        size = max(1, POINTS_AT_ONCE // len(self.points))
        parts = [self._maximise(flat[i : i + size]) for i in range(0, len(flat.y), size)]
        x, var = (torch.cat(part) for part in zip(*parts, strict=True))
        self._warn(x)
        x, var = (part.reshape(*obs.y.shape[:-1], -1).to(real) for part in (x, var))
        return Estimate(x[..., self.wanted], var[..., self.wanted])

    def _maximise(self, obs: Observation) -> tuple[Tensor, Tensor]:
        start, tells = self._best_point(obs)
        x, var = newton(self.objective, start, obs, self.search, self.steps, self.tolerance)
        return x.masked_fill(~tells, math.nan), var.masked_fill(~tells, math.inf)

    def _warn(self, x: Tensor) -> None:
        untold = x.isnan().all(-1)
        if untold.any():
            warnings.warn(
                f"{type(self).__name__} is NaN for {int(untold.sum())} of {len(x)} samples, of which y tells nothing: "
                f"the objective of sample {int(untold.nonzero()[0])} is the same at all points of the grid. Is it "
                "silent, or in other units than the model's?",
                stacklevel=3,
            )

    @torch.no_grad()
    def _best_point(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """The best point of the grid for each observation, `(batch, n)`, and whether any is better, `(batch, 1)`."""
        each = Observation.unchecked(obs.y[:, None], None, None if obs.noise_var is None else obs.noise_var[:, None])
        x = self.model.profile(self.points, each) if offers(self.model, Profiled) else self.points
        x = x.expand(len(obs.y), *x.shape[-2:])
        values = self.objective(x, each).nan_to_num(nan=-math.inf)
        (top, best), low = values.max(-1), values.amin(-1)
        tells = torch.isfinite(top) & (top - low > UNTOLD * torch.maximum(top.abs(), low.abs()).clamp_max(1e300))
        return x[torch.arange(len(best)), best], tells[:, None]


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
