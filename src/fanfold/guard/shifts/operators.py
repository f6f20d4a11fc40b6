"""A wrong belief in the operator, of any problem that has one; `problems.Mismatched` is compressed sensing's."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.guard.shifts.altered import Altered, measuring
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.sparse.mismatched import perturbed


@dataclass(frozen=True)
class Misbelieved(Altered):
    """Measurements by `B + E` where B measured before; observations carry the A that they did.

    E is Gaussian, of Frobenius norm `error ‖B‖_F`: fixed, or where each sample has an operator of its own, drawn for
    each.

    Raises:
        ValueError: If the error is negative, or the problem has no operator, when it is drawn.

    Example:
        >>> import fanfold as ff, torch
        >>> detection = ff.problems.MIMODetection(users=4, antennas=8)
        >>> problem = ff.guard.Misbelieved(detection, error=0.1)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([3, 8])
    """

    error: float = 0.0  # Frobenius norm of E over that of B
    error_seed: int = 0  # seed of E, where there is one for all

    def __post_init__(self):
        if not 0 <= self.error < math.inf:
            raise ValueError(f"error is {self.error}; it is the relative size of the error in A, not negative.")

    @property
    def nil(self) -> bool:
        """Whether there is no error."""
        return self.error == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws by the other operator."""
        B = measuring(self.nominal)
        if B is None or obs.A is None:
            raise ValueError(f"{type(self.problem).__name__} has no operator to be wrong about.")
        if obs.A.varies:
            return x, Observation(obs.y + self._of_samples(obs.A, x, generator), obs.A, obs.noise_var)
        return x, Observation(obs.y + (perturbed(B, self.error, self.error_seed) @ x - B @ x), obs.A, obs.noise_var)

    def _of_samples(self, A: LinearOperator, x: Tensor, generator: torch.Generator) -> Tensor:
        """`E x`, each sample with an E of its own."""
        M = A.matrix()
        E = torch.randn(M.shape, generator=generator, dtype=M.dtype)
        ratio = power(M).sum((-2, -1), keepdim=True) / power(E).sum((-2, -1), keepdim=True)
        return (self.error * ratio.sqrt() * E @ x.unsqueeze(-1)).squeeze(-1)
