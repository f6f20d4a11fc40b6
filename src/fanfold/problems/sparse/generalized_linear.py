"""Generalised linear measurements of a sparse signal: y ~ p(y | A x). McCullagh & Nelder (1989); Rangan (2011)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.likelihoods import Likelihood, OneBit
from fanfold.observation import Observation
from fanfold.problems.sparse.compressed_sensing import CompressedSensing


@dataclass(frozen=True)
class GeneralizedLinear(CompressedSensing):
    """`y ~ p(y | z)`, `z = A x`: compressed sensing through a likelihood, such as one bit a measurement.

    The SNR is `E‖Ax‖² / E‖w‖²` with w the noise inside the likelihood; a likelihood without (Poisson) ignores it.
    One-bit measurements take more of them than unknowns, so m may exceed n.

    Raises:
        ValueError: If a size, the sparsity or the condition number is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.GeneralizedLinear(n=20, m=60)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> obs.y.abs().unique()
        tensor([1.])
    """

    m: int = 1500  # measurements
    snr_db: float = 10.0  # power of A x over power of the likelihood's noise; inf for none
    likelihood: Likelihood = field(default_factory=OneBit)  # likelihood of each measurement

    def __post_init__(self):
        if self.m > self.n and self.ensemble not in ("iid", "unit-columns"):
            raise ValueError(
                f"{self.ensemble} matrices take m <= n, not {self.m} > {self.n}; take iid or unit-columns."
            )
        CompressedSensing(self.n, min(self.m, self.n), self.sparsity, condition_number=self.condition_number)  # checks

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given signals and an observation of each."""
        A, x = self.A, x.to(self.A.dtype)
        y = self.likelihood.sample(A @ x, generator, self.noise_var)
        noise_var = torch.tensor(self.noise_var, dtype=A.dtype.to_real()) if self.likelihood.uses_noise_var else None
        return x, Observation(y, A, noise_var)
