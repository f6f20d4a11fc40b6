"""Sparse recovery where non-zeros come in clusters and fade along the signal. Schniter (2010)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import DType
from fanfold.core.units import from_db
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors.support_chain import SupportChain
from fanfold.problems.base import Described
from fanfold.problems.sparse.compressed_sensing import draw_operator


@dataclass(frozen=True)
class Clustered(Described):
    """`y = A x + w` with a support that is a Markov chain, such as the taps of a channel over delay.

    The probability of a non-zero and its variance fall along the signal, both by `fall_db` and geometrically; their
    means are such that a share `sparsity` of the unknowns is not zero and `E‖x‖² = n sparsity`. A has iid Gaussian
    entries and unit columns. The SNR is `E‖Ax‖² / E‖w‖²`.

    Raises:
        ValueError: If a number is out of range, or the profile asks for a probability of 1 or more.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.Clustered(n=40, m=20, sparsity=0.1)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, round(problem.chain.p.mean().item(), 3)
        (torch.Size([3, 40]), 0.1)
    """

    n: int = 200  # unknowns
    m: int = 60  # measurements
    sparsity: float = 0.1  # share of unknowns that are not zero, on average
    persistence: float = 0.8  # probability that an unknown follows its neighbour; 0 makes them independent
    fall_db: float = 10.0  # fall of probability and of variance in dB, from the first unknown to the last
    snr_db: float = 20.0  # power of A x over power of the noise; inf for none
    seed: int = 0  # seed of the operator A
    dtype: DType = "float32"

    def __post_init__(self):
        if not 0 < self.m <= self.n:
            raise ValueError(f"m is {self.m} and n is {self.n}; compressed sensing takes 0 < m <= n. Transposed?")
        if not 0 <= self.persistence < 1:
            raise ValueError(f"persistence is {self.persistence}; it is a probability below 1.")
        if self.fall_db < 0:
            raise ValueError(f"fall_db is {self.fall_db}; pass how far the profile falls, not negative.")
        if self.sparsity <= 0 or self._profile[0] * self.sparsity >= 1:
            raise ValueError(
                f"sparsity {self.sparsity} with a fall of {self.fall_db} dB gives the first unknown a probability of "
                f"{self._profile[0] * self.sparsity:.2f}; pass less of either, and a positive sparsity."
            )

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator: one object for all problems that share size, seed and dtype."""
        return draw_operator(self.m, self.n, "unit-columns", 1.0, self.seed, self.dtype)

    @property
    def _profile(self) -> Tensor:
        """How probable and how strong unknowns are along the signal, with mean 1."""
        fall = torch.logspace(0, -self.fall_db / 10, self.n, dtype=torch.float64)
        return fall / fall.mean()

    @cached_property
    def chain(self) -> SupportChain:
        """The prior of the whole signal; there is no `prior` that unknowns have each by itself and alike."""
        p = self.sparsity * self._profile
        return SupportChain(p, self._profile / (p * self._profile).mean() * self.sparsity, self.persistence)

    @cached_property
    def noise_var(self) -> float:
        """`E|w|²`."""
        powers = (self.chain.p * self.chain.var).to(self.A.gram_diagonal())
        return (self.A.gram_diagonal() * powers).sum().item() / self.m / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals of shape `(n, unknowns)` and their observation."""
        return self.sample_at(self.chain.sample((n, self.n), generator, self.A.dtype), generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given signals and an observation of each."""
        A, x = self.A, x.to(self.A.dtype)
        y = A @ x + circular((len(x), self.m), generator, A.dtype, self.noise_var)
        return x, Observation(y, A, torch.tensor(self.noise_var, dtype=A.dtype.to_real()))
