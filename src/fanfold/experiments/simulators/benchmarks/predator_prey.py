"""Predators and prey. Lotka (1920) and Volterra (1926); Lueckmann et al. (2021), T.10."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Box, Weighed, cut_normal, in_parts, sobol, student_points
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

MEANS, SPREAD = (-0.125, -3.0, -0.125, -3.0), 0.5  # of the logs of the parameters
START = (30.0, 1.0)
LEAST = 1e-30  # a population that single precision holds
STARTS = 2048  # draws of the prior among which searches begin
AT_ONCE = 16_384  # solutions that are computed together, to stay within the cache
STEPS = 14  # of a search
DIFFERENCE = 1e-5  # of logs, for derivatives


@dataclass(frozen=True)
class PredatorPrey(Described):
    """`du/dt = u (alpha - beta v)`, `dv/dt = v (delta u - gamma)` for 20 days from 30 prey u and one predator v.

    The parameters `alpha, beta, gamma, delta` are log-normal, and y, both populations at ten times, has log-normal
    noise. Solved by Runge and Kutta's method of fourth order for `log u` and `log v`. Draws whose populations single
    precision does not hold are drawn again.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import PredatorPrey
        >>> x, obs = PredatorPrey().sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape
        (torch.Size([3, 4]), torch.Size([3, 20]))
    """

    noise: float = 0.1  # standard deviation of log y
    days: int = 20
    times: int = 10
    steps_a_day: int = 10
    points: int = 2048  # of the importance sampling
    searches: int = 3  # for the mode
    least: float = 100.0  # effective points, below which the posterior is NaN
    box: Box | None = None  # within which the parameters are drawn; everywhere if not given

    A = None
    names = ("alpha", "beta", "gamma", "delta")
    limits = ((0.0, math.inf),) * 4

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 4)` and y `(n, 2 times)`, the prey first."""
        x, log_y = (torch.empty(n, d, dtype=torch.float64) for d in (4, 2 * self.times))
        missing = torch.arange(n)
        while len(missing):
            if self.box is None:
                white = torch.randn(len(missing), 4, generator=generator, dtype=torch.float64)
                x[missing] = white.new_tensor(MEANS) + SPREAD * white
            else:
                x[missing] = cut_normal(len(missing), self.box, MEANS, (SPREAD,) * 4, generator)
            noise = torch.randn(len(missing), 2 * self.times, generator=generator, dtype=torch.float64)
            log_y[missing] = self.log_populations(x[missing]) + self.noise * noise
            missing = missing[~(log_y[missing].abs() < -math.log(LEAST)).all(-1)]
        return x.exp().float(), Observation(log_y.exp().float())

    def restricted(self, low: Sequence[float], high: Sequence[float]) -> Self:
        """The same problem with each parameter between its bounds; `posterior` stays that of the whole prior."""
        return replace(self, box=tuple(zip(low, high, strict=True)))

    def log_populations(self, logs: Tensor) -> Tensor:
        """Logs of both populations when they are seen, `(n, 4)` logs of the parameters -> `(n, 2 times)`."""
        return torch.cat([self._solved(part.exp()) for part in logs.split(AT_ONCE)])

    def _solved(self, rates: Tensor) -> Tensor:
        alpha, beta, gamma, delta = (part.contiguous() for part in rates.unbind(-1))
        h, steps = 1 / self.steps_a_day, self.days * self.steps_a_day
        p, q = (torch.full_like(alpha, math.log(start)) for start in START)
        prey, predators = [], []

        def slope(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
            return alpha - beta * q.exp(), delta * p.exp() - gamma

        for step in range(1, steps + 1):
            p1, q1 = slope(p, q)
            p2, q2 = slope(p + h / 2 * p1, q + h / 2 * q1)
            p3, q3 = slope(p + h / 2 * p2, q + h / 2 * q2)
            p4, q4 = slope(p + h * p3, q + h * q3)
            p = p + h / 6 * (p1 + 2 * (p2 + p3) + p4)
            q = q + h / 6 * (q1 + 2 * (q2 + q3) + q4)
            if step % (steps // self.times) == 0:
                prey.append(p)
                predators.append(q)
        return torch.stack([*prey, *predators], -1)

    def residuals(self, logs: Tensor, log_y: Tensor) -> Tensor:
        """What `log p(x | y)` is minus half the square of: misfits to y `(batch, 2 times)` and to the prior.

        Parameters are `(batch, n, 4)`; a misfit beyond 1e6 standard deviations counts as that.
        """
        misfit = (
            log_y.unsqueeze(-2) - self.log_populations(logs.flatten(0, -2)).unflatten(0, logs.shape[:-1])
        ) / self.noise
        both = torch.cat([misfit, (logs.new_tensor(MEANS) - logs) / SPREAD], -1)
        return torch.nan_to_num(both, nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)

    def weighed(self, y: Tensor) -> Weighed:
        """Points of logs and their weights for double y `(batch, 2 times)`."""
        log_y = y.log()
        mode, precision = self._mode(log_y)
        root = torch.linalg.inv(torch.linalg.cholesky(precision)).mT

        def log_density(z: Tensor) -> Tensor:
            return -0.5 * self.residuals(z, log_y).square().sum(-1)

        return student_points(log_density, mode, root, self.points, dof=6.0)

    def _mode(self, log_y: Tensor) -> tuple[Tensor, Tensor]:
        """The mode of the logs `(batch, 4)` and their precision there; Levenberg (1944) and Marquardt (1963)."""
        x, solved = _starts(self)
        misfit = torch.cdist(log_y, solved).square() / self.noise**2
        prior = ((x - x.new_tensor(MEANS)) / SPREAD).square().sum(-1)
        best = (misfit + prior).topk(self.searches, -1, largest=False).indices
        z = x[best]  # (batch, searches, 4)
        r = self.residuals(z, log_y)
        damping = torch.full((*z.shape[:-1], 1, 1), 1e-2, dtype=z.dtype)
        for _ in range(STEPS):
            J = self._slopes(z, r, log_y)
            H = J.mT @ J
            step = torch.linalg.solve(
                H + damping * H.diagonal(dim1=-2, dim2=-1).diag_embed(), -(J.mT @ r.unsqueeze(-1))
            )
            trial = z + step.squeeze(-1).clamp(-0.5, 0.5)
            at_trial = self.residuals(trial, log_y)
            better = (at_trial.square().sum(-1) < r.square().sum(-1))[..., None]
            z, r = torch.where(better, trial, z), torch.where(better, at_trial, r)
            damping = torch.where(better[..., None], damping / 5, damping * 8).clamp(1e-12, 1e8)
        J = self._slopes(z, r, log_y)
        rows, best = torch.arange(len(z)), r.square().sum(-1).argmin(-1)
        return z[rows, best], (J.mT @ J)[rows, best]

    def _slopes(self, z: Tensor, r: Tensor, log_y: Tensor) -> Tensor:
        """Derivatives of the residuals, `(batch, searches, residuals, 4)`, by differences."""
        shifted = z.unsqueeze(-2) + DIFFERENCE * torch.eye(4, dtype=z.dtype)
        moved = self.residuals(shifted.flatten(1, 2), log_y).unflatten(1, (*z.shape[1:2], 4))
        return ((moved - r.unsqueeze(-2)) / DIFFERENCE).mT

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance of the parameters, double, by importance sampling of their logs around the mode."""

        def moments(y: Tensor) -> Estimate:
            logs = self.weighed(y)
            return Weighed(logs.x.exp(), logs.log_weight).estimate(self.least)

        return in_parts(moments, obs, 50)


@lru_cache(maxsize=2)
def _starts(problem: PredatorPrey) -> tuple[Tensor, Tensor]:
    """Draws of the prior and what they lead to: logs of parameters and of populations."""
    x = torch.tensor(MEANS, dtype=torch.float64) + SPREAD * torch.special.ndtri(sobol(4, STARTS, 1))
    solved = problem.log_populations(x)
    fine = solved.isfinite().all(-1)
    return x[fine], solved[fine]
