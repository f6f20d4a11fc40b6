"""A set of draws from two Gaussians. Titterington, Smith & Makov (1985), chapter 4."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described
from fanfold.problems.kinds import Kind

WEIGHTS, SEPARATIONS = (0.05, 0.95), (0.0, 4.0)


@dataclass(frozen=True)
class MixtureSet(Described):
    """Fifty draws of `weight N(-separation / 2, 1) + (1 - weight) N(separation / 2, 1)`, in no order.

    Weight and separation are uniform.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import MixtureSet
        >>> x, obs = MixtureSet().sample(3, torch.Generator().manual_seed(0))
        >>> MixtureSet().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 2]), torch.Size([3, 50, 1]))
    """

    count: int = 50
    keep: int = 96  # cells that are halved in a round
    rounds: int = 2
    least: float = 30.0  # effective points, below which the posterior is NaN

    A = None
    kind: ClassVar[Kind] = "set"
    names = ("weight", "separation")
    limits = (WEIGHTS, SEPARATIONS)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 2)` and y `(n, count, 1)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT
        x = low + (high - low) * torch.rand(n, 2, generator=generator, dtype=torch.float64)
        lower = torch.rand(n, self.count, generator=generator, dtype=torch.float64) < x[:, :1]
        noise = torch.randn(n, self.count, generator=generator, dtype=torch.float64)
        y = torch.where(lower, -x[:, 1:] / 2, x[:, 1:] / 2) + noise
        return x.float(), Observation(y.unsqueeze(-1).float())

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, count, 1)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT

        def log_density(z: Tensor) -> Tensor:
            weight, separation = z[..., :1], z[..., 1:]
            rise = separation * y.mT / 2  # log ratio of the upper component to the common factor
            each = torch.logaddexp(weight.log() - rise, torch.log1p(-weight) + rise)
            return (each - separation.square() / 8).sum(-1)

        return halved_cells(log_density, low, high, (24, 24), self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double, by quadrature."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 20)
