"""Sparse recovery from random projections: y = A x + w, x Bernoulli-Gaussian. Donoho (2006)."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import DType, dtype_named
from fanfold.core.settings import checks_arguments
from fanfold.core.units import from_db
from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems.base import Described

Ensemble = Literal["iid", "unit-columns", "row-orthogonal", "conditioned"]


@dataclass(frozen=True)
class CompressedSensing(Described):
    """`y = A x + w`: m random projections of n unknowns, each non-zero with probability `sparsity`, then `N(0, 1)`.

    The SNR is `E‖Ax‖² / E‖w‖²`, hence `noise_var = sparsity ‖A‖_F² / m · 10^(-snr_db / 10)`. Every ensemble has
    columns of unit norm, exactly or on average: iid Gaussian entries; the same with columns made unit; rows
    that are orthogonal; singular values in geometric progression with a given condition number, between Haar
    matrices.

    Raises:
        ValueError: If a size, the sparsity or the condition number is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, sparsity=0.1, snr_db=30.0)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.A.shape, problem.prior
        (torch.Size([3, 40]), (20, 40), BernoulliGaussian(p=0.1, var=1.0))
    """

    n: int = 500  # unknowns
    m: int = 250  # measurements
    sparsity: float = 0.1  # probability that an unknown is not zero
    snr_db: float = 40.0  # power of A x over power of the noise; inf for none
    ensemble: Ensemble = "unit-columns"  # how A is drawn
    condition_number: float = 10.0  # condition number of A, where the ensemble is "conditioned"
    seed: int = 0  # seed of the operator A
    dtype: DType = "float32"

    def __post_init__(self):
        if not 0 < self.m <= self.n:
            raise ValueError(f"m is {self.m} and n is {self.n}; compressed sensing takes 0 < m <= n. Transposed?")
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}; it is the probability of a non-zero, between 0 and 1.")
        if self.condition_number < 1:
            raise ValueError(f"condition_number is {self.condition_number}; it is at least 1.")

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator: one object for all problems that share size, ensemble, seed and dtype."""
        condition_number = self.condition_number if self.ensemble == "conditioned" else 1.0
        return draw_operator(self.m, self.n, self.ensemble, condition_number, self.seed, self.dtype)

    @property
    def prior(self) -> BernoulliGaussian:
        """The prior of each unknown."""
        return BernoulliGaussian(self.sparsity)

    @cached_property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return self.sparsity * self.A.gram_diagonal().sum().item() / self.m / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals of shape `(n, unknowns)` and their observation."""
        return self.sample_at(self.prior.sample((n, self.n), generator, self.A.dtype), generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given signals and an observation of each."""
        A, x = self.A, x.to(self.A.dtype)
        y = A @ x + circular((len(x), self.m), generator, A.dtype, self.noise_var)
        return x, Observation(y, A, torch.tensor(self.noise_var, dtype=A.dtype.to_real()))


@lru_cache(maxsize=32)
@checks_arguments
def draw_operator(
    m: int, n: int, ensemble: Ensemble, condition_number: float, seed: int, dtype: DType
) -> LinearOperator:
    """A random `(m, n)` matrix; drawn in double precision, so that every dtype has the same one to rounding.

    Raises:
        ValueError: If the ensemble is unknown.
    """
    precision = dtype_named(dtype)
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(m, n, generator=generator, dtype=torch.complex128 if precision.is_complex else torch.float64)
    if ensemble == "iid":
        A = G / m**0.5
    elif ensemble == "unit-columns":
        A = G / torch.linalg.vector_norm(G, dim=0)
    elif ensemble in ("row-orthogonal", "conditioned"):
        U, _, Vh = torch.linalg.svd(G, full_matrices=False)  # Haar, by the rotational invariance of G
        s = torch.logspace(0, -1, m, base=condition_number, dtype=torch.float64)
        A = (U * (s * (n / s.square().sum()).sqrt())) @ Vh
    else:
        raise ValueError(f"unknown ensemble {ensemble!r}; take iid, unit-columns, row-orthogonal or conditioned.")
    return Dense(A.to(precision))
