"""OAMP/VAMP in SVD form. Ma & Ping (2017), eqs. 29-34; Rangan, Schniter & Fletcher (2019), algorithm 2."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, UNIT, Algorithm, Nominal
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian
from fanfold.units import power


class State(NamedTuple):
    """Of OAMP; r and v go into the next linear step."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    r: Tensor  # (..., n) extrinsic mean
    v: Tensor  # (..., 1) extrinsic variance
    noise_var: Tensor  # (..., 1)


@dataclass(frozen=True)
class OAMP(Algorithm):
    """Orthogonal AMP: LMMSE steps and Bernoulli-Gaussian posterior means, for right-rotationally invariant A.

    The noise variance is given or, if unknown or so wished, re-estimated for each sample by expectation maximisation.
    """

    prior: BernoulliGaussian = field(default_factory=BernoulliGaussian)
    noise: Literal["given", "estimated"] = "given"

    nominals = {
        "p": Nominal(lambda oamp, obs: oamp.prior.p, UNIT),
        "var": Nominal(lambda oamp, obs: oamp.prior.var, POSITIVE),
        **{k: Nominal(lambda *_: 1.0, POSITIVE, vector=False) for k in ("noise_scale", "v_linear", "v_denoised")},
    }

    def start(self, obs):
        r = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        known = obs.noise_var is not None and self.noise == "given"
        noise_var = obs.noise_var if known else power(obs.y).mean(-1, keepdim=True) / 10
        v = r.real[..., :1] + r.real.new_tensor(self.prior.power)
        return State(x=r, var=r.real, r=r, v=v, noise_var=noise_var + 0 * v)

    def step(self, s, obs, theta):
        U, d, V = obs.A.svd()
        e, noise_var = U.H @ obs.y - d * (V.H @ s.r), s.noise_var
        for _ in range(3 if obs.noise_var is None or self.noise == "estimated" else 0):
            share = noise_var / (d**2 * s.v + noise_var)  # of each innovation that is noise
            noise_var = (power(e) * share**2 + noise_var * (1 - share)).mean(-1, keepdim=True)
        w = d * s.v / (d**2 * s.v + theta.noise_scale * noise_var)  # LMMSE
        alpha = (1 - (d * w).sum(-1, keepdim=True) / obs.A.n).clamp(1e-6, 1 - 1e-6)
        r, v = s.r + V @ (w * e) / (1 - alpha), theta.v_linear * s.v * alpha / (1 - alpha)  # orthogonal to s.r
        x, var = self.prior.posterior(r, v, theta)
        beta = (var.mean(-1, keepdim=True) / v).clamp(1e-6, 1 - 1e-6)  # divergence of the posterior mean
        return State(x, var, (x - beta * r) / (1 - beta), theta.v_denoised * v * beta / (1 - beta), noise_var)

    def read(self, s):
        return Estimate(s.x, s.var)
