"""A picture of a Gaussian spot. Thompson, Larson & Webb (2002)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described
from fanfold.problems.kinds import Kind

WIDTHS = (math.log(0.8), math.log(4.0))  # log width in pixels


@dataclass(frozen=True)
class BlobPicture(Described):
    """`y_ij = exp(-((i - row)² + (j - column)²) / 2 width²) + w_ij` on 16 x 16 pixels, `w_ij ~ N(0, noise²)`.

    The centre is uniform on the picture, in pixels from its first corner, and the log width is uniform.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import BlobPicture
        >>> x, obs = BlobPicture().sample(3, torch.Generator().manual_seed(0))
        >>> BlobPicture().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 3]), torch.Size([3, 1, 16, 16]))
    """

    pixels: int = 16
    noise: float = 0.4
    keep: int = 160  # cells that are halved in a round
    rounds: int = 4
    least: float = 64.0  # effective points, below which the posterior is NaN

    A = None
    kind: ClassVar[Kind] = "image"
    names = ("row", "column", "log width")

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the largest value of each parameter."""
        return (0.0, self.pixels - 1.0), (0.0, self.pixels - 1.0), WIDTHS

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 3)` and y `(n, 1, pixels, pixels)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT
        x = low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)
        rows, columns = self._profiles(x)
        noise = torch.randn(n, self.pixels, self.pixels, generator=generator, dtype=torch.float64)
        y = rows.unsqueeze(-1) * columns.unsqueeze(-2) + self.noise * noise
        return x.float(), Observation(y.unsqueeze(1).float())

    def _profiles(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The spot along the rows and along the columns, `(..., pixels)` each: their product is the picture."""
        at = torch.arange(self.pixels, dtype=x.dtype)
        scaled = (at - x[..., :2].unsqueeze(-1)) * torch.exp(-x[..., 2])[..., None, None]
        rows, columns = torch.exp(-0.5 * scaled.square()).unbind(-2)
        return rows, columns

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, 1, pixels, pixels)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT

        def log_density(z: Tensor) -> Tensor:
            rows, columns = self._profiles(z)
            seen = ((rows @ y.squeeze(1)) * columns).sum(-1)
            return (seen - 0.5 * rows.square().sum(-1) * columns.square().sum(-1)) / self.noise**2

        return halved_cells(log_density, low, high, (16, 16, 6), self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double, by quadrature."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 16)
