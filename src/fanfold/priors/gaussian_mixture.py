"""The Gaussian-mixture prior. Vila & Schniter (2013), section II."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanfold.core.domain import FREE, POSITIVE
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors.base import Prior, Variance, gaussian_log_prob, in_single, over_entries


@dataclass(frozen=True)
class GaussianMixture(Prior):
    """Entries are `Σ weights_k N(means_k, variances_k)`; of a complex signal `CN`, and then every mean is zero.

    Weights need not sum to 1: their shares count. Means can be learned where one of them is not zero: a mixture of
    zero means stays symmetric.

    Raises:
        ValueError: If the three differ in length, or a weight or variance is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> prior = ff.priors.GaussianMixture(weights=(1, 1), means=(-1, 1), variances=(0.01, 0.01))
        >>> round(prior.posterior_mean(torch.tensor([0.5]), 0.1).item(), 2)
        0.95
    """

    weights: tuple[float, ...] = (0.9, 0.1)  # share of each component
    means: tuple[float, ...] = (0.0, 0.0)  # mean of each component
    variances: tuple[float, ...] = (0.01, 1.0)  # variance of each component

    def __post_init__(self):
        if not len(self.weights) == len(self.means) == len(self.variances) > 0:
            lengths = f"{len(self.weights)} weights, {len(self.means)} means and {len(self.variances)} variances"
            raise ValueError(f"a mixture of {lengths}; pass as many of each.")
        for name, values in (("weights", self.weights), ("variances", self.variances)):
            if min(values) <= 0:
                raise ValueError(f"{name} are {values}; pass positive numbers.")

    @property
    def centred(self) -> bool:
        """Whether every mean is zero."""
        return not any(self.means)

    @property
    def learnable(self):
        return {"weights": POSITIVE, "variances": POSITIVE} | ({} if self.centred else {"means": FREE})

    @property
    def symmetric(self) -> bool:
        parts = sorted(zip(self.weights, self.means, self.variances))
        return parts == sorted((w, -m, v) for w, m, v in parts)

    @property
    def power(self) -> float:
        parts = zip(self.weights, self.means, self.variances)
        return sum(w * (m**2 + v) for w, m, v in parts) / sum(self.weights)

    @property
    def landmarks(self):
        return [(m, v**0.5) for m, v in zip(self.means, self.variances)]

    def sample(self, shape, generator, dtype=torch.float32):
        like = torch.empty((), dtype=dtype, device=generator.device)
        weights, means, variances = self._tensors(like, None)
        edges = (weights / weights.sum()).cumsum(-1)[0, :-1]
        which = torch.bucketize(torch.rand(shape, generator=generator, device=generator.device).to(edges), edges)
        return means[0, which] + circular(shape, generator, dtype, variances[0, which])

    def log_prob(self, x):
        return self.log_evidence(x, 0.0)

    @in_single
    def log_evidence(self, r, v):
        return self._log_parts(r, v, None)[0].logsumexp(-1)

    @in_single
    def posterior(self, r, v, given=None):
        share, mean, var, shift, near = self._parts(r, v, given)
        x = (share * mean).sum(-1)
        apart = torch.where(near, shift - (share * shift).sum(-1, keepdim=True), mean - x[..., None])
        between = power(apart).clamp_max(torch.finfo(share.dtype).max)  # where it has no share, it may overflow
        return x, (share * (var + between)).sum(-1)

    # of each component; a conjugate prior adds `trust`
    def refit(self, r, v, given, nominal, trust, mean=over_entries):
        share, centres, var, *_ = self._parts(r, v, given)

        def average(values: Tensor) -> Tensor:
            """The means of each component, `(..., n, K)` -> `(..., K)`."""
            return torch.cat([mean(of_component) for of_component in values.unbind(-1)], -1)

        weights, means, variances = self._tensors(r, nominal)
        known = trust * (weights / weights.sum(-1, keepdim=True)).squeeze(-2)
        count = average(share) + known
        means, variances, centre = means.squeeze(-2), variances.squeeze(-2), means
        if not self.centred:
            means = (average(share * centres) + known * means) / count
            centre = means.unsqueeze(-2)
        energy = average(share * (var + power(centres - centre))) + known * variances
        fitted = {"weights": count / (1 + trust), "variances": energy / count}
        return fitted if self.centred else fitted | {"means": means}

    def _tensors(self, r: Tensor, given: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The weights, means and variances as `(..., 1, K)`, in the precision of r."""
        if r.is_complex() and not self.centred:
            raise ValueError(f"a complex signal takes a mixture of zero means, not {self.means}.")
        given = given or self
        settings = (given.weights, self.means if self.centred else given.means, given.variances)
        weights, means, variances = (
            torch.as_tensor(a, dtype=r.real.dtype, device=r.device).unsqueeze(-2)
            if isinstance(a, Tensor)
            else r.real.new_tensor(a).unsqueeze(-2)
            for a in settings
        )
        return weights, means, variances

    def _log_parts(self, r: Tensor, v: Variance, given: Any) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The log of weight times density of each component at r, `(..., K)`; its mean, its variance, and v."""
        weights, means, variances = self._tensors(r, given)
        v = torch.as_tensor(v, dtype=r.real.dtype, device=r.device).unsqueeze(-1)
        log_share = torch.log(weights / weights.sum(-1, keepdim=True))
        return log_share + gaussian_log_prob(r.unsqueeze(-1) - means, variances + v), (means, variances, v)

    def _parts(self, r: Tensor, v: Variance, given: Any) -> tuple[Tensor, ...]:
        """The probability of each component, and the mean and variance of x if it is the one: `(..., K)`.

        Also the mean less r, `(..., K)`, and whether it is so small that the mean loses its digits, `(..., 1)`.
        """
        weights, means, variances = self._tensors(r, given)
        v = torch.as_tensor(v, dtype=r.real.dtype, device=r.device)
        widest = (variances.amax(-1) + v).sqrt()
        far = 1e3 * (widest + means.abs().amax(-1))  # beyond it squares lose the digits that tell components apart
        log_parts = self._log_parts(_cut(r, 10 * far), v, given)[0]
        beyond = torch.log(weights / weights.sum(-1, keepdim=True)) + self._against_widest(
            _cut(r, torch.finfo(v.dtype).max ** 0.25 * widest).unsqueeze(-1), means, variances, v.unsqueeze(-1)
        )
        share = torch.softmax(torch.where((r.abs() > far).unsqueeze(-1), beyond, log_parts), -1)
        v, r = v.unsqueeze(-1), r.unsqueeze(-1)
        gain, loss = variances / (variances + v), v / (variances + v)
        near = loss.amax(-1, keepdim=True) < 1e-5
        return share, gain * r + loss * means, gain * v, loss * (means - r), near

    @staticmethod
    def _against_widest(r: Tensor, means: Tensor, variances: Tensor, v: Tensor) -> Tensor:
        """The log ratio of each component's density at r to that of the widest, from differences formed first."""
        spread = variances.amax(-1, keepdim=True)
        mean = means.expand_as(variances).gather(-1, variances.argmax(-1, keepdim=True))
        apart = (mean - means) * (2 * r - means - mean).real / (variances + v)
        wider = power((r - mean) / (spread + v).sqrt()) * ((spread - variances) / (variances + v))
        degrees = 1 if r.is_complex() else 2
        return (torch.log((spread + v) / (variances + v)) - apart - wider) / degrees


def _cut(r: Tensor, most: Tensor) -> Tensor:
    """The entry itself, or what has the same sign or phase and the magnitude `most`."""
    return r * (most / torch.maximum(r.abs(), most))
