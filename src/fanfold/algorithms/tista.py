"""TISTA. Ito, Takabe & Wadayama (2019), eqs. 9-12: pseudo-inverse steps, posterior means, one number a layer."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, settings_of
from fanfold.core.units import power
from fanfold.linops import refuse_rank_deficient
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior


class State(NamedTuple):
    """The state of TISTA and of OAMP-Net2."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance


@dataclass(frozen=True)
class TISTA(Algorithm):
    """Pseudo-inverse steps `r = x + gamma A⁺ (y - A x)`, then posterior means under a prior; the paper learns gamma.

    Untrained, gamma is `n / m`, which makes r unbiased. The variance of the error is read off the residual, less
    what the noise puts there (nothing if it is unknown).

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.TISTA(), 100)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)

    @property
    def nominals(self):
        gamma = Nominal(lambda tista, obs: obs.A.n / obs.A.m, POSITIVE, vector=False)
        return {"gamma": gamma} | settings_of(self.prior)

    def start(self, obs):
        refuse_rank_deficient(obs.A)
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, var=x.real)

    def step(self, s, obs, theta):
        A, gamma, (U, d, V) = obs.A, theta.gamma, obs.A.svd()
        noise_var = d.new_zeros(()) if obs.noise_var is None else obs.noise_var
        e, least = obs.y - A @ s.x, d.new_tensor(self.prior.power) * 1e-12
        v = ((power(e).sum(-1, keepdim=True) - A.m * noise_var) / d.square().sum(-1, keepdim=True)).clamp_min(least)
        r = s.x + gamma * (V @ ((U.H @ e) / d))
        tau2 = v * (1 + gamma * (gamma - 2) * A.m / A.n) + gamma**2 * noise_var * (d**-2).sum(-1, keepdim=True) / A.n
        x, var = self.prior.posterior(r, tau2, theta)
        return State(x, var)

    def read(self, s):
        return Estimate(s.x, s.var)
