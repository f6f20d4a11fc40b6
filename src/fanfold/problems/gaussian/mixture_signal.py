"""A Gaussian-mixture vector through a linear map; its posterior is a mixture too. Flåm et al. (2012), section III."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.observation import Estimate, Observation
from fanfold.problems.gaussian.white_gaussian import WhiteGaussian


@dataclass(frozen=True)
class MixtureSignal(WhiteGaussian):
    """`y = A x + w` where x comes from one of several Gaussians with means and covariances of their own.

    Means are `N(0, I)`, covariances have the standard deviation `spread` times a Wishart draw of mean I, all are
    equally likely, and A has iid entries of variance `1 / m`. The SNR is that of an unknown of unit variance.

    Raises:
        ValueError: If a size or the spread is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.MixtureSignal(n=3, m=2, components=4)
        >>> x, obs = problem.sample(5, torch.Generator().manual_seed(0))
        >>> problem.posterior(obs).var.shape
        torch.Size([5, 3])
    """

    n: int = 3  # unknowns
    m: int = 3  # measurements
    components: int = 4  # Gaussians
    spread: float = 0.3  # standard deviation within a component
    snr_db: float = 5.0  # 1 / noise_var
    seed: int = 0  # seed of means, covariances and the operator A

    A = None

    def __post_init__(self):
        if min(self.n, self.m, self.components) < 1 or self.spread <= 0:
            raise ValueError(f"{self}: pass positive sizes and a positive spread.")

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs: x `(n, unknowns)` and y `(n, m)`."""
        A, means, roots = (part.float() for part in _drawn(self.n, self.m, self.components, self.spread, self.seed))
        which = torch.randint(self.components, (n,), generator=generator)
        x = means[which] + (roots[which] @ torch.randn(n, self.n, 1, generator=generator)).squeeze(-1)
        y = x @ A.mT + circular((n, self.m), generator, var=self.noise_var)
        return x, Observation(y, None, torch.tensor(self.noise_var))

    def mean(self, x: Tensor) -> Tensor:
        """`A x`, `(..., n)` -> `(..., m)`."""
        return x @ _drawn(self.n, self.m, self.components, self.spread, self.seed)[0].to(x.dtype).mT

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of the mixture, `(..., n)` -> `(...)`."""
        _, means, roots = _drawn(self.n, self.m, self.components, self.spread, self.seed)
        return _log_densities(x.double(), means, roots @ roots.mT).logsumexp(-1).to(x.dtype) - math.log(self.components)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance of the mixture of the components' posteriors, `(..., n)`."""
        A, means, roots = _drawn(self.n, self.m, self.components, self.spread, self.seed)
        y, C = obs.y.double(), roots @ roots.mT
        seen = A @ C @ A.mT + self.noise_var * torch.eye(self.m, dtype=A.dtype)
        share = torch.softmax(_log_densities(y, means @ A.mT, seen), -1).unsqueeze(-1)  # (..., components, 1)
        gain = torch.linalg.solve(seen, A @ C).mT  # (components, n, m)
        each = means + (gain @ (y.unsqueeze(-2) - means @ A.mT).unsqueeze(-1)).squeeze(-1)
        var = (C - gain @ A @ C).diagonal(dim1=-2, dim2=-1)
        mean = (share * each).sum(-2)
        total = (share * (var + (each - mean.unsqueeze(-2)).square())).sum(-2)
        return Estimate(mean.to(obs.y.dtype), total.to(obs.y.dtype))


def _log_densities(x: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Log density of each Gaussian at x, `(..., n)` -> `(..., components)`."""
    L = torch.linalg.cholesky(covariances)
    white = torch.linalg.solve_triangular(L, (x.unsqueeze(-2) - means).unsqueeze(-1), upper=False).squeeze(-1)
    log_root = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * white.square().sum(-1) - log_root - 0.5 * x.shape[-1] * math.log(2 * math.pi)


@lru_cache(maxsize=16)
def _drawn(n: int, m: int, components: int, spread: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A `(m, n)`, means `(components, n)` and square roots of covariances `(components, n, n)`, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, generator=generator, dtype=torch.float64) / m**0.5
    means = torch.randn(components, n, generator=generator, dtype=torch.float64)
    G = torch.randn(components, n, 2 * n, generator=generator, dtype=torch.float64) / (2 * n) ** 0.5
    return A, means, spread * torch.linalg.cholesky(G @ G.mT)
