"""An epidemic of susceptible, infected and recovered. Kermack & McKendrick (1927); Lueckmann et al. (2021), T.9."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Box, Weighed, cut_normal, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

MEANS, SPREADS = (math.log(0.4), math.log(0.125)), (0.5, 0.2)  # of log beta and log gamma
REACH = 5.0  # standard deviations of the prior within which the posterior is sought
FIRST = (256, 128)
AT_ONCE = 16_384  # epidemics that are solved together, to stay within the cache
LEAST = 1e-300  # share of infected


@dataclass(frozen=True)
class Epidemic(Described):
    """`dS/dt = -beta S I / N`, `dI/dt = beta S I / N - gamma I` from one infected of a million, in 160 days.

    `log beta ~ N(log 0.4, 0.5²)`, `log gamma ~ N(log 0.125, 0.2²)`; y are ten counts `Binomial(1000, I / N)`, evenly
    spaced, as floating numbers. Solved by Runge and Kutta's method of fourth order.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import Epidemic
        >>> x, obs = Epidemic().sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape
        (torch.Size([3, 2]), torch.Size([3, 10]))
    """

    population: float = 1e6
    tested: int = 1000  # people at a time
    days: int = 160
    counts: int = 10
    steps_a_day: int = 2
    keep: int = 64  # cells that are halved in a round
    rounds: int = 4
    least: float = 20.0  # effective points, below which the posterior is NaN
    box: Box | None = None  # within which the parameters are drawn; everywhere if not given

    A = None
    names = ("beta", "gamma")
    limits = ((0.0, math.inf), (0.0, math.inf))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 2)` and y `(n, counts)`."""
        if self.box is None:
            white = torch.randn(n, 2, generator=generator, dtype=torch.float64)
            logs = white.new_tensor(MEANS) + white.new_tensor(SPREADS) * white
        else:
            logs = cut_normal(n, self.box, MEANS, SPREADS, generator)
        count = torch.full((n, self.counts), float(self.tested), dtype=torch.float64)
        y = torch.binomial(count, self.infected(logs), generator=generator)
        return logs.exp().float(), Observation(y.float())

    def restricted(self, low: Sequence[float], high: Sequence[float]) -> Self:
        """The same problem with each parameter between its bounds; `posterior` stays that of the whole prior."""
        return replace(self, box=tuple(zip(low, high, strict=True)))

    def infected(self, logs: Tensor) -> Tensor:
        """The share of infected when they are counted, `(n, 2)` logs of the rates -> `(n, counts)`."""
        return torch.cat([self._solved(part.exp()) for part in logs.split(AT_ONCE)])

    def _solved(self, rates: Tensor) -> Tensor:
        beta, gamma = rates[:, 0].contiguous(), rates[:, 1].contiguous()
        h = 1 / self.steps_a_day
        i = torch.full_like(beta, 1 / self.population)
        s, seen = 1 - i, []

        def slope(s: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
            new = beta * s * i
            return -new, new - gamma * i

        for step in range(1, self.days * self.steps_a_day + 1):
            s1, i1 = slope(s, i)
            s2, i2 = slope(s + h / 2 * s1, i + h / 2 * i1)
            s3, i3 = slope(s + h / 2 * s2, i + h / 2 * i2)
            s4, i4 = slope(s + h * s3, i + h * i3)
            s = s + h / 6 * (s1 + 2 * (s2 + s3) + s4)
            i = i + h / 6 * (i1 + 2 * (i2 + i3) + i4)
            if step % (self.days * self.steps_a_day // self.counts) == 0:
                seen.append(i)
        return torch.stack(seen, -1).clamp(LEAST, 1 - 1e-12)

    def weighed(self, y: Tensor) -> Weighed:
        """Points of logs and their weights for double y `(batch, counts)`."""
        mean, spread = y.new_tensor(MEANS), y.new_tensor(SPREADS)

        def log_density(z: Tensor) -> Tensor:
            share = _everywhere(self) if len(z) == 1 < len(y) or z.shape[1] == math.prod(FIRST) else None
            share = self.infected(z.flatten(0, 1)).unflatten(0, z.shape[:2]) if share is None else share
            logs = (share.log() - torch.log1p(-share)) @ y.unsqueeze(-1)
            logs = logs.squeeze(-1) + self.tested * torch.log1p(-share).sum(-1)
            return logs - 0.5 * ((z - mean) / spread).square().sum(-1)

        return halved_cells(log_density, mean - REACH * spread, mean + REACH * spread, FIRST, self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance of both rates, double, by quadrature over their logs."""

        def moments(y: Tensor) -> Estimate:
            logs = self.weighed(y)
            return Weighed(logs.x.exp(), logs.log_weight).estimate(self.least)

        return in_parts(moments, obs, 50)


@lru_cache(maxsize=2)
def _everywhere(problem: Epidemic) -> Tensor:
    """The share of infected at the midpoints of the first cells, `(1, cells, counts)`."""
    axes = [
        mean + REACH * spread * (2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count - 1)
        for mean, spread, count in zip(MEANS, SPREADS, FIRST, strict=True)
    ]
    return problem.infected(torch.cartesian_prod(*axes)).unsqueeze(0)
