"""Expectation propagation. Céspedes, Olmos, Sánchez-Fernández & Pérez-Cruz (2014), section IV: their EP detector."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms.base import POSITIVE, UNIT, Algorithm, Nominal, settings_of
from fanfold.observation import Estimate
from fanfold.priors import Constellation, Prior


class State(NamedTuple):
    """Of EP: a Gaussian factor with precision lam and precision times mean gamma stands for each entry's prior."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    gamma: Tensor  # (..., n)
    lam: Tensor  # (..., n) positive


@dataclass(frozen=True)
class EP(Algorithm):
    """Each prior becomes a Gaussian with the moments that it gives its entry beside all the others.

    Inverts an m x m matrix a step; needs the noise variance. As in the paper updates are damped, variances have a
    floor, and a factor that would turn negative stays. The estimate is the mean of the entry's own prior times its
    cavity, which at the fixed point is that of the Gaussian.
    """

    prior: Prior = field(default_factory=Constellation)
    damping: float = 0.2  # share of the new factor
    floor: float = 5e-7  # least variance, relative to the power of x

    @property
    def nominals(self):
        floor = Nominal(lambda ep, obs: ep.floor * ep.prior.power, POSITIVE)
        return settings_of(self.prior) | {"damping": Nominal(lambda ep, obs: ep.damping, UNIT), "floor": floor}

    def start(self, obs):
        if obs.noise_var is None:
            raise ValueError("EP needs noise_var; pass it in the Observation.")
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, var=x.real, gamma=x, lam=x.real + x.real.new_tensor(1 / self.prior.power))

    def step(self, s, obs, theta):
        A, H, eye = obs.A, obs.A.matrix(), torch.eye(obs.A.m, dtype=obs.A.dtype, device=obs.A.device)
        mean, D = s.gamma / s.lam, 1 / s.lam
        P = H.mH @ torch.linalg.inv((H * D[..., None, :]) @ H.mH + obs.noise_var[..., None] * eye)
        c = (P * H.mT).sum(-1).real
        t = mean + (P @ (obs.y - A @ mean)[..., None])[..., 0] / c  # cavity: what the others say of an entry
        h2 = torch.maximum(1 / c - D, theta.floor)
        x, var = self.prior.posterior(t, h2, theta)
        least = torch.maximum(var, theta.floor)
        gamma, lam = x / least - t / h2, 1 / least - 1 / h2
        kept = lam <= 0
        gamma, lam = torch.where(kept, s.gamma, gamma), torch.where(kept, s.lam, lam)
        beta = theta.damping
        return State(x, var, s.gamma + beta * (gamma - s.gamma), s.lam + beta * (lam - s.lam))

    def read(self, s):
        return Estimate(s.x, s.var)
