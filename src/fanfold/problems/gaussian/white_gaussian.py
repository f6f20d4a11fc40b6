"""What problems `y = mean(x) + w` with white Gaussian noise share, where all n parameters are to be estimated."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors.base import gaussian_log_prob
from fanfold.problems.base import Described


class WhiteGaussian(Described, ABC):
    """The `KnownModel` of a subclass that has the fields `n` and `snr_db`; its SNR is `1 / noise_var`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=5, snr_db=10.0)
        >>> problem.names, round(problem.noise_var, 3)
        (('x0', 'x1'), 0.1)
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """The number of parameters."""

    @property
    @abstractmethod
    def snr_db(self) -> float:
        """The signal-to-noise ratio in dB."""

    @property
    @abstractmethod
    def A(self) -> LinearOperator | None:  # noqa: N802
        """The operator that observations carry, if any."""

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return 1 / from_db(self.snr_db)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, from `x0` on."""
        return tuple(f"x{i}" for i in range(self.n))

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places of all parameters, since all are estimated."""
        return tuple(range(self.n))

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs of parameters `(n, parameters)` and their observation."""

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The same as `sample`: there are no nuisance parameters."""
        return self.sample(n, generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given parameters and a measurement of each."""
        mean = self.mean(x)
        y = mean + circular(tuple(mean.shape), generator, mean.dtype, self.noise_var)
        return x, Observation(y, self.A, torch.tensor(self.noise_var))

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """The mean of y, `(..., n)` -> `(..., m)`."""

    @abstractmethod
    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)`, `(..., n)` -> `(...)`."""

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)`, `(..., n)` with `(..., m)` -> `(...)`."""
        return gaussian_log_prob(obs.y - self.mean(x), self.noise_var).sum(-1)
