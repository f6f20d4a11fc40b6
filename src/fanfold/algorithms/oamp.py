"""OAMP/VAMP in SVD form. Ma & Ping (2017), eqs. 29-34; Rangan, Schniter & Fletcher (2019), algorithm 2.

Longer than others: three linear steps, and two sides that may have to be estimated.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, Theta, positive, settings_of
from fanfold.algorithms.residual import rounding_variance, variances
from fanfold.core.units import power
from fanfold.linops import reciprocal, refuse_rank_deficient
from fanfold.observation import Estimate
from fanfold.priors import BernoulliGaussian, Prior

MIN_ERROR_TO_NOISE = 1e-12  # variance of the error over that of the noise: gains of silent samples do not underflow


class State(NamedTuple):
    """The state of OAMP; r and v go into the next linear step."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    r: Tensor  # (..., n) extrinsic mean
    v: Tensor  # (..., 1) extrinsic variance
    noise_var: Tensor  # (..., 1)
    z: Tensor  # (..., m) measurements on the left singular vectors
    fitted: dict[str, Tensor]  # settings of the prior, (..., 1) each, where they are estimated
    seen: Tensor  # (..., 1) error variance that the last residual showed
    share: Tensor  # (..., 1) of each sample's damping, where it adapts


@dataclass(frozen=True)
class OAMP(Algorithm):
    """Orthogonal AMP: linear steps and posterior means under any prior, for right-rotationally invariant A.

    Noise variance and settings of the prior are given, or estimated anew for each sample. The estimates of the prior
    start from the given settings, whose power may be wrong by a factor of ten or so.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), 10)(obs).x, x) < -40
        True
    """

    prior: Prior = field(default_factory=BernoulliGaussian)
    linear: Literal["lmmse", "matched-filter", "pseudo-inverse"] = "lmmse"  # the linear step
    noise: Literal["given", "estimated"] = "given"  # the noise variance; estimated too where none is given
    settings: Literal["given", "estimated"] = "given"  # the settings of the prior
    damping: float = 1.0  # share of the new message in what is sent on
    adapt: bool = False  # whether a sample whose error variance grows takes 0.8 times the share from then on
    spread: float = 0.03  # relative variance of the error variance over samples; the larger, the more residuals say
    trust: float = 0.1  # weight of the given settings against a sample's own, where they are estimated

    by_svd = True

    def __post_init__(self):
        positive(damping=self.damping, spread=self.spread, trust=self.trust)

    @property
    def nominals(self):
        damping = Nominal(lambda oamp, _: oamp.damping, POSITIVE, vector=False)
        spread = Nominal(lambda oamp, _: oamp.spread, POSITIVE, vector=False)
        trust = Nominal(lambda oamp, _: oamp.trust, POSITIVE, vector=False)
        numbers = {"damping": damping, "spread": spread} | ({"trust": trust} if self.settings == "estimated" else {})
        groups = {"noise_scale": "noise_var", "v_linear": "variances", "v_denoised": "variances"}
        scales = {k: Nominal(lambda *_: 1.0, POSITIVE, vector=False, group=group) for k, group in groups.items()}
        return settings_of(self.prior) | numbers | scales

    def start(self, obs):
        if self.linear == "pseudo-inverse":
            refuse_rank_deficient(obs.A)
        r, energy = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), power(obs.y).mean(-1, keepdim=True)
        noise_var = obs.noise_var + 0 * energy if self._noise_known(obs) else energy / 100
        v = 0 * energy + energy.new_tensor(self.prior.power)
        if self.settings == "estimated":
            v = self._variance_of(obs.A, energy + self._rounding(energy, obs.A))
        z, never = obs.A.svd().U.H @ obs.y, 1e6 * v
        return State(x=r, var=r.real, r=r, v=v, noise_var=noise_var, z=z, fitted={}, seen=never, share=1 + 0 * v)

    def _variance_of(self, A, energy):
        """The variance of unknowns whose measurements have this energy."""
        return energy * A.m / A.gram_diagonal().sum(-1, keepdim=True)

    def _rounding(self, energy, A):
        return rounding_variance(energy, self.prior.power * A.gram_diagonal().sum(-1, keepdim=True) / A.m)

    def _noise_known(self, obs):
        return obs.noise_var is not None and self.noise == "given"

    def step(self, s, obs, theta):
        (_, d, V), n, seen = obs.A.svd(), obs.A.seen().count, obs.A.seen()
        e = s.z - d * (V.H @ s.r)
        least, known = self._rounding(power(s.z).mean(-1, keepdim=True), obs.A), self._noise_known(obs)
        noise_var = torch.maximum(s.noise_var, least)
        v = torch.maximum(s.v, self._variance_of(obs.A, torch.maximum(least, MIN_ERROR_TO_NOISE * noise_var)))
        v, noise_var = variances(e, d, v, noise_var, theta.spread, noise_known=known)
        share = torch.where(v > s.seen, s.share * v.new_tensor(0.8), s.share) if self.adapt else s.share
        sigma2 = theta.noise_scale * noise_var
        w = d * v / (d**2 * v + sigma2) if self.linear == "lmmse" else d
        w = reciprocal(d, obs.A.shape) if self.linear == "pseudo-inverse" else w
        w = w * (n / (d * w).sum(-1, keepdim=True))  # de-correlated: r is orthogonal to s.r
        left = (1 - d * w).square().sum(-1, keepdim=True) + (n - d.shape[-1])
        shown, r = v, s.r + V @ (w * e)
        v = theta.v_linear * (v * left + sigma2 * w.square().sum(-1, keepdim=True)) / n
        fitted = self._fit(r, v, seen, s, theta) if self.settings == "estimated" else {}
        x, var, beta = self.denoise(r, v, seen, Theta(**fitted) if fitted else theta, theta)
        message, v = seen.only((x - beta * r) / (1 - beta), x), theta.v_denoised * v * beta / (1 - beta)
        damping = theta.damping * share
        r = s.r + damping * (message - s.r)
        v = torch.maximum((1 - damping) * s.v + damping * v, v / 100)  # positive for damping above 1 too
        return State(x, var, r, v, noise_var, s.z, fitted, shown, share)

    def denoise(self, r, v, seen, given, theta):
        """The posterior mean, its variance, and the divergence of the mean, `(..., 1)`; a subclass may put another."""
        x, var = self.prior.posterior(r, seen.noise(v, self.prior.power), given)
        return x, var, (seen.mean(var) / v).clamp(1e-6, 1 - 1e-6)

    def _fit(self, r, v, seen, s, theta):
        return self.prior.refit(r, v, Theta(**s.fitted) if s.fitted else theta, theta, theta.trust, seen.mean)

    def read(self, s):
        return Estimate(s.x, s.var)
