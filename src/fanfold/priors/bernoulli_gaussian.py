"""The Bernoulli-Gaussian prior: most entries are zero, the others Gaussian."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fanfold.core.domain import POSITIVE, UNIT
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors.base import (
    Prior,
    Signal,
    Variance,
    capped_power,
    gaussian_log_prob,
    in_single,
    log_odds,
    over_entries,
    raised,
)


@dataclass(frozen=True)
class BernoulliGaussian(Prior):
    """An entry is zero with probability `1 - p`, else `N(0, var)`, or `CN(0, var)` if complex.

    Example:
        >>> import fanfold as ff, torch
        >>> x = ff.priors.BernoulliGaussian(p=0.1).sample((10_000,), torch.Generator().manual_seed(0))
        >>> 900 < (x != 0).sum() < 1100
        tensor(True)
    """

    p: float = 0.1  # probability that an entry is not zero
    var: float = 1.0  # variance of the entries that are not zero

    learnable = {"p": UNIT, "var": POSITIVE}

    @property
    def power(self) -> float:
        return self.p * self.var

    @property
    def landmarks(self):
        return (0.0, 0.0), (0.0, self.var**0.5)

    def sample(self, shape, generator, dtype=torch.float32):
        active = torch.rand(shape, generator=generator, device=generator.device) < self.p
        return circular(shape, generator, dtype, self.var) * active

    def log_prob(self, x):
        continuous = math.log(self.p) + gaussian_log_prob(x, self.var)
        return torch.where(x == 0, math.log1p(-self.p), continuous)

    @in_single
    def log_evidence(self, r, v):
        v = self._tensors(r, v, None)[-1]
        active = math.log(self.p) + gaussian_log_prob(r, self.var + v)
        noisy = torch.logaddexp(active, math.log1p(-self.p) + gaussian_log_prob(r, raised(v)))
        return torch.where(v == 0, self.log_prob(r), noisy)

    @in_single
    def posterior(self, r, v, given=None):
        p, var, v = self._tensors(r, v, given)
        gain, active = var / (var + v), self._activity(r, p, var, v)
        return r * (active * gain), active * (gain * v + (1 - active) * capped_power(r, var, v) * gain**2)

    # Vila & Schniter (2013), eqs. 19 and 36; a conjugate prior adds `trust`
    def refit(self, r, v, given, nominal, trust, mean=over_entries):
        p, var, v = self._tensors(r, v, given)
        gain, active = var / (var + v), self._activity(r, p, var, v)
        count, energy = (mean(a) for a in (active, active * (gain * v + power(r) * gain**2)))
        known = trust * nominal.p
        return {"p": (count + known) / (1 + trust), "var": (energy + known * nominal.var) / (count + known)}

    def activity(self, r: Signal, v: Variance, given: Any = None) -> Float[Tensor, "*batch"]:
        """The posterior probability that an entry is not zero."""
        return self._activity(r, *self._tensors(r, v, given))

    def _tensors(self, r: Tensor, v: Variance, given: Any) -> list[Tensor]:
        given = given or self
        return [torch.as_tensor(a, dtype=r.real.dtype, device=r.device) for a in (given.p, given.var, v)]

    @staticmethod
    def _activity(r: Tensor, p: Tensor, var: Tensor, v: Tensor) -> Tensor:
        return torch.sigmoid(torch.logit(p) + log_odds(r, var, v))
