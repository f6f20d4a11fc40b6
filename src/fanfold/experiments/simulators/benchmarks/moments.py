"""Posterior moments by points with weights: cells that are halved where the mass is, and importance sampling.

Robert & Casella (2004), sections 3.3 and 4.2 (effective size); the points are Sobol's, scrambled by a fixed seed, so
that the same observation always has the same posterior.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import scipy.special
import torch
from torch import Tensor

from fanfold.observation import Estimate, Observation

Box = tuple[tuple[float, float], ...]  # the least and the largest value of each parameter
LogDensity = Callable[[Tensor], Tensor]  # of points `(batch, points, d)`, up to a constant: `(batch, points)`


class Weighed(NamedTuple):
    """Points and weights that stand for a posterior of each sample."""

    x: Tensor  # (batch or 1, points, d)
    log_weight: Tensor  # (batch, points), up to a constant for each sample

    def size(self) -> Tensor:
        """The effective number of points, `(Σ w)² / Σ w²`, `(batch,)`."""
        return torch.exp(2 * self.log_weight.logsumexp(-1) - (2 * self.log_weight).logsumexp(-1))

    def estimate(self, least: float, inner: Tensor | None = None) -> Estimate:
        """Mean and variance, `(batch, d)`; NaN where the effective number of points is below `least`.

        Args:
            least: How many points must carry the weight.
            inner: Variances `(batch, points, d)` of parameters about those points; none if None.
        """
        weight = torch.softmax(self.log_weight, -1).unsqueeze(-2)  # (batch, 1, points)
        mean = weight @ self.x
        squares = (self.x - mean).square()
        var = (weight @ (squares if inner is None else squares + inner)).squeeze(-2)
        few = (~(self.size() >= least)).unsqueeze(-1)
        return Estimate(mean.squeeze(-2).masked_fill(few, torch.nan), var.masked_fill(few, torch.nan))

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """The mean `(batch, d)` and a root of the covariance `(batch, d, d)`, of full rank whatever the points."""
        weight = torch.softmax(self.log_weight, -1).unsqueeze(-2)
        mean = weight @ self.x
        centred = self.x - mean
        covariance = (weight * centred.mT) @ centred
        ridge = 1e-9 * covariance.diagonal(dim1=-2, dim2=-1) + 1e-300
        return mean.squeeze(-2), torch.linalg.cholesky(covariance + ridge.diag_embed())


def halved_cells(
    log_density: LogDensity, low: Tensor, high: Tensor, first: tuple[int, ...], keep: int, rounds: int
) -> Weighed:
    """Quadrature by the midpoint rule on a box whose cells are halved along every axis where the mass is.

    In each round the `keep` cells of most mass, of whatever size, are halved, so that in the end all that matter hold
    about as much. Several modes and narrow ridges are followed as long as their cells are among those kept, which is
    why `keep` is large.

    Args:
        log_density: See `LogDensity`; the first points are the same for all samples, `(1, points, d)`, where the box
            is.
        low: Lower ends, `(d,)` or `(batch, 1, d)`.
        high: Upper ends, likewise.
        first: How many cells there are along each axis at first.
        keep: How many cells are halved in each round.
        rounds: How many rounds there are.
    """
    d = len(first)
    axes = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in first]
    corner = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25], dtype=torch.float64)] * d).reshape(-1, d)
    corner = corner / torch.tensor(first, dtype=torch.float64)
    unit = torch.cartesian_prod(*axes).reshape(1, -1, d)
    log_mass = log_density(low + (high - low) * unit)
    unit = unit.expand(len(log_mass), -1, -1)
    width = torch.ones_like(log_mass)  # in those of the first cells
    for _ in range(rounds):
        best = log_mass.topk(min(keep, log_mass.shape[-1]), -1).indices
        at, wide = unit.gather(1, best.unsqueeze(-1).expand(-1, -1, d)), width.gather(1, best)
        new = (at.unsqueeze(-2) + wide[..., None, None] * corner).flatten(1, 2)
        wide = (wide / 2).repeat_interleave(2**d, -1)
        log_mass = log_mass.scatter(1, best, -torch.inf)  # replaced by its halves
        log_mass = torch.cat([log_mass, log_density(low + (high - low) * new) + d * wide.log()], 1)
        unit, width = torch.cat([unit, new], 1), torch.cat([width, wide], 1)
    return Weighed(low + (high - low) * unit, log_mass)


def student_points(
    log_density: LogDensity, centre: Tensor, root: Tensor, count: int, dof: float, seed: int = 0
) -> Weighed:
    """Importance sampling from a multivariate Student-t law.

    Args:
        log_density: See `LogDensity`; -inf outside the support.
        centre: `(batch, d)`.
        root: A square root of the scale matrix, `(batch, d, d)`.
        count: Number of points, the same for each sample up to centre and scale.
        dof: Degrees of freedom.
        seed: Which points.
    """
    d = centre.shape[-1]
    u = sobol(d + 1, count, seed)
    chi2 = torch.from_numpy(scipy.special.chdtri(dof, u[:, -1].numpy()))
    z = torch.special.ndtri(u[:, :-1]) * (dof / chi2).sqrt().unsqueeze(-1)
    log_q = -0.5 * (dof + d) * torch.log1p(z.square().sum(-1) / dof)
    x = centre.unsqueeze(-2) + z @ root.mT
    return Weighed(x, torch.nan_to_num(log_density(x), nan=-torch.inf) - log_q)


def sobol(d: int, count: int, seed: int) -> Tensor:
    """Sobol's points inside the unit cube, scrambled, `(count, d)`, double."""
    u = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(count, dtype=torch.float64)
    return u.clamp(2.0**-32, 1 - 2.0**-32)


