"""A problem whose measurements come from another operator than the one that estimators are given."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Nested
from fanfold.problems.sparse.compressed_sensing import CompressedSensing


@dataclass(frozen=True)
class Mismatched(Nested):
    """Draws of a problem measured by `A + E`, with observations that carry the believed `A`: `y = (A + E) x + w`.

    E is Gaussian, fixed, and of Frobenius norm `error ‖A‖_F`: gains, positions and phases that were measured once,
    a little wrongly. The noise variance is that of w alone. No prior is given, as limits for A would not hold.

    Raises:
        ValueError: If the error is negative.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.Mismatched(ff.problems.CompressedSensing(n=40, m=20), error=0.1)
        >>> E = problem.true_A.matrix() - problem.A.matrix()
        >>> round((E.norm() / problem.A.matrix().norm()).item(), 3)
        0.1
    """

    problem: CompressedSensing = field(default_factory=CompressedSensing)
    error: float = 0.1  # Frobenius norm of E over that of A
    error_seed: int = 0  # seed of the error E

    def __post_init__(self):
        if not 0 <= self.error < float("inf"):
            raise ValueError(f"error is {self.error}; it is the relative size of the error in A, not negative.")

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator that estimators are given."""
        return self.problem.A

    @property
    def true_A(self) -> LinearOperator:  # noqa: N802
        """The operator that measures."""
        return self.A if self.error == 0 else perturbed(self.A, self.error, self.error_seed)

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return self.problem.noise_var

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals and their observation by `A + E`, carrying A."""
        return self._by_true(*self.problem.sample(n, generator))

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given signals and an observation of each by `A + E`, carrying A."""
        return self._by_true(*self.problem.sample_at(x, generator))

    def _by_true(self, x: Tensor, obs: Observation) -> tuple[Tensor, Observation]:
        noise = obs.y - self.A @ x
        return x, Observation(obs.y if self.error == 0 else self.true_A @ x + noise, self.A, obs.noise_var)

    def with_true_operator(self, obs: Observation) -> Observation:
        """The same observation for someone who knows the operator that measured."""
        return Observation.unchecked(obs.y, self.true_A, obs.noise_var)


@lru_cache(maxsize=32)
def perturbed(A: LinearOperator, error: float, seed: int) -> LinearOperator:
    """`A + E` with `‖E‖_F = error ‖A‖_F`; E is drawn in double precision from a stream that no A has."""
    state = np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    precise = torch.complex128 if A.dtype.is_complex else torch.float64
    E = torch.randn(A.shape, generator=generator, dtype=precise)
    M = A.matrix().to(precise)
    return Dense((M + E * (error * torch.linalg.matrix_norm(M) / torch.linalg.matrix_norm(E))).to(A.dtype))
