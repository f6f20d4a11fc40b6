"""Simple likelihood, complex posterior. Papamakarios, Sterratt & Murray (2019), section 5."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import halved_cells, in_parts, student_points
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

BOUND = 3.0
FEW, MANY = (6, 6.0), (16, 13.0)  # nodes over x1 and their reach in nats, to see the mass and for the moments
LOST = 1e-290  # a probability that counts as none


@dataclass(frozen=True)
class SeveralModes(Described):
    """Four points of a plane from `N((x1, x2), Σ)`, with standard deviations `x3², x4²` and correlation `tanh x5`.

    The five parameters are uniform on [-3, 3]; y holds the points, one after the other. As the signs of `x3` and `x4`
    do not show, there are four modes, and `E[x3 | y] = E[x4 | y] = 0`.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import SeveralModes
        >>> x, obs = SeveralModes().sample(3, torch.Generator().manual_seed(0))
        >>> SeveralModes().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 5]), torch.Size([3, 8]))
    """

    points: int = 4
    keep: int = 128  # cells that are halved in a round, to see where the mass is
    rounds: int = 4
    samples: int = 8192  # of the importance sampling
    least: float = 200.0  # effective points, below which the posterior is NaN

    A = None
    names = ("x1", "x2", "x3", "x4", "x5")
    limits = ((-BOUND, BOUND),) * 5

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 5)` and y `(n, 2 points)`."""
        x = BOUND * (2 * torch.rand(n, 5, generator=generator, dtype=torch.float64) - 1)
        white = torch.randn(n, self.points, 2, generator=generator, dtype=torch.float64)
        rho = torch.tanh(x[:, None, 4])
        second = rho * white[..., 0] + (1 - rho**2).sqrt() * white[..., 1]
        first, second = x[:, :1] + x[:, 2:3] ** 2 * white[..., 0], x[:, 1:2] + x[:, 3:4] ** 2 * second
        return x.float(), Observation(torch.stack([first, second], -1).flatten(1).float())

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double.

        Importance sampling of `log |x3|, log |x4|, x5` where a quadrature sees the mass, quadrature over x1, whose law
        given these is cut off, and x2 in closed form. NaN where too few points carry the weight.
        """
        return in_parts(self._moments, obs, 8)

    def _moments(self, y: Tensor) -> Estimate:
        data = _Points.seen(y.unflatten(-1, (self.points, 2)))
        high = torch.tensor([math.log(BOUND), math.log(BOUND), BOUND], dtype=torch.float64)
        # standard deviations far below those of the points are ruled out: exp(-n s² / 2 σ²)
        least = data.scatter.diagonal(dim1=-2, dim2=-1).clamp_min(1e-24).log() / 4 - 1.5
        low = torch.cat([least.minimum(high[:2] - 1), least.new_full((len(y), 1), -BOUND)], -1).unsqueeze(1)

        def bounded(z: Tensor) -> tuple[Tensor, Tensor]:
            outside = ((z > high) | (z < low)).any(-1)
            z = torch.where(outside.unsqueeze(-1), high, z)
            return z, data.log_density(z).masked_fill(outside, -torch.inf)

        def log_density(z: Tensor) -> Tensor:
            z, log_p = bounded(z)
            return log_p + data.within(z, *FEW).log_mass.logsumexp(-1)

        cells = halved_cells(log_density, low, high, (10, 10, 10), self.keep, self.rounds)
        proposed = student_points(lambda z: torch.zeros_like(z[..., 0]), *cells.gaussian(), self.samples, dof=4.0)
        z, log_p = bounded(proposed.x)
        many = data.within(z, *MANY)
        log_weight = (log_p + proposed.log_weight).unsqueeze(-1) + many.log_mass
        weight = torch.softmax(log_weight.flatten(1), -1).unflatten(1, (len(z[0]), -1))

        def average(values: Tensor) -> Tensor:
            return (weight * values).sum((-2, -1))

        outer = weight.sum(-1)
        x5, zero = (outer * z[..., 2]).sum(-1), torch.zeros(len(y), dtype=torch.float64)
        mean = torch.stack([average(many.x1), average(many.x2), zero, zero, x5], -1)
        x1, x2, x5 = ((part - mean[:, i, None, None]) for i, part in ((0, many.x1), (1, many.x2), (4, z[..., 2:])))
        squares = [average(torch.exp(2 * z[..., i, None])) for i in (0, 1)]  # of x3 and x4
        var = [average(x1.square()), average(x2.square() + many.var2), *squares, average(x5.square())]
        sparse = ~(1 / outer.square().sum(-1, keepdim=True) >= self.least)
        return Estimate(mean.masked_fill(sparse, torch.nan), torch.stack(var, -1).masked_fill(sparse, torch.nan))


class _Within(NamedTuple):
    """Nodes over x1 within its bounds, and the law of x2 within its own, given each."""

    log_mass: Tensor  # (..., nodes)
    x1: Tensor
    x2: Tensor  # its mean
    var2: Tensor


class _Points(NamedTuple):
    """What of the points the likelihood takes."""

    mean: Tensor  # (batch, 2)
    scatter: Tensor  # (batch, 2, 2)
    count: int

    @classmethod
    def seen(cls, points: Tensor) -> "_Points":
        centred = points - points.mean(-2, keepdim=True)
        return cls(points.mean(-2), centred.mT @ centred, points.shape[-2])

    def log_density(self, z: Tensor) -> Tensor:
        """Log density of `log |x3|, log |x4|, x5` at z `(batch, n, 3)`, were x1 and x2 not bounded."""
        rho = torch.tanh(z[..., 2])
        rest, s = 1 - rho.square(), torch.exp(-2 * z[..., :2])
        S = self.scatter.unsqueeze(1)
        misfit = S[..., 0, 0] * s[..., 0] ** 2 + S[..., 1, 1] * s[..., 1] ** 2
        misfit = (misfit - 2 * rho * S[..., 0, 1] * s.prod(-1)) / rest
        log_det = 4 * z[..., :2].sum(-1) + rest.log()
        return z[..., :2].sum(-1) - 0.5 * (self.count - 1) * log_det - 0.5 * misfit

    def within(self, z: Tensor, nodes: int, nats: float) -> _Within:
        """The law of `(x1, x2)` within the bounds at z `(batch, n, 3)`: `N(mean, Σ / count)`, cut off.

        x1 is taken at Gauss's nodes, down to so many nats below its peak.
        """
        rho, sd = torch.tanh(z[..., 2:]), torch.exp(2 * z[..., :2]) / self.count**0.5
        m1, m2 = (self.mean[:, i, None, None] for i in (0, 1))
        s1, s2 = sd[..., :1], sd[..., 1:]
        low, high = (-BOUND - m1) / s1, (BOUND - m1) / s1
        peak = low.clamp_min(0.0) + high.clamp_max(0.0)
        reach = 2 * nats / (peak.abs() + (peak.square() + 2 * nats).sqrt())
        low, high = torch.maximum(low, peak - reach), torch.minimum(high, peak + reach)
        u, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
        t = (low + high) / 2 + (high - low) / 2 * u
        scale = s2 * (1 - rho.square()).sqrt()
        centre = m2 + rho * s2 * t
        a, b = (-BOUND - centre) / scale, (BOUND - centre) / scale
        sign = torch.where(a + b > 0, -1.0, 1.0)  # towards the lower tail, where differences keep their digits
        a, b = torch.where(sign < 0, -b, a), torch.where(sign < 0, -a, b)
        mass = (torch.special.ndtr(b) - torch.special.ndtr(a)).clamp_min(LOST)
        lost = mass <= LOST  # far from the bounds, where no mass is: any finite moments do
        at_a, at_b = (torch.exp(-0.5 * c.square()) / (2 * math.pi) ** 0.5 / mass for c in (a, b))
        at_a, at_b = at_a.masked_fill(lost, 0.0), at_b.masked_fill(lost, 0.0)
        shift = at_a - at_b
        var = (1 + a * at_a - b * at_b - shift.square()).clamp(0.0, 1.0)
        log_mass = mass.log() - 0.5 * t.square() + (w * (high - low) / 2).log()
        x2 = (centre + sign * scale * shift).clamp(-BOUND, BOUND)
        return _Within(log_mass, m1 + s1 * t, x2, scale.square() * var)
