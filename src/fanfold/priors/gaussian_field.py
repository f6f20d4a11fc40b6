"""Gaussian prior whose entries depend on each other: the posterior mean is the Wiener filter. Kay (1993), ch. 12."""

import torch
from torch import Tensor

from fanfold.priors.base import Prior


class GaussianField(Prior):
    """`x ~ N(mean, covariance)`, entries together; beside noise of one variance they part along the eigenvectors.

    Complex fields are circular, so their mean is zero.

    Args:
        mean: `(n,)`.
        covariance: `(n, n)`, Hermitian; eigenvalues below rounding are raised to it.

    Raises:
        ValueError: If the shapes do not fit.
    """

    circular = symmetric = False

    def __init__(self, mean: Tensor, covariance: Tensor):
        n = covariance.shape[-1]
        if covariance.shape != (n, n) or mean.shape != (n,):
            got = f"{tuple(covariance.shape)} and {tuple(mean.shape)}"
            raise ValueError(f"covariance and mean have shapes {got}; pass (n, n) and (n,).")
        precise = torch.promote_types(covariance.dtype, torch.float64)
        values, vectors = torch.linalg.eigh(covariance.to(precise))
        least = torch.finfo(covariance.dtype).eps * values.amax(-1)
        self.mean, self.values = mean, values.clamp_min(least).to(covariance.dtype.to_real())
        self.vectors = vectors.to(covariance.dtype)

    @property
    def power(self):
        return (self.values.mean() + self.mean.abs().square().mean()).item()

    def sample(self, shape, generator, dtype=torch.float32):
        """`(..., n)`, in the field's own precision if `dtype` is another kind of number."""
        white = torch.randn(shape, generator=generator, dtype=self.vectors.dtype)
        return (self.mean + (white * self.values.sqrt()) @ self.vectors.mT).to(dtype)

    def log_prob(self, x):
        raise ValueError("entries of a field have no density of their own.")

    def log_evidence(self, r, v):
        raise ValueError("entries of a field have no density of their own.")

    def posterior(self, r, v, given=None):
        v = torch.as_tensor(v, dtype=self.values.dtype, device=r.device)
        gain = self.values / (self.values + v)
        x = self.mean + ((r - self.mean) @ self.vectors.conj() * gain) @ self.vectors.mT
        return x, v * gain @ self.vectors.abs().square().mT
