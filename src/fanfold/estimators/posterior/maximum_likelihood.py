"""Maximum likelihood and maximum a posteriori: a grid, then Newton steps. Kay (1993), sections 7.7 and 11.5.

Newton with the absolute values of the Hessian's eigenvalues: Nocedal & Wright (2006), section 3.4.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.observation import Estimate, Observation
from fanfold.problems.protocols import KnownModel

AXIS = {1: 128, 2: 48, 3: 24}  # points of a grid along each axis, by the number of axes
CELLS = 2**16  # grid points times samples at a time, for their memory
LEAST = 1e-9  # of the largest eigenvalue, in units of the grid's ranges: curvature that a step counts with at least


class Search(NamedTuple):
    """Where parameters lie, in double precision, `(n,)` each."""

    low: Tensor
    high: Tensor
    periodic: Tensor  # whether high is next to low


class MaximumLikelihood:
    """`argmax_x log p(y|x)` over all parameters, of which the wanted ones are given, by a grid and Newton's method.

    The best point of the grid for each observation is improved by Newton steps along autograd's gradient and Hessian,
    in units of each parameter's range. A step that does not raise the objective is halved. A parameter at its limit
    stays there while the objective rises outwards; one that is periodic goes round.

    What a problem offers besides `log_likelihood`, which broadcasts x `(batch, points, n)` with y `(batch, 1, m)`:
        limits: `((low, high), ...)` of all parameters, or of the wanted ones alone; others are unbounded.
        grid: `grid(count) -> (points, n)`, `count` None for as many as the problem thinks right. Without it the grid is
            the product of evenly spaced points on the limits, less those outside the prior's support.
        profile: `profile(x, obs) -> x` of `(points, n)` and y `(batch, 1, m)`: those parameters that have a closed
            form, such as a complex amplitude, at their best for the others and y. Without it every parameter needs
            limits, or a grid of the problem's own.
        periodic: Whether a parameter's largest value is next to its least, a bool for each; none if left out.

    Args:
        problem: The model.
        grid: Points of the grid: in all if the problem has a grid of its own, else along each axis.
        steps: Newton steps at most.
        tolerance: A step shorter than this, in standard deviations of the estimate, is the last.

    Raises:
        ValueError: If the problem has no likelihood or there is nothing to make a grid of.
    """

    def __init__(self, problem: Any, grid: int | None = None, steps: int = 30, tolerance: float = 1e-6):
        if not isinstance(problem, KnownModel):
            raise ValueError(f"{type(problem).__name__} has no log_likelihood; {type(self).__name__} needs one.")
        if steps < 1 or (grid is not None and grid < 2):
            raise ValueError(f"grid is {grid} and steps {steps}; pass at least two points and one step.")
        self.problem, self.steps, self.tolerance = problem, steps, tolerance
        self.wanted = list(getattr(problem, "wanted", range(len(problem.names))))
        self.search = limits_of(problem, self.wanted)
        self.points = self._points(grid)

    def objective(self, x: Tensor, obs: Observation) -> Tensor:
        """What is maximised, `(..., n)` with `(..., m)` -> `(...)`."""
        return self.problem.log_likelihood(x, obs)

    def __call__(self, obs: Observation) -> Estimate:
        """The wanted parameters at the maximum, and their variances by the inverse of the observed information there.

        A variance is infinite where the objective is not curved: at a limit, or along what y does not tell.
        """
        flat, real = _flat(obs), obs.y.real.dtype
        sizes = max(1, CELLS // len(self.points))
        parts = [self._maximise(flat[i : i + sizes]) for i in range(0, len(flat.y), sizes)]
        x, var = (torch.cat(part).reshape(*obs.y.shape[:-1], -1).to(real) for part in zip(*parts, strict=True))
        return Estimate(x[..., self.wanted], var[..., self.wanted])

    def _points(self, count: int | None) -> Tensor:
        """The grid, `(points, n)`, within the support of the prior."""
        if hasattr(self.problem, "grid"):
            return self.problem.grid(count).double()
        low, high, _ = self.search
        free = [i for i in range(len(low)) if not math.isfinite(high[i] - low[i])]
        if free and not hasattr(self.problem, "profile"):
            names = ", ".join(self.problem.names[i] for i in free[:3]) + (", ..." if len(free) > 3 else "")
            raise ValueError(
                f"{type(self.problem).__name__} has no limits for {names}: there is no grid over them. Give the "
                "problem limits, a grid(count), or a profile(x, obs) that sets them."
            )
        axes = [i for i in range(len(low)) if i not in free]
        if len(axes) not in AXIS and count is None:
            raise ValueError(
                f"a grid over {len(axes)} parameters has no usual size; pass grid, points along each axis."
            )
        each = count or AXIS[len(axes)]
        steps = (torch.arange(each, dtype=torch.float64) + 0.5) / each
        ticks = [(low[i] + (high[i] - low[i]) * steps).tolist() for i in axes]
        points = torch.ones(each ** len(axes), len(low), dtype=torch.float64)
        points[:, axes] = torch.tensor(list(itertools.product(*ticks)), dtype=torch.float64)
        return points if free else points[self.problem.log_prior(points) > -math.inf]

    def _maximise(self, obs: Observation) -> tuple[Tensor, Tensor]:
        x = self._best_point(obs)
        return newton(self.objective, x, obs, self.search, self.steps, self.tolerance)

    @torch.no_grad()
    def _best_point(self, obs: Observation) -> Tensor:
        every = Observation.unchecked(obs.y[:, None], None, None if obs.noise_var is None else obs.noise_var[:, None])
        x = self.problem.profile(self.points, every) if hasattr(self.problem, "profile") else self.points
        x = x.expand(len(obs.y), *x.shape[-2:])
        best = self.objective(x, every).nan_to_num(nan=-math.inf).argmax(-1)
        return x[torch.arange(len(best)), best]


class MaximumAPosteriori(MaximumLikelihood):
    """`argmax_x log p(y|x) + log p(x)`, jointly over all parameters; otherwise as `MaximumLikelihood`.

    Where the prior is uniform this is maximum likelihood within its support.
    """

    def objective(self, x: Tensor, obs: Observation) -> Tensor:
        return self.problem.log_likelihood(x, obs) + self.problem.log_prior(x)


Objective = Callable[[Tensor, Observation], Tensor]


def newton(
    objective: Objective, x: Tensor, obs: Observation, search: Search, steps: int, tolerance: float
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
    values = torch.maximum(values.abs(), LEAST * values.abs().amax(-1, keepdim=True)).clamp_min(1e-300)
    along = (vectors.mT @ gradient.unsqueeze(-1)).squeeze(-1)
    step = (vectors @ (along / values).unsqueeze(-1)).squeeze(-1)
    return torch.where(held, 0.0, step), (along.square() / values).sum(-1).sqrt()


def _without(hessian: Tensor, held: Tensor) -> Tensor:
    """With the rows and columns of held parameters those of `-1` on the diagonal."""
    off = held.unsqueeze(-1) | held.unsqueeze(-2)
    return torch.where(off, -torch.eye(held.shape[-1], dtype=hessian.dtype, device=hessian.device), hessian)


def _climb(
    objective: Objective, x: Tensor, value: Tensor, step: Tensor, obs: Observation, search: Search
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


def limits_of(problem: Any, wanted: list[int]) -> Search:
    """What a problem says of where its parameters lie; without a word, anywhere."""
    n = len(problem.names)
    low, high = torch.full((n,), -math.inf, dtype=torch.float64), torch.full((n,), math.inf, dtype=torch.float64)
    said = getattr(problem, "limits", ())
    if said and len(said) not in (n, len(wanted)):
        raise ValueError(f"{len(said)} limits for {n} parameters, {len(wanted)} wanted; give one for each of either.")
    for i, (least, most) in zip(range(n) if len(said) == n else wanted, said):
        low[i], high[i] = least, most
    return Search(low, high, torch.tensor(getattr(problem, "periodic", (False,) * n)))


def _flat(obs: Observation) -> Observation:
    """The observation in double precision with one batch axis, and a noise variance for each sample."""
    y = obs.y.to(torch.complex128 if obs.y.is_complex() else torch.float64)
    var = obs.noise_var
    if var is not None:
        var = var.double().expand(*y.shape[:-1], 1).reshape(-1, 1)
    return Observation.unchecked(y.reshape(-1, y.shape[-1]), None, var)
