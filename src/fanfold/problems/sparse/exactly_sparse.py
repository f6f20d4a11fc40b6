"""Sparse recovery with a fixed number of non-zeros. The LISTA example of Shlezinger, Whang, Eldar & Dimakis (2023)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import DType
from fanfold.core.units import from_db
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems.base import Described
from fanfold.problems.sparse.compressed_sensing import draw_operator


@dataclass(frozen=True)
class ExactlySparse(Described):
    """`y = A x + w`: m random projections of n unknowns, exactly `nonzeros` of which are drawn from `N(0, 1)`.

    A has iid Gaussian entries and unit columns. The SNR is `E‖Ax‖² / E‖w‖²`.

    Raises:
        ValueError: If a size or the number of non-zeros is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.ExactlySparse(n=40, m=20, nonzeros=3)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> (x != 0).sum(-1)
        tensor([3, 3, 3])
    """

    n: int = 200  # unknowns
    m: int = 150  # measurements
    nonzeros: int = 4  # number of non-zeros of each signal, anywhere
    snr_db: float = 20.0  # power of A x over power of the noise; inf for none
    seed: int = 0  # seed of the operator A
    dtype: DType = "float32"

    def __post_init__(self):
        if not 0 < self.m <= self.n:
            raise ValueError(f"m is {self.m} and n is {self.n}; compressed sensing takes 0 < m <= n. Transposed?")
        if not 0 < self.nonzeros < self.n:
            raise ValueError(f"nonzeros is {self.nonzeros}; it is a number between 0 and n = {self.n}.")

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator: one object for all problems that share size, seed and dtype."""
        return draw_operator(self.m, self.n, "unit-columns", 1.0, self.seed, self.dtype)

    @property
    def prior(self) -> BernoulliGaussian:
        """The prior of each unknown by itself; together they know their number, which this leaves out."""
        return BernoulliGaussian(self.nonzeros / self.n)

    @cached_property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return self.nonzeros / self.m / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals of shape `(n, unknowns)` and their observation."""
        where = torch.rand(n, self.n, generator=generator).topk(self.nonzeros).indices  # every set equally likely
        values = circular((n, self.nonzeros), generator, self.A.dtype)
        return self.sample_at(values.new_zeros(n, self.n).scatter(-1, where, values), generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given signals and an observation of each."""
        A, x = self.A, x.to(self.A.dtype)
        y = A @ x + circular((len(x), self.m), generator, A.dtype, self.noise_var)
        return x, Observation(y, A, torch.tensor(self.noise_var, dtype=A.dtype.to_real()))
