"""The Gaussian-mixture prior. Vila & Schniter (2013), section II."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanfold.core.domain import FREE, POSITIVE
from fanfold.core.noise import circular
from fanfold.core.units import power
from fanfold.priors.base import Prior, Variance, gaussian_log_prob


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

    def sample(self, shape, generator, dtype=torch.float32):
        like = torch.empty((), dtype=dtype, device=generator.device)
        weights, means, variances = self._tensors(like, None)
        edges = (weights / weights.sum()).cumsum(-1)[0, :-1]
        which = torch.bucketize(torch.rand(shape, generator=generator, device=generator.device).to(edges), edges)
        return means[0, which] + circular(shape, generator, dtype, variances[0, which])

    def log_prob(self, x):
        return self.log_evidence(x, 0.0)

    def log_evidence(self, r, v):
        return self._log_parts(r, v, None)[0].logsumexp(-1)

    def posterior(self, r, v, given=None):
        share, mean, var = self._parts(r, v, given)
        x = (share * mean).sum(-1)
        return x, (share * (var + power(mean - x[..., None]))).sum(-1)

    def refit(self, r, v, given, nominal, trust):  # of each component; a conjugate prior adds `trust`
        share, mean, var = self._parts(r, v, given)
        weights, means, variances = self._tensors(r, nominal)
        known = trust * (weights / weights.sum(-1, keepdim=True)).squeeze(-2)
        count = share.mean(-2) + known
        means, variances, centre = means.squeeze(-2), variances.squeeze(-2), means
        if not self.centred:
            means = ((share * mean).mean(-2) + known * means) / count
            centre = means.unsqueeze(-2)
        energy = (share * (var + power(mean - centre))).mean(-2) + known * variances
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

    def _parts(self, r: Tensor, v: Variance, given: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The probability of each component, and the mean and variance of x if it is the one: `(..., K)`."""
        log_parts, (means, variances, v) = self._log_parts(r, v, given)
        gain = variances / (variances + v)
        return torch.softmax(log_parts, -1), means + gain * (r.unsqueeze(-1) - means), gain * v
