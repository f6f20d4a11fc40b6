"""What problems `y = mean(x) + w` with white Gaussian noise share, where all n parameters are to be estimated."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fanfold.core.units import from_db
from fanfold.observation import Observation
from fanfold.priors.base import gaussian_log_prob
from fanfold.problems.base import Described


class WhiteGaussian(Described, ABC):
    """The `KnownModel` of a subclass that has `n`, `snr_db`, `sample` and `mean`; its SNR is `1 / noise_var`."""

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return 1 / from_db(self.snr_db)  # type: ignore[attr-defined]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(f"x{i}" for i in range(self.n))  # type: ignore[attr-defined]

    @property
    def wanted(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self.n))  # type: ignore[attr-defined]

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs of parameters and observation."""

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The same: there are no nuisance parameters."""
        return self.sample(n, generator)

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """Of y, `(..., n)` -> `(..., m)`."""

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)`, `(..., n)` -> `(...)`: of independent entries, where a subclass does not say otherwise."""
        assert self.prior is not None
        return self.prior.log_prob(x).sum(-1)

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)`, `(..., n)` with `(..., m)` -> `(...)`."""
        return gaussian_log_prob(obs.y - self.mean(x), self.noise_var).sum(-1)
