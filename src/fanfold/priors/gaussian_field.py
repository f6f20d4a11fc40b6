"""A Gaussian prior whose entries depend on each other: the posterior mean is the Wiener filter. Kay (1993), ch. 12."""

import torch
from torch import Tensor

from fanfold.core.precision import double
from fanfold.priors.base import Prior, in_single


class GaussianField(Prior):
    """Signals are `N(mean, covariance)`; beside white noise their parts along the eigenvectors are independent.

    Beside noise whose variance differs from entry to entry, `(..., n)`, an `n x n` system is solved for each sample.
    Complex fields are circular, so their mean is zero.

    Args:
        mean: The mean, `(n,)`.
        covariance: The covariance, `(n, n)`, Hermitian; eigenvalues below rounding are raised to it.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import fanfold as ff, torch
        >>> field = ff.priors.GaussianField(torch.zeros(2), torch.tensor([[1.0, 0.99], [0.99, 1.0]]))
        >>> field.posterior_mean(torch.tensor([1.0, -1.0]), 1.0).abs().max() < 0.02
        tensor(True)
    """

    circular = symmetric = independent = False

    def __init__(self, mean: Tensor, covariance: Tensor):
        n = covariance.shape[-1]
        if covariance.shape != (n, n) or mean.shape != (n,):
            shapes = f"{tuple(covariance.shape)} and {tuple(mean.shape)}"
            raise ValueError(f"covariance and mean have shapes {shapes}; pass (n, n) and (n,).")
        precise = double(covariance.dtype)
        values, vectors = torch.linalg.eigh(covariance.to(precise))
        least = torch.finfo(covariance.dtype).eps * values.amax(-1)
        self.mean, self.values = mean, values.clamp_min(least).to(covariance.dtype.to_real())
        self.vectors = vectors.to(covariance.dtype)

    @property
    def power(self):
        return (self.values.mean() + self.mean.abs().square().mean()).item()

    def sample(self, shape, generator, dtype=torch.float32):
        """Signals `(..., n)`, drawn in the precision of the field and then converted."""
        white = torch.randn(shape, generator=generator, dtype=self.vectors.dtype)
        return (self.mean + (white * self.values.sqrt()) @ self.vectors.mT).to(dtype)

    def log_prob(self, x):
        raise ValueError("entries of a field depend on each other and have no density each; take another prior.")

    @in_single
    def log_evidence(self, r, v):
        raise ValueError("entries of a field depend on each other and have no density each; take another prior.")

    @in_single
    def posterior(self, r, v, given=None):
        v = torch.as_tensor(v, dtype=self.values.dtype, device=r.device)
        if v.ndim and v.shape[-1] > 1:
            return self._beside_coloured(r, v)
        gain = self.values / (self.values + v).clamp_min(torch.finfo(v.dtype).tiny)
        away = r - self.mean
        vectors = self.vectors.to(away.dtype)
        x = self.mean + (away @ vectors.conj() * gain) @ vectors.mT
        return x.to(r.dtype), (v * gain @ self.vectors.abs().square().mT).expand(r.shape).to(r.real.dtype)

    def _beside_coloured(self, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior where each entry has its own noise variance, `(..., n)`: `W = C (C + diag(v))⁻¹`."""
        precise = double(self.vectors.dtype)
        vectors, v = self.vectors.to(precise), v.double()
        C = (vectors * self.values.double()) @ vectors.mH
        unit = (C.diagonal().real + v).rsqrt()  # variances may lie far apart
        S = unit[..., :, None] * (C + torch.diag_embed(v)) * unit[..., None, :]
        # S is Hermitian, so that W is the adjoint of what S gives of C
        W = unit[..., :, None] * torch.linalg.solve(S, unit[..., :, None] * C)
        away = (r - self.mean).to(torch.promote_types(r.dtype, precise))
        x = self.mean + (W.mH.to(away.dtype) @ away[..., None])[..., 0]
        var = v * W.diagonal(dim1=-2, dim2=-1).real
        return x.to(r.dtype), var.expand(r.shape).to(r.real.dtype)
