"""OAMP-Net2. He, Wen, Jin & Li (2020), section III: OAMP with gamma, theta, phi and xi to learn in each layer."""

from dataclasses import dataclass, field

import torch

from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, settings_of
from fanfold.algorithms.residual import rounding_variance
from fanfold.algorithms.tista import State
from fanfold.core.units import power
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior


@dataclass(frozen=True)
class OAMPNet2(Algorithm):
    """OAMP whose error variances are read off the residual: step gamma, its variance theta, denoiser phi and xi.

    Untrained it is the paper's OAMP detector: a linear MMSE step made unbiased, then the plain posterior mean (phi = 1,
    xi = 0), which is not made divergence-free as in `OAMP`. It needs the noise variance.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.OAMPNet2(), 100)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)

    by_svd = True

    @property
    def nominals(self):
        ones = {k: Nominal(lambda *_: 1.0, POSITIVE, vector=False) for k in ("gamma", "theta", "phi")}
        return settings_of(self.prior) | ones | {"xi": Nominal(lambda *_: 0.0, FREE, vector=False)}

    def start(self, obs):
        if obs.noise_var is None:
            raise ValueError("OAMPNet2 needs noise_var; pass it in the Observation.")
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, var=x.real)

    def step(self, s, obs, theta):
        A, (U, d, V), n = obs.A, obs.A.svd(), obs.A.seen().count
        expected = self.prior.power * d.square().sum(-1, keepdim=True) / A.m
        rounding = rounding_variance(power(obs.y).mean(-1, keepdim=True), expected)
        noise_var = torch.maximum(obs.noise_var, rounding)
        e, least = obs.y - A @ s.x, s.var.new_tensor(1e-9 * self.prior.power)
        v2 = (power(e).sum(-1, keepdim=True) - A.m * noise_var) / d.square().sum(-1, keepdim=True)
        v2 = v2.clamp_min(least)
        w = d * v2 / (d**2 * v2 + noise_var)  # LMMSE, W = V diag(w) Uᴴ ...
        w = w * n / (d * w).sum(-1, keepdim=True)  # ... with tr(W A) = n
        r = s.x + theta.gamma * (V @ (w * (U.H @ e)))
        left = (1 - theta.theta * d * w).square().sum(-1, keepdim=True)
        C = left + (n - d.shape[-1])  # tr(C Cᴴ), C = I - theta W A
        tau2 = (C * v2 + theta.theta**2 * w.square().sum(-1, keepdim=True) * noise_var) / n
        x, var = self.prior.posterior(r, A.seen().noise(tau2, self.prior.power), theta)
        return State(theta.phi * (x - theta.xi * r), var)

    def read(self, s):
        return Estimate(s.x, s.var)
