"""LMMSE, the best affine estimator. Kay (1993), ch. 12: x_hat = mu + C Aᴴ (A C Aᴴ + noise_var I)⁻¹ (y - A mu)."""

import torch
from torch import Tensor

from fanfold.core.precision import at_least_single, double
from fanfold.linops import Batched, LinearOperator, refuse_zero
from fanfold.measurements import in_working_precision, takes_measurements
from fanfold.observation import Estimate, Observation
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
        dtype = at_least_single(covariance.dtype)
        self.covariance = covariance.to(dtype)
        self.mean = torch.zeros_like(self.covariance[0]) if mean is None else mean.to(at_least_single(mean.dtype))
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
    @in_working_precision
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate and its error variance, `(..., n)` each.

        Raises:
            ValueError: If the operator or the noise variance is unknown, the operator zero, or the variance differs
                between samples or the covariance is complex and y is not.
        """
        if obs.A is None or obs.noise_var is None:
            raise ValueError("LMMSE needs the operator A and noise_var; pass both in the Observation.")
        refuse_zero(obs.A)
        if self.covariance.is_complex() and not obs.y.is_complex():
            raise ValueError("the covariance is complex and y is real; pass the covariance of the real signal.")
        if torch.compiler.is_compiling():
            return self._of_each(obs, obs.A, obs.noise_var)
        variances = obs.noise_var.unique()
        if len(variances) > 1:
            raise ValueError("LMMSE takes one noise_var for a batch; call it once for each variance.")
        W, var = self._filter(obs.A, variances.item())
        mean = self.mean.to(obs.y.dtype)
        residual = obs.y - obs.A @ mean
        x = mean + (Batched(W) @ residual if obs.A.varies else residual @ W.mT)
        return Estimate(x, var.expand(x.shape))

    def _of_each(self, obs: Observation, A: LinearOperator, noise_var: Tensor) -> Estimate:
        """The estimate for noise variances `(..., 1)` or one, by the eigenvalues of `A C Aᴴ`: what exports trace."""
        precise = double(A.dtype)
        C, M = self.covariance.to(precise), A.matrix().to(precise)
        values, U = torch.linalg.eigh(M @ C @ M.mH)
        turned = C @ M.mH @ U
        seen = (
            values > A.m * torch.finfo(precise).eps * values.amax()
        )  # the rest is rounding, of measurements that repeat
        values, turned = torch.where(seen, values, 1), turned * seen
        dtype, real = A.dtype, A.dtype.to_real()
        gain = 1 / (values.to(real) + noise_var)
        mean = self.mean.to(dtype)
        x = mean + ((obs.y - A @ mean) @ U.conj().resolve_conj().to(dtype) * gain) @ turned.mT.to(dtype)
        var = C.diagonal().real.to(real) - gain @ turned.abs().square().mT.to(real)
        return Estimate(x, var.clamp_min(0).expand(x.shape))

    def _filter(self, A: LinearOperator, noise_var: float) -> tuple[Tensor, Tensor]:
        key = (A.fingerprint(), noise_var)
        if A.varies or key not in self._filters:
            precise = double(A.dtype)
            C, M = self.covariance.to(precise), A.matrix().to(precise)
            CMh = C @ M.mH
            S = M @ CMh + noise_var * torch.eye(A.m, dtype=precise, device=A.device)
            if noise_var > A.m * torch.finfo(precise).eps * S.abs().amax():
                W = torch.linalg.solve(S, CMh, left=False)
            else:  # measurements that repeat or see nothing make it singular
                W = CMh @ torch.linalg.pinv(S, hermitian=True)
            var = (C.diagonal() - (W * CMh.conj()).sum(-1)).real.clamp_min(0)  # rounding falls below
            filters = (W.to(A.dtype), var.to(A.dtype.to_real()))
            if A.varies:
                return filters
            self._filters[key] = filters
        return self._filters[key]
