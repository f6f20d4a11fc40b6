"""Learned VAMP. Borgerding, Schniter & Rangan (2017), section V: VAMP whose singular vectors and values are learned."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, settings_of
from fanfold.algorithms.residual import rounding_variance
from fanfold.core.units import power
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior


class State(NamedTuple):
    """The state of learned VAMP; r and v go into the next linear stage."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    r: Tensor  # (..., n) extrinsic mean
    v: Tensor  # (..., 1) extrinsic variance


def singular_vectors(A: LinearOperator) -> tuple[Tensor, Tensor]:
    """The matrices `U` (m, k) and `V` (n, k), laid out as the sum with a deviation is: zero changes no bit."""
    U, _, V = A.svd()
    return A.once("lvamp.UV", lambda: (U.matrix().resolve_conj().contiguous(), V.matrix().resolve_conj().contiguous()))


@dataclass(frozen=True)
class LVAMP(Algorithm):
    """VAMP with an LMMSE stage `A = U diag(s) Vᴴ` and posterior means, every part of which may be learned.

    Untrained it is VAMP with the SVD of A. Where the noise variance is unknown, the residual's power stands for it.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.LVAMP(), 10)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)

    parts = {
        "U": Nominal(lambda lvamp, obs: singular_vectors(obs.A)[0], FREE, lr_scale=1.0),
        "s": Nominal(lambda lvamp, obs: obs.A.svd().s, POSITIVE),
        "V": Nominal(lambda lvamp, obs: singular_vectors(obs.A)[1], FREE, lr_scale=1.0),
        "noise_scale": Nominal(lambda *_: 1.0, POSITIVE, vector=False),
    }

    one_matrix = by_svd = True

    @property
    def nominals(self):
        return self.parts | settings_of(self.prior)

    def start(self, obs):
        r = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        v = r.real[..., :1] + r.real.new_tensor(self.prior.power)
        return State(x=r, var=r.real, r=r, v=v)

    def step(self, s, obs, theta):
        A, y, U, d, V, seen = obs.A, obs.y, theta.U, theta.s, theta.V, obs.A.seen()
        gain = d.square().sum(-1, keepdim=True) / A.m  # energy of a measurement for unknowns of power 1
        rounding = A.n / 4 * rounding_variance(power(y).mean(-1, keepdim=True), self.prior.power * gain)  # noise too
        noise_var = power(y - A @ s.x).mean(-1, keepdim=True) if obs.noise_var is None else obs.noise_var
        v = torch.maximum(s.v, rounding / gain)
        w = d * v / (d**2 * v + theta.noise_scale * torch.maximum(noise_var, rounding))  # LMMSE
        alpha = (1 - (d * w).sum(-1, keepdim=True) / seen.count).clamp(1e-6, 1 - 1e-6)
        e = linear(y, U.mH) - d * linear(s.r, V.mH)
        r, v = s.r + linear(w * e, V) / (1 - alpha), v * alpha / (1 - alpha)
        x, var = self.prior.posterior(r, seen.noise(v, self.prior.power), theta)
        beta = (seen.mean(var) / v).clamp(1e-6, 1 - 1e-6)  # divergence of the posterior mean
        return State(x, var, seen.only((x - beta * r) / (1 - beta), x), v * beta / (1 - beta))

    def read(self, s):
        return Estimate(s.x, s.var)
