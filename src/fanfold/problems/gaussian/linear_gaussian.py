"""Linear Gaussian model, where the posterior mean is linear. Kay (1993), theorem 10.3."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.linops import Dense
from fanfold.observation import Estimate, Observation
from fanfold.priors import Gaussian
from fanfold.problems.gaussian.white_gaussian import WhiteGaussian
from fanfold.problems.sparse.compressed_sensing import draw_operator


@dataclass(frozen=True)
class LinearGaussian(WhiteGaussian):
    """`y = A x + w` with n unknowns `x ~ N(0, I)`, m measurements and a random A with columns of unit norm on average.

    The SNR is that of an unknown, `1 / noise_var`. To an end-to-end estimator A is not shown; `show_operator` puts it
    into the observations, so that LMMSE and iterative algorithms apply.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.LinearGaussian(n=2, m=5)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> problem.posterior(obs).x.shape, obs.A is None
        (torch.Size([3, 2]), True)
    """

    n: int = 10  # unknowns
    m: int = 10  # measurements
    snr_db: float = 0.0  # 1 / noise_var
    show_operator: bool = False  # whether observations carry A
    seed: int = 0  # seed of the operator A

    def __post_init__(self):
        if self.n < 1 or self.m < 1:
            raise ValueError(f"n is {self.n} and m is {self.m}; pass positive sizes.")

    @property
    def A(self) -> Dense | None:  # noqa: N802
        """The operator, if it is shown."""
        return self.operator if self.show_operator else None

    @property
    def operator(self) -> Dense:
        """The operator, shown or not: iid entries of variance `1 / m`."""
        return _operator(self.n, self.m, self.seed)

    @property
    def prior(self) -> Gaussian:
        """The prior of each unknown."""
        return Gaussian(1.0)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs: x `(n, unknowns)` and y `(n, m)`."""
        A = self.operator
        x = self.prior.sample((n, self.n), generator)
        y = A @ x + circular((n, self.m), generator, var=self.noise_var)
        return x, Observation(y, A if self.show_operator else None, torch.tensor(self.noise_var))

    def mean(self, x: Tensor) -> Tensor:
        """`A x`, `(..., n)` -> `(..., m)`."""
        return x @ self.operator.matrix().to(x.dtype).mT

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of independent unknowns, `(..., n)` -> `(...)`."""
        return self.prior.log_prob(x).sum(-1)

    def posterior(self, obs: Observation) -> Estimate:
        """`(Aᵀ A + noise_var I)⁻¹ Aᵀ y` and the diagonal of the posterior covariance."""
        A = self.operator.matrix().double()
        covariance = torch.linalg.inv(A.mT @ A / self.noise_var + torch.eye(self.n, dtype=A.dtype))
        mean = obs.y.double() @ A @ covariance / self.noise_var
        return Estimate(mean.to(obs.y.dtype), covariance.diagonal().to(obs.y.dtype).expand(mean.shape))


@lru_cache(maxsize=32)
def _operator(n: int, m: int, seed: int) -> Dense:
    small, large = sorted((n, m))
    wide = draw_operator(small, large, "iid", 1.0, seed, "float32").matrix()
    return Dense(wide if m <= n else wide.mT * (n / m) ** 0.5)
