"""Entries of a known prior in Gaussian noise: y = x + w, whose posterior mean is the prior's own."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian, Prior
from fanfold.problems.gaussian.white_gaussian import WhiteGaussian


@dataclass(frozen=True)
class Denoising(WhiteGaussian):
    """`y = x + w`, n independent entries `x ~ prior`; the SNR is `E|x|² / noise_var`.

    Raises:
        ValueError: If n is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.Denoising(ff.priors.Gaussian(1.0), snr_db=0.0)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> torch.allclose(problem.posterior(obs).x, obs.y / 2)
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)  # prior of each entry
    snr_db: float = 10.0  # E|x|² / noise_var
    n: int = 1  # entries

    A = None

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n is {self.n}; pass at least 1.")

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return self.prior.power / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs of x and y, `(n, entries)` each."""
        x = self.prior.sample((n, self.n), generator)
        y = x + circular((n, self.n), generator, var=self.noise_var)
        return x, Observation(y, None, torch.tensor(self.noise_var))

    def mean(self, x: Tensor) -> Tensor:
        """The mean of y, which is x itself."""
        return x

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of independent entries, `(..., n)` -> `(...)`."""
        return self.prior.log_prob(x).sum(-1)

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of each entry, in double precision."""
        mean, var = self.prior.posterior(obs.y.double(), self.noise_var)
        return Estimate(mean.to(obs.y.dtype), var.to(obs.y.dtype))
