"""Newton's method within limits, for a batch, with the absolute values of the Hessian's eigenvalues.

Nocedal & Wright (2006), section 3.4.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.units import ordinary_binade
from fanfold.observation import Observation

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


def newton(
    objective: Objective, x: Tensor, obs: Observation, search: SearchLimits, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Climb from `x`, `(batch, n)`, to a maximum, and the variances there, `(batch, n)` each."""
    low, high, periodic = search
    unit = torch.where(torch.isfinite(high - low), high - low, _size(x[:, ~torch.isfinite(high - low)]))
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


def _size(x: Tensor) -> Tensor:
    """How large the parameters without limits are, `(batch, 1)`, as a power of two; one where that is ordinary."""
    return ordinary_binade(x.abs().amax(-1, keepdim=True)) if x.shape[-1] else x.new_ones(len(x), 1)


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
    hessian = torch.stack(rows, -2) * unit[..., :, None] * unit[..., None, :]
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
    var = inverse.diagonal(dim1=-2, dim2=-1)
    return torch.where(good[:, None] & ~held & (var > 0), var, math.inf)  # of a nearly singular one rounding is left
