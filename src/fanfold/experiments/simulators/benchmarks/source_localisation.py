"""A source located by received powers under log-normal shadowing. Patwari et al. (2005)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.truncated import Truncated, truncated_gaussian
from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

SENSORS = ((-0.8, 0.03), (-0.45, -0.05), (0.05, 0.06), (0.4, -0.02), (0.85, 0.04))  # nearly on a line, km
NEAR = 0.05  # km, within which the power grows no more
EXPONENT = 3.0  # of the path loss


@dataclass(frozen=True)
class SourceLocalisation(Described):
    """`y_j = exp(log power) (d_j² + near²)^(-3/2) exp(shadowing w_j)` at five sensors, `w_j ~ N(0, 1)`.

    Position and log power are uniform, the distances d are in km and y is linear in power, over many decades. As the
    sensors stand nearly on a line, the source may be on either side of it.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import SourceLocalisation
        >>> x, obs = SourceLocalisation().sample(3, torch.Generator().manual_seed(0))
        >>> SourceLocalisation().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 3]), torch.Size([3, 5]))
    """

    shadowing: float = 0.5  # standard deviation of log y
    faintest: float = -7.0  # log power
    strongest: float = 7.0
    first: int = 48  # cells along each axis at first
    keep: int = 160  # cells that are halved in a round
    rounds: int = 3
    least: float = 30.0  # effective points, below which the posterior is NaN

    A = None
    names = ("east", "north", "log power")

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the largest value of each parameter."""
        return (-1.0, 1.0), (-1.0, 1.0), (self.faintest, self.strongest)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 3)` and y `(n, 5)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT
        x = low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, len(SENSORS), generator=generator, dtype=torch.float64)
        return x.float(), Observation((x[:, 2:] - loss(x[:, :2]) + self.shadowing * noise).exp().float())

    def weighed(self, y: Tensor) -> Weighed:
        """Positions and their weights, the power integrated out, for double y `(batch, 5)`."""
        low, high = torch.tensor(self.limits, dtype=torch.float64)[:2].mT

        def log_density(z: Tensor) -> Tensor:
            power = y.log().unsqueeze(-2) + loss(z)
            misfit = 0.5 * ((power - power.mean(-1, keepdim=True)) / self.shadowing).square().sum(-1)
            return self._power(power)[2].log_mass - misfit

        return halved_cells(log_density, low, high, (self.first, self.first), self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double, by quadrature over the position; the power's law given it is in closed form."""

        def moments(y: Tensor) -> Estimate:
            places = self.weighed(y)
            mean, deviation, cut = self._power(y.log().unsqueeze(-2) + loss(places.x))
            x = torch.cat([places.x, (mean + deviation * cut.mean).unsqueeze(-1)], -1)
            inner = torch.nn.functional.pad((deviation**2 * cut.var).unsqueeze(-1), (2, 0))
            return Weighed(x, places.log_weight).estimate(self.least, inner)

        return in_parts(moments, obs, 10)

    def _power(self, power: Tensor) -> tuple[Tensor, float, Truncated]:
        """The log power given what each sensor says of it: a Gaussian's mean and deviation, and how it is cut off."""
        mean, deviation = power.mean(-1), self.shadowing / power.shape[-1] ** 0.5
        cut = truncated_gaussian((self.faintest - mean) / deviation, (self.strongest - mean) / deviation)
        return mean, deviation, cut


def loss(place: Tensor) -> Tensor:
    """The log of the path loss from places `(..., 2)` to each sensor, `(..., 5)`."""
    squares = (place.unsqueeze(-2) - place.new_tensor(SENSORS)).square().sum(-1) + NEAR**2
    return EXPONENT / 2 * squares.log()
