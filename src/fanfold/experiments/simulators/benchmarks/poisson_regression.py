"""Poisson regression with a log link. McCullagh & Nelder (1989), chapter 6."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, damped_newton, in_parts, student_points
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described


@dataclass(frozen=True)
class PoissonRegression(Described):
    """Counts `Poisson(exp(v_iᵀ x))` at rows `v_i ~ N(0, I)` with coefficients `x ~ N(0, spread²)`.

    y is `Vᵀ counts`, which is sufficient: numbers of both signs over many decades.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import PoissonRegression
        >>> x, obs = PoissonRegression().sample(3, torch.Generator().manual_seed(0))
        >>> PoissonRegression().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 6]), torch.Size([3, 6]))
    """

    coefficients: int = 6
    rows: int = 40
    spread: float = 0.8  # standard deviation of a coefficient
    seed: int = 0  # of the rows
    points: int = 4096  # of the importance sampling
    least: float = 200.0  # effective points, below which the posterior is NaN

    A = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(f"coefficient {i}" for i in range(self.coefficients))

    def design(self) -> Tensor:
        """V, `(rows, coefficients)`, double."""
        return _design(self.rows, self.coefficients, self.seed)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x and y, both `(n, coefficients)`."""
        V = self.design()
        x = self.spread * torch.randn(n, self.coefficients, generator=generator, dtype=torch.float64)
        counts = torch.poisson((x @ V.mT).exp(), generator=generator)
        return x.float(), Observation((counts @ V).float())

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, coefficients)`: Student-t around Laplace's approximation."""
        V, precision = self.design(), torch.eye(self.coefficients, dtype=torch.float64) / self.spread**2

        def derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
            rate = (x @ V.mT).exp()
            return y - rate @ V - x @ precision, (V.mT * rate.unsqueeze(-2)) @ V + precision

        def log_density(x: Tensor) -> Tensor:
            expected = (x @ V.mT).exp().sum(-1)
            return (x @ y.unsqueeze(-1)).squeeze(-1) - expected - 0.5 * (x @ precision * x).sum(-1)

        mode, curvature = damped_newton(derivatives, V, torch.zeros_like(y))
        root = torch.linalg.inv(torch.linalg.cholesky(curvature)).mT
        return student_points(log_density, mode, root, self.points, dof=10.0)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance by importance sampling, double; NaN where too few points carry the weight."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 16)


@lru_cache(maxsize=4)
def _design(rows: int, coefficients: int, seed: int) -> Tensor:
    return torch.randn(rows, coefficients, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
