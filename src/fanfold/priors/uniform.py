"""The uniform prior; the posterior is a truncated Gaussian. Johnson, Kotz & Balakrishnan (1994), sec. 13.10.1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.priors.base import Prior


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

    def sample(self, shape, generator, dtype=torch.float32):
        self._check_real(dtype)
        unit = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        return self.low + (self.high - self.low) * unit

    def log_prob(self, x):
        self._check_real(x.dtype)
        inside = (x >= self.low) & (x <= self.high)
        return torch.where(inside, -math.log(self.high - self.low), -math.inf).to(x.dtype)

    def log_evidence(self, r, v):
        a, b, _ = self._ends(r, v)
        return (log_mass(a, b) - math.log(self.high - self.low)).to(r.dtype)

    def posterior(self, r, v, given=None):
        a, b, sigma = self._ends(r, v)
        lost = log_mass(a, b)
        at_a, at_b = (torch.exp(-0.5 * z.square() - 0.5 * math.log(2 * math.pi) - lost) for z in (a, b))
        shift = at_a - at_b
        mean = r.double() + sigma * shift
        var = sigma.square() * (1 + a * at_a - b * at_b - shift.square())
        inside = mean.clamp(self.low, self.high)
        # far outside digits cancel; there it is an exponential distribution from the near end
        far = torch.minimum(a.abs(), b.abs()) * (a.sign() * b.sign() > 0)
        tail = sigma.square() / far.clamp_min(1.0).square()
        var = torch.where(far > 1e3, tail, var.clamp_min(0.0))
        return inside.to(r.dtype), var.to(r.dtype)

    def _ends(self, r: Tensor, v) -> tuple[Tensor, Tensor, Tensor]:
        """The ends of the interval in standard deviations from r, in double precision, and the deviation."""
        self._check_real(r.dtype)
        sigma = torch.as_tensor(v, dtype=torch.float64, device=r.device).sqrt().expand(r.shape)
        return (self.low - r.double()) / sigma, (self.high - r.double()) / sigma, sigma

    @staticmethod
    def _check_real(dtype: torch.dtype) -> None:
        if dtype.is_complex:
            raise ValueError("a uniform prior is of real parameters; take two for a complex one.")


def log_mass(a: Tensor, b: Tensor) -> Tensor:
    """`log(Φ(b) - Φ(a))` for `a < b`, from the tail where that is nearer."""
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)  # now b is the one further into the body
    upper = torch.special.log_ndtr(b)
    return upper + torch.log(-torch.expm1(torch.special.log_ndtr(a) - upper))
