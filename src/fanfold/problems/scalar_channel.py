"""Entries of a known prior in Gaussian noise: y = x + w, whose posterior mean is the prior's own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.noise import circular
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian, Prior
from fanfold.priors.base import gaussian_log_prob
from fanfold.problems.base import Described
from fanfold.units import from_db


@dataclass(frozen=True)
class ScalarChannel(Described):
    """`y = x + w`, n independent entries `x ~ prior`; the SNR is `E|x|² / noise_var`."""

    prior: Prior = BernoulliGaussian()  # noqa: RUF009 # type: ignore[assignment]
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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(self.n))

    @property
    def wanted(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self.n))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs: x and y `(n, entries)`."""
        x = self.prior.sample((n, self.n), generator)
        y = x + circular((n, self.n), generator, var=self.noise_var)
        return x, Observation(y, None, torch.tensor(self.noise_var))

    sample_all = sample

    def mean(self, x: Tensor) -> Tensor:
        """It is x."""
        return x

    def log_prior(self, x: Tensor) -> Tensor:
        return self.prior.log_prob(x).sum(-1)

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        return gaussian_log_prob(obs.y - x, self.noise_var).sum(-1)

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of each entry, in double precision."""
        mean, var = self.prior.posterior(obs.y.double(), self.noise_var)
        return Estimate(mean.to(obs.y.dtype), var.to(obs.y.dtype))
