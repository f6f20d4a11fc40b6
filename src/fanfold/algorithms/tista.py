"""TISTA. Ito, Takabe & Wadayama (2019), eqs. 9-12: pseudo-inverse steps, posterior means, one number a layer."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, settings_of
from fanfold.core.units import power
from fanfold.linops import LinearOperator, reciprocal, refuse_rank_deficient
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior


class State(NamedTuple):
    """The state of TISTA and of OAMP-Net2."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance


def _inverse(A: LinearOperator) -> tuple[Tensor, int | Tensor]:
    """The singular values of the pseudo-inverse and how many are not zero: a number, or `(batch, 1)`."""
    d = A.svd().s
    inverse = reciprocal(d, A.shape)
    rank = (inverse > 0).sum(-1, keepdim=True)
    return inverse, rank.to(d.dtype) if A.varies else A.once("tista.rank", lambda: int(rank))


@dataclass(frozen=True)
class TISTA(Algorithm):
    """Pseudo-inverse steps `r = x + gamma A⁺ (y - A x)`, then posterior means under a prior; the paper learns gamma.

    Untrained, gamma is `n / k` for A of rank k, which makes r unbiased. The variance of the error is read off the
    residual, less what the noise puts there (nothing if it is unknown). The residual does not see errors in the null
    space of A: next to no noise, some samples rest at a wrong point with a variance far too small. Take OAMP there,
    whose messages are orthogonal to their errors.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.TISTA(), 100)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)

    by_svd = True

    @property
    def nominals(self):
        gamma = Nominal(lambda tista, obs: obs.A.seen().count / _inverse(obs.A)[1], POSITIVE, vector=False)
        return {"gamma": gamma} | settings_of(self.prior)

    def start(self, obs):
        refuse_rank_deficient(obs.A)
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, var=x.real)

    def step(self, s, obs, theta):
        A, gamma, (U, d, V), seen, (inverse, rank) = obs.A, theta.gamma, obs.A.svd(), obs.A.seen(), _inverse(obs.A)
        noise_var = d.new_zeros(()) if obs.noise_var is None else obs.noise_var
        e, least = obs.y - A @ s.x, d.new_tensor(self.prior.power) * 1e-12
        v = ((power(e).sum(-1, keepdim=True) - A.m * noise_var) / d.square().sum(-1, keepdim=True)).clamp_min(least)
        r = s.x + gamma * (V @ (inverse * (U.H @ e)))
        lost = noise_var * inverse.square().sum(-1, keepdim=True) / seen.count
        tau2 = (v * (1 + gamma * (gamma - 2) * rank / seen.count) + gamma**2 * lost).clamp_min(least)
        x, var = self.prior.posterior(r, seen.noise(tau2, self.prior.power), theta)
        return State(x, var)

    def read(self, s):
        return Estimate(s.x, s.var)
