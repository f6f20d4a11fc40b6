"""A Bernoulli generalised linear model. Lueckmann et al. (2021), appendix T.5; Gonçalves et al. (2020)."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fanfold.experiments.simulators.benchmarks.moments import Weighed, damped_newton, in_parts, student_points
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described


@dataclass(frozen=True)
class BernoulliGLM(Described):
    """`z_t ~ Bernoulli(sigmoid(v_tᵀ x))` in 100 bins of a white stimulus; y is `Vᵀ z`, which is sufficient.

    x is a bias of variance 2 and a smooth filter of nine lags, whose prior is `N(0, (Fᵀ F)⁻¹)`: F takes second
    differences and adds the square root of `0, 1/9, …` on its diagonal.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import BernoulliGLM
        >>> x, obs = BernoulliGLM().sample(3, torch.Generator().manual_seed(0))
        >>> BernoulliGLM().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 10]), torch.Size([3, 10]))
    """

    bins: int = 100
    lags: int = 9
    seed: int = 0  # of the stimulus
    points: int = 8192  # of the importance sampling
    least: float = 200.0  # effective points, below which the posterior is NaN

    A = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return ("bias", *(f"lag {i}" for i in range(self.lags)))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 1 + lags)` and y `(n, 1 + lags)`."""
        V, precision = _model(self.bins, self.lags, self.seed)
        white = torch.randn(n, self.lags + 1, generator=generator, dtype=torch.float64)
        L = torch.linalg.cholesky(precision)
        x = torch.linalg.solve_triangular(L.mT, white.unsqueeze(-1), upper=True).squeeze(-1)
        rate = torch.sigmoid(x @ V.mT)
        z = (torch.rand(n, self.bins, generator=generator, dtype=torch.float64) < rate).double()
        return x.float(), Observation((z @ V).float())

    def design(self) -> Tensor:
        """V, `(bins, 1 + lags)`, double."""
        return _model(self.bins, self.lags, self.seed)[0]

    def weighed(self, y: Tensor) -> Weighed:
        """Points and weights for double y `(batch, 1 + lags)`: Student-t around Laplace's approximation."""
        V, precision = _model(self.bins, self.lags, self.seed)

        def derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
            rate = torch.sigmoid(x @ V.mT)
            return y - rate @ V - x @ precision, (V.mT * (rate * (1 - rate)).unsqueeze(-2)) @ V + precision

        def log_density(x: Tensor) -> Tensor:
            penalty = torch.nn.functional.softplus(x @ V.mT).sum(-1)
            return (x @ y.unsqueeze(-1)).squeeze(-1) - penalty - 0.5 * (x @ precision * x).sum(-1)

        mode, curvature = damped_newton(derivatives, V, torch.zeros_like(y))
        root = torch.linalg.inv(torch.linalg.cholesky(curvature)).mT
        return student_points(log_density, mode, root, self.points, dof=12.0)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance by importance sampling, double; NaN where too few points carry the weight."""
        return in_parts(lambda y: self.weighed(y).estimate(self.least), obs, 16)


@lru_cache(maxsize=4)
def _model(bins: int, lags: int, seed: int) -> tuple[Tensor, Tensor]:
    """V `(bins, 1 + lags)` and the precision of the prior `(1 + lags, 1 + lags)`, double."""
    stimulus = torch.randn(bins, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    past = [torch.cat([torch.zeros(i, dtype=torch.float64), stimulus[: bins - i]]) for i in range(lags)]
    V = torch.stack([torch.ones(bins, dtype=torch.float64), *past], -1)
    eye = torch.eye(lags, dtype=torch.float64)
    D = eye - torch.diag(torch.ones(lags - 1, dtype=torch.float64), -1)
    F = D @ D + torch.diag((torch.arange(lags, dtype=torch.float64) / lags).sqrt())
    return V, torch.block_diag(torch.tensor([[0.5]], dtype=torch.float64), F.mT @ F)
