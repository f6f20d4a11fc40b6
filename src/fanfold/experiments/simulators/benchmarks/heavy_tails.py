"""Location, scale and tail of a few samples of Student's law. Lange, Little & Taylor (1989)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts, student_points
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

LEAST, MOST = math.log(0.8), math.log(30.0)  # log degrees of freedom
LOCATION, SCALE = 3.0, 1.0  # standard deviations of the location and of the log scale


@dataclass(frozen=True)
class HeavyTails(Described):
    """Twelve samples `location + scale t`, with t of Student's law; y holds them in order of size.

    `location ~ N(0, 3²)`, `log scale ~ N(0, 1)`, and the log of the degrees of freedom is uniform from that of 0.8,
    where not even the mean exists, to that of 30, which is next to Gaussian.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import HeavyTails
        >>> x, obs = HeavyTails().sample(3, torch.Generator().manual_seed(0))
        >>> HeavyTails().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 3]), torch.Size([3, 12]))
    """

    count: int = 12
    keep: int = 128  # cells that are halved in a round, to see where the mass is
    rounds: int = 4
    points: int = 8192  # of the importance sampling
    least: float = 200.0  # effective points, below which the posterior is NaN

    A = None
    names = ("location", "log scale", "log degrees of freedom")
    limits = ((-math.inf, math.inf), (-math.inf, math.inf), (LEAST, MOST))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 3)` and y `(n, count)`."""
        white = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        tail = LEAST + (MOST - LEAST) * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        x = torch.cat([LOCATION * white[:, :1], SCALE * white[:, 1:], tail], -1)
        u = torch.rand(n, self.count, generator=generator, dtype=torch.float64)
        normal = torch.randn(n, self.count, generator=generator, dtype=torch.float64)
        # Bailey (1994): the radius of a pair of Student's law, and one of its coordinates
        half = tail.exp()
        radius = (half * torch.expm1(-2 / half * torch.log1p(-u))).sqrt()
        angle = 2 * math.pi * torch.special.ndtr(normal)
        y = x[:, :1] + x[:, 1:2].exp() * radius * angle.cos()
        return x.float(), Observation(y.sort(-1).values.float())

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, count)`: Student-t where a quadrature sees the mass."""
        middle = y.median(-1).values
        quarter = max(1, self.count // 4)
        width = ((y[:, -1 - quarter] - y[:, quarter]) / 2).clamp_min(1e-12)
        low = torch.stack([middle - 8 * width, width.log() - 4, torch.full_like(middle, LEAST)], -1).unsqueeze(1)
        high = torch.stack([middle + 8 * width, width.log() + 4, torch.full_like(middle, MOST)], -1).unsqueeze(1)

        def log_density(z: Tensor) -> Tensor:
            outside = (z[..., 2] < LEAST) | (z[..., 2] > MOST)
            location, log_scale, freedom = z[..., 0], z[..., 1], z[..., 2].exp()
            t = (y.unsqueeze(-2) - location.unsqueeze(-1)) * torch.exp(-log_scale).unsqueeze(-1)
            tails = torch.log1p(t.square() / freedom.unsqueeze(-1)).sum(-1)
            each = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * freedom.log() - log_scale
            prior = (location / LOCATION).square() + (log_scale / SCALE).square()
            log_p = self.count * each - (freedom + 1) / 2 * tails - 0.5 * prior
            return log_p.masked_fill(outside, -torch.inf)

        cells = halved_cells(log_density, low, high, (12, 12, 6), self.keep, self.rounds)
        return student_points(log_density, *cells.gaussian(), self.points, dof=5.0)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance by importance sampling, double; NaN where too few points carry the weight."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 16)
