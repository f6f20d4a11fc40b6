"""GAMP, sum-product with scalar variances. Rangan (2011), algorithms 1 and 2."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms.base import POSITIVE, UNIT, Algorithm, Nominal, settings_of
from fanfold.likelihoods import GaussianNoise, Likelihood
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior


class State(NamedTuple):
    """The state of GAMP, whose messages are damped."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    mean: Tensor  # (..., n) message of x
    tau: Tensor  # (..., 1) its variance
    s: Tensor  # (..., m) message of the output
    tau_s: Tensor  # (..., 1) its precision


@dataclass(frozen=True)
class GAMP(Algorithm):
    """Generalised AMP for `y ~ p(y | A x)`, entry by entry, with iid A: any prior, any likelihood.

    With Gaussian noise it is AMP. Like AMP it diverges where A is far from iid, which damping delays. Its variances are
    means over measurements, so that it counts on many, and refuses a single one.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.GAMP(), 100)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)
    likelihood: Likelihood = field(default_factory=GaussianNoise)
    damping: float = 1.0  # share of the new messages, in (0, 1]; learned from below 1 only

    @property
    def nominals(self):
        noise = ("noise_scale",) if self.likelihood.uses_noise_var else ()
        scales = (*noise, "tau_p_scale", "tau_r_scale")  # factors on variances
        fixed = {k: Nominal(lambda *_: 1.0, POSITIVE, vector=False) for k in scales}
        damping = Nominal(lambda gamp, _: gamp.damping, UNIT, vector=False)
        return settings_of(self.prior) | {"damping": damping} | fixed

    def __post_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping is {self.damping}; pass the share of the new messages, in (0, 1].")

    def start(self, obs):
        if obs.noise_var is None and self.likelihood.uses_noise_var:
            raise ValueError("GAMP needs the noise variance; pass Observation(y, A, noise_var).")
        if obs.A.m == 1:
            raise ValueError(
                "GAMP counts on many measurements and there is one; take EP, or OAMP where noise is Gaussian."
            )
        self.likelihood.check(obs.y)
        zero = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        level = zero.real[..., :1]
        return State(zero, zero.real, zero, level + level.new_tensor(self.prior.power), 0 * obs.y, level)

    def step(self, s, obs, theta):
        A, y, seen = obs.A, obs.y, obs.A.seen()
        energy = A.gram_diagonal().sum(-1, keepdim=True)  # ‖A‖²
        noise_var = theta.noise_scale * obs.noise_var if self.likelihood.uses_noise_var else 0.0
        tau_p = theta.tau_p_scale * energy * s.tau / A.m
        p = A @ s.mean - tau_p * s.s
        score, curvature = self.likelihood.score(y, p, tau_p, noise_var)
        out = s.s + theta.damping * (score - s.s)
        tau_s = s.tau_s + theta.damping * (curvature.mean(-1, keepdim=True) - s.tau_s)
        tau_r = theta.tau_r_scale * seen.count / (energy * torch.maximum(tau_s, tau_p.new_tensor(1e-6) / tau_p))
        r = s.mean + tau_r * (A.H @ out)
        x, var = self.prior.posterior(r, seen.noise(tau_r, self.prior.power), theta)
        floor = s.tau.new_tensor(self.prior.power * torch.finfo(s.tau.dtype).eps ** 2)  # rounding is an error too
        mean = s.mean + theta.damping * (x - s.mean)
        tau = (1 - theta.damping) * s.tau + theta.damping * torch.maximum(seen.mean(var), floor)  # never zero
        return State(x, var, mean, tau, out, tau_s)

    def read(self, s):
        return Estimate(s.x, s.var)
