"""Expectation propagation. Céspedes, Olmos, Sánchez-Fernández & Pérez-Cruz (2014), section IV: their EP detector."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms.base import POSITIVE, UNIT, Algorithm, Nominal, Theta, positive, settings_of
from fanfold.core.precision import double
from fanfold.core.units import power
from fanfold.linops import LinearOperator, covariance_inverse
from fanfold.linops.seen import UNINFORMED
from fanfold.observation import Estimate
from fanfold.priors import Constellation, Prior

MAX_MATRIX_ENTRIES = 2**24  # of the m x m matrices of a batch that are formed at a time


class State(NamedTuple):
    """The state of EP: Gaussian factors of precision lam and precision times mean gamma stand for the priors."""

    x: Tensor  # (..., n) estimate
    var: Tensor  # (..., n) its variance
    gamma: Tensor  # (..., n) and all below in double precision
    lam: Tensor  # (..., n) positive
    noise_var: Tensor  # (..., 1)


@dataclass(frozen=True)
class EP(Algorithm):
    """Expectation propagation, OAMP with a variance for each entry: a Gaussian of the same moments stands for a prior.

    Where columns of A look alike, as those of neighbouring directions do, it succeeds where OAMP fails. It inverts an
    m x m matrix a step, in double precision, as cavities are differences; a Kronecker operator is never formed. As in
    the paper updates are damped, variances have a floor, and a factor that would turn negative is kept as it was; it
    may be forgotten instead, which frees runs that are stuck in a wrong support. The estimate is the mean of the
    entry's own prior times its cavity, which at the fixed point is that of the Gaussian. The noise variance is given,
    or estimated by a step of EM for each sample: Dempster, Laird & Rubin (1977).

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.MIMODetection(snr_db=25.0).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.EP(), 10)(obs).x, x) < -30
        True
    """

    prior: Prior = field(default_factory=Constellation)
    noise: Literal["given", "estimated"] = "given"  # the noise variance; estimated too where none is given
    damping: float = 0.2  # share of the new factor
    floor: float = 5e-7  # least variance, relative to the power of x
    improper: Literal["keep", "forget"] = "keep"  # what becomes of a factor that would turn negative, or too wide
    widest: float = 10.0  # variance of a factor that was forgotten, around zero, relative to the power of x

    def __post_init__(self):
        positive(damping=self.damping, floor=self.floor, widest=self.widest)

    @property
    def nominals(self):
        floor = Nominal(lambda ep, obs: ep.floor * ep.prior.power, POSITIVE)
        damping = Nominal(lambda ep, obs: ep.damping, UNIT)
        noise_scale = Nominal(lambda *_: 1.0, POSITIVE, vector=False, group="noise_var")
        nominals = settings_of(self.prior) | {"damping": damping, "floor": floor, "noise_scale": noise_scale}
        if self.improper == "forget":
            nominals["widest"] = Nominal(lambda ep, obs: ep.widest * ep.prior.power, POSITIVE)
        return nominals

    def start(self, obs):
        x, energy = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), power(obs.y).mean(-1, keepdim=True).double()
        noise_var = obs.noise_var.double() + 0 * energy if self._noise_known(obs) else energy / 100
        lam = x.real.double() + 1 / self.prior.power
        return State(x=x, var=x.real, gamma=self._double(x), lam=lam, noise_var=noise_var)

    def _double(self, a):
        return a.to(double(a.dtype))

    def _noise_known(self, obs):
        return obs.noise_var is not None and self.noise == "given"

    def step(self, s, obs, theta):
        y, theta = self._double(obs.y), Theta(**{name: self._double(value) for name, value in vars(theta).items()})
        A = obs.A.once("double", lambda: obs.A.to(dtype=y.dtype))
        mean, D = s.gamma / s.lam, 1 / s.lam
        z, c, trace, sigma2 = _seen(A, D, y - A @ mean, theta.noise_scale * s.noise_var)
        c = c.clamp_min(1 / (UNINFORMED * self.prior.power))  # where nothing is seen, the prior is all there is
        t, h2 = mean + (A.H @ z) / c, torch.maximum(1 / c - D, theta.floor)  # cavity: what the others say of an entry
        x, var = self.denoise(t, h2, theta)
        least = torch.maximum(var, theta.floor)
        gamma, lam = x / least - t / h2, 1 / least - 1 / h2
        if self.improper == "forget":
            wide = lam * theta.widest < 1
            gamma, lam = torch.where(wide, 0, gamma), torch.where(wide, 1 / theta.widest, lam)
        else:
            gamma, lam = (torch.where(lam <= 0, old, new) for old, new in ((s.gamma, gamma), (s.lam, lam)))
        beta = theta.damping
        gamma, lam = s.gamma + beta * (gamma - s.gamma), s.lam + beta * (lam - s.lam)
        return State(x.to(obs.y.dtype), var.to(s.var.dtype), gamma, lam, self._noise(z, trace, sigma2, s, obs))

    def denoise(self, r, v, theta):
        """Posterior mean and variance of each entry beside its cavity; other denoisers take its place."""
        return self.prior.posterior(r, v, theta)

    def _noise(self, z, trace, sigma2, s, obs):
        if self._noise_known(obs):
            return s.noise_var
        return (sigma2**2 * power(z).sum(-1, keepdim=True) + sigma2 * (obs.A.m - sigma2 * trace)) / obs.A.m

    def read(self, s):
        return Estimate(s.x, s.var)


def _seen(A: LinearOperator, D: Tensor, e: Tensor, noise_var: Tensor) -> tuple[Tensor, ...]:
    """`P e`, the diagonal of `Aᴴ P A`, the trace of P and the noise variance, for `P = (A diag(D) Aᴴ + noise)⁻¹`.

    Each sample takes m x m matrices, so large batches are taken in parts.
    """
    rows = max(1, MAX_MATRIX_ENTRIES // A.m**2)
    if not torch.compiler.is_compiling() and not A.varies and D.ndim == 2 and len(D) > rows:
        parts = (_seen(A, *part) for part in zip(*(a.split(rows) for a in (D, e, noise_var)), strict=True))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    signal, eye = A.weighted_gram(D), torch.eye(A.m, dtype=A.dtype, device=A.device)
    rounding = 1e-14 * signal.diagonal(dim1=-2, dim2=-1).real.amax(-1, keepdim=True)  # it is noise too
    sigma2 = torch.maximum(noise_var, rounding)
    P = covariance_inverse(signal + sigma2[..., None] * eye)
    trace = P.diagonal(dim1=-2, dim2=-1).real.sum(-1, keepdim=True)
    return (P @ e[..., None])[..., 0], A.quadratic_diagonal(P), trace, sigma2
