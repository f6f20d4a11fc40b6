"""The uniform prior; the posterior is a truncated Gaussian. Johnson, Kotz & Balakrishnan (1994), sec. 13.10.1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.truncated import Truncated, truncated_gaussian
from fanfold.priors.base import Prior, in_single

LEAST_VAR = 1e-150  # of the noise: its fourth power and that of its reciprocal are finite


@dataclass(frozen=True)
class Uniform(Prior):
    """Entries are uniform between `low` and `high`, and real.

    Raises:
        ValueError: If the interval is empty; of draws and posteriors, if they are to be complex.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.priors.Uniform(0.0, 1.0).posterior_mean(torch.tensor([0.5]), 0.1).item()
        0.5
    """

    low: float = -1.0  # lower end
    high: float = 1.0  # upper end

    circular = False

    def __post_init__(self):
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"an interval from {self.low} to {self.high}; pass low < high.")

    @property
    def symmetric(self) -> bool:
        return self.low == -self.high

    @property
    def power(self) -> float:
        return (self.low**2 + self.low * self.high + self.high**2) / 3

    @property
    def landmarks(self):
        return (self.low, 0.0), ((self.low + self.high) / 2, (self.high - self.low) / 2), (self.high, 0.0)

    def sample(self, shape, generator, dtype=torch.float32):
        self._check_real(dtype)
        unit = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        return self.low + (self.high - self.low) * unit

    def log_prob(self, x):
        self._check_real(x.dtype)
        inside = (x >= self.low) & (x <= self.high)
        return torch.where(inside, -math.log(self.high - self.low), -math.inf).to(x.dtype)

    @in_single
    def log_evidence(self, r, v):
        seen, _, v = self._seen(r, v)
        return torch.where(v == 0, self.log_prob(r), (seen.log_mass - math.log(self.high - self.low)).to(r.dtype))

    @in_single
    def posterior(self, r, v, given=None):
        seen, sigma, v = self._seen(r, v)
        nearest = torch.where(r < self.low, self.low, torch.where(r > self.high, self.high, r.double()))
        return (nearest + sigma * seen.offset).to(r.dtype), (v * seen.var).to(r.dtype)

    def _seen(self, r: Tensor, v) -> tuple[Truncated, Tensor, Tensor]:
        """The interval in standard deviations from r, in double precision, the deviation and the variance."""
        self._check_real(r.dtype)
        v = torch.as_tensor(v, dtype=torch.float64, device=r.device).expand(r.shape)
        sigma = v.clamp_min(LEAST_VAR).sqrt()
        low, high, width = (
            (self.low - r.double()) / sigma,
            (self.high - r.double()) / sigma,
            (self.high - self.low) / sigma,
        )
        return truncated_gaussian(low, high, width), sigma, v

    @staticmethod
    def _check_real(dtype: torch.dtype) -> None:
        if dtype.is_complex:
            raise ValueError("a uniform prior is of real parameters; take two for a complex one.")
