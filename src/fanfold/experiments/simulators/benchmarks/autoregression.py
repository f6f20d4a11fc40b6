"""An autoregressive series of first order. Box, Jenkins & Reinsel (2008), chapter 7."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described
from fanfold.problems.kinds import Kind

BOUND = 0.98  # of the coefficient
SPREAD = 0.7  # standard deviation of the log noise
REACH = 6.0  # standard deviations of the prior within which the posterior is sought


@dataclass(frozen=True)
class Autoregression(Described):
    """`y_t = coefficient y_{t-1} + exp(log noise) w_t`, `w_t ~ N(0, 1)`, begun in its stationary law.

    The coefficient is uniform within ±0.98, and `log noise ~ N(0, 0.7²)`.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import Autoregression
        >>> x, obs = Autoregression().sample(3, torch.Generator().manual_seed(0))
        >>> Autoregression().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 2]), torch.Size([3, 1, 100]))
    """

    length: int = 100
    keep: int = 96  # cells that are halved in a round
    rounds: int = 4
    least: float = 30.0  # effective points, below which the posterior is NaN

    A = None
    kind: ClassVar[Kind] = "sequence"
    names = ("coefficient", "log noise")
    limits = ((-BOUND, BOUND), (-math.inf, math.inf))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 2)` and y `(n, 1, length)`."""
        a = BOUND * (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
        log_noise = SPREAD * torch.randn(n, generator=generator, dtype=torch.float64)
        w = log_noise.exp().unsqueeze(-1) * torch.randn(n, self.length, generator=generator, dtype=torch.float64)
        series = [w[:, 0] / (1 - a.square()).sqrt()]
        for t in range(1, self.length):
            series.append(a * series[-1] + w[:, t])
        return torch.stack([a, log_noise], -1).float(), Observation(torch.stack(series, -1).unsqueeze(1).float())

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, 1, length)`."""
        low = torch.tensor([-BOUND, -REACH * SPREAD], dtype=torch.float64)
        series = y.squeeze(1)
        later, sooner = series[:, 1:], series[:, :-1]
        ends = (series[:, 0].square() + later.square().sum(-1)).unsqueeze(-1)
        lagged, inner = (later * sooner).sum(-1, keepdim=True), (sooner.square().sum(-1) - series[:, 0].square())

        def log_density(z: Tensor) -> Tensor:
            a, log_noise = z.unbind(-1)
            energy = ends - 2 * a * lagged + a.square() * inner.unsqueeze(-1)
            likelihood = (
                -self.length * log_noise + 0.5 * torch.log1p(-a.square()) - 0.5 * energy * (-2 * log_noise).exp()
            )
            return likelihood - 0.5 * (log_noise / SPREAD).square()

        return halved_cells(log_density, low, -low, (32, 48), self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double, by quadrature."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 100)