def damped_newton(
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor]], design: Tensor, start: Tensor, steps: int = 50
) -> tuple[Tensor, Tensor]:
    """The peak of a generalised linear model's log posterior and the curvature there.

    Steps are cut so that no linear predictor moves by more than 1, over which `exp` and the logistic function change by
    a bounded factor: the damping of Sun & Tran-Dinh (2019) for such functions, in its simplest form.

    Args:
        derivatives: The gradient `(batch, d)` and minus the Hessian `(batch, d, d)` at `(batch, d)`.
        design: The matrix of the linear predictor, `(rows, d)`.
        start: Where to begin, `(batch, d)`.
        steps: Number of steps.
    """
    x = start
    for _ in range(steps):
        gradient, curvature = derivatives(x)
        step = torch.linalg.solve(curvature, gradient)
        x = x + step / (step @ design.mT).abs().amax(-1, keepdim=True).clamp_min(1.0)
    return x, derivatives(x)[1]


def in_parts(moments: Callable[[Tensor], Estimate], obs: Observation, most: int) -> Estimate:
    """The moments of the first axis's samples, `most` at a time for their memory, in double precision."""
    parts = [moments(y) for y in obs.y.double().split(most)]
    var = [part.var for part in parts if part.var is not None]
    return Estimate(torch.cat([part.x for part in parts]), torch.cat(var))


def cut_normal(
    n: int, box: Box, means: Sequence[float], spreads: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Draws `(n, d)` of independent Gaussians given that their exponentials lie in a box; by inversion, double.

    Args:
        n: How many.
        box: The least and the largest exponential of each, infinite where nothing bounds it.
        means: The mean of each Gaussian.
        spreads: Its standard deviation.
        generator: Where chance comes from.
    """
    mean, spread = (torch.tensor(values, dtype=torch.float64) for values in (means, spreads))
    low, high = ((torch.tensor(ends, dtype=torch.float64).clamp_min(0).log() - mean) / spread for ends in zip(*box))
    upper = low + high > 0  # of the two tails the one that keeps its digits
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    least, most = torch.special.ndtr(low), torch.special.ndtr(high)
    u = least + (most - least) * torch.rand(n, len(mean), generator=generator, dtype=torch.float64)
    z = torch.minimum(torch.maximum(torch.special.ndtri(u), low), high)
    return mean + spread * torch.where(upper, -z, z)
