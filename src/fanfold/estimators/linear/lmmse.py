"""LMMSE, the best affine estimator. Kay (1993), ch. 12: x_hat = mu + C Aᴴ (A C Aᴴ + noise_var I)⁻¹ (y - A mu)."""

import torch
from torch import Tensor

from fanfold.linops import Batched, LinearOperator
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.base import Problem


class LMMSE:
    """Linear minimum mean squared error for `y = A x + w` with known mean and covariance of x.

    Reaches the posterior mean where x is Gaussian and is the best affine map elsewhere. The filter is computed once
    for each operator and noise variance; where each sample has a matrix of its own, at every call.

    Args:
        mean: `(n,)`, or None for zero.
        covariance: `(n, n)`, `E (x - mean)(x - mean)ᴴ`.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> ff.LMMSE.of(problem)(problem.sample(3, torch.Generator())[1]).x.shape
        torch.Size([3, 20])
    """

    def __init__(self, mean: Tensor | None, covariance: Tensor):
        n = covariance.shape[-1]
        if covariance.shape != (n, n) or (mean is not None and mean.shape != (n,)):
            shape = None if mean is None else tuple(mean.shape)
            raise ValueError(f"covariance is {tuple(covariance.shape)} and mean {shape}; pass (n, n) and (n,).")
        self.mean = torch.zeros_like(covariance[0]) if mean is None else mean
        self.covariance = covariance
        self._filters: dict[tuple[str, float], tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, problem: Problem, samples: int = 20_000, seed: int = 0) -> "LMMSE":
        """LMMSE with the mean and covariance of a problem's draws; those of few draws are loaded by `trace / samples`.

        Args:
            problem: Where draws come from.
            samples: How many.
            seed: Seed of the draws.
        """
        x, _ = problem.sample(samples, torch.Generator().manual_seed(seed))
        mean = x.mean(0)
        centred = (x - mean).to(torch.complex128 if x.is_complex() else torch.float64)
        covariance = centred.mT @ centred.conj() / samples
        loading = covariance.diagonal().real.mean() / samples
        return cls(mean, (covariance + loading * torch.eye(len(covariance), device=x.device)).to(x.dtype))

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate and its error variance, `(..., n)` each.

        Raises:
            ValueError: If the operator or the noise variance is unknown, or the variance differs between samples.
        """
        if obs.A is None or obs.noise_var is None:
            raise ValueError("LMMSE needs the operator A and noise_var; pass both in the Observation.")
        variances = obs.noise_var.unique()
        if len(variances) > 1:
            raise ValueError("LMMSE takes one noise_var for a batch; call it once for each variance.")
        W, var = self._filter(obs.A, variances.item())
        residual = obs.y - obs.A @ self.mean
        x = self.mean + (Batched(W) @ residual if obs.A.varies else residual @ W.mT)
        return Estimate(x, var.expand(x.shape))

    def _filter(self, A: LinearOperator, noise_var: float) -> tuple[Tensor, Tensor]:
        key = (A.fingerprint(), noise_var)
        if A.varies or key not in self._filters:
            precise = torch.complex128 if self.covariance.is_complex() else torch.float64
            C, M = self.covariance.to(precise), A.matrix().to(precise)
            CMh = C @ M.mH
            W = torch.linalg.solve(
                M @ CMh + noise_var * torch.eye(A.m, dtype=precise, device=A.device), CMh, left=False
            )
            var = (C.diagonal() - (W * CMh.conj()).sum(-1)).real
            filters = (W.to(self.covariance.dtype), var.to(self.covariance.real.dtype))
            if A.varies:
                return filters
            self._filters[key] = filters
        return self._filters[key]
