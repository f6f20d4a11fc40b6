"""The Gaussian prior, whose posterior mean is linear."""

from dataclasses import dataclass

import torch

from fanfold.core.domain import POSITIVE
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors.base import Prior, gaussian_log_prob, in_single, over_entries


@dataclass(frozen=True)
class Gaussian(Prior):
    """Entries are `N(0, var)`, or `CN(0, var)` if complex.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.priors.Gaussian(var=1.0).posterior_mean(torch.tensor([2.0]), 1.0).item()
        1.0
    """

    var: float = 1.0  # variance of an entry

    learnable = {"var": POSITIVE}

    @property
    def power(self) -> float:
        return self.var

    def sample(self, shape, generator, dtype=torch.float32):
        return circular(shape, generator, dtype, self.var)

    def log_prob(self, x):
        return gaussian_log_prob(x, self.var)

    @in_single
    def log_evidence(self, r, v):
        return gaussian_log_prob(r, self.var + v)

    @in_single
    def posterior(self, r, v, given=None):
        var = torch.as_tensor((given or self).var, dtype=r.real.dtype, device=r.device)
        gain = var / (var + v)
        return r * gain, gain * v * torch.ones_like(r.real)

    def refit(self, r, v, given, nominal, trust, mean=over_entries):
        x, var = self.posterior(r, v, given)
        energy = mean(power(x) + var)
        return {"var": (energy + trust * nominal.var) / (1 + trust)}
