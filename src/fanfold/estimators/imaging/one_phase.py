"""Scenes that are real but for one phase: `y = exp(i phi) A x + w` with x real, a problem for real estimators."""

from typing import Any

import torch
from torch import Tensor, nn

from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Estimate, Observation


def stacked(A: LinearOperator) -> LinearOperator:
    """The real operator `[Re A; Im A]`, of shape `(2m, n)`: what A makes of real signals."""

    def make() -> Dense:
        matrix = A.matrix()
        return Dense(torch.cat([matrix.real, matrix.imag]))

    return A.once("stacked", make)


def phase_of(x: Tensor) -> Tensor:
    """That of the sum of a signal's entries, `(..., 1)` of modulus one."""
    total = x.sum(-1, keepdim=True)
    return total / total.abs().clamp_min(torch.finfo(total.abs().dtype).tiny)


class OnePhase(nn.Module):
    """Turns measurements by the phase of a first image and hands them, real, to another estimator.

    What is complex with n unknowns and m measurements becomes real with n and 2m, half the unknowns.

    Args:
        image: A complex estimator; the phase of the scene is that of its sum, as reflectivities are not negative.
        within: The real estimator; a network if it is to be trained.
    """

    def __init__(self, image: Any, within: Any):
        super().__init__()
        self.image, self.within = image, within

    def real(self, obs: Observation) -> tuple[Tensor, Observation]:
        """The phase `(..., 1)` and the real observation; half the noise is in each part."""
        assert obs.A is not None
        phase = phase_of(self.image(obs).x)
        y = obs.y * phase.conj()
        noise_var = None if obs.noise_var is None else obs.noise_var / 2
        return phase, Observation.unchecked(torch.cat([y.real, y.imag], -1), stacked(obs.A), noise_var)

    def forward(self, obs: Observation) -> Estimate:
        """The real estimator's estimate, turned back."""
        phase, real = self.real(obs)
        found = self.within(real)
        return Estimate(found.x * phase, found.var)
