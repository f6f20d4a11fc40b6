"""Scenes that are real but for one phase: `y = exp(i phi) A x + w` with x real, a problem for real estimators."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.imaging.back_projection_unet import BackProjectionUNetSettings
from fanfold.estimators.imaging.settings import Imaging
from fanfold.estimators.linear.image import ImageName, image_for
from fanfold.estimators.precision import in_full_precision
from fanfold.linops import Dense, LinearOperator
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.base import Problem
from fanfold.problems.protocols import WithScene


def stacked(A: LinearOperator) -> LinearOperator:
    """The real operator `[Re A; Im A]`, of shape `(2m, n)`: what A makes of real signals."""

    def make() -> Dense:
        matrix = A.matrix()
        return Dense(torch.cat([matrix.real, matrix.imag]))

    return A.once("stacked", make)


def phase_of(x: Tensor) -> Tensor:
    """The phase of the sum of a signal's entries, `(..., 1)` of modulus one."""
    total = x.sum(-1, keepdim=True)
    return total / total.abs().clamp_min(torch.finfo(total.abs().dtype).tiny)


def real_form(obs: Observation, phase: Tensor) -> Observation:
    """The real observation of a scene turned back by its phase `(..., 1)`; half the noise is in each part.

    Raises:
        ValueError: If the operator is unknown or the measurements are real.
    """
    if obs.A is None or not obs.y.is_complex():
        raise ValueError("a scene with one phase needs complex measurements and the operator A in the Observation.")
    y = obs.y * phase.conj()
    noise_var = None if obs.noise_var is None else obs.noise_var / 2
    return Observation.unchecked(torch.cat([y.real, y.imag], -1), stacked(obs.A), noise_var)


@dataclass(frozen=True)
class RealScenes(Checked):
    """A problem's scenes turned back by their true phases, for an estimator of real scenes.

    Args:
        problem: The complex problem.
    """

    problem: Problem

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802
        """`[Re A; Im A]`."""
        return None if self.problem.A is None else stacked(self.problem.A)

    @property
    def scene(self) -> tuple[int, ...] | None:
        """Voxels along each axis, where the problem says."""
        imaging = ability(self.problem, WithScene)
        return imaging.scene if imaging else None

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` real scenes `(n, voxels)` and their real observation."""
        x, obs = self.problem.sample(n, generator)
        phase = phase_of(x)
        return (x * phase.conj()).real, real_form(obs, phase)

    def shifted(self, **changes: Any) -> "RealScenes":
        """The same of a changed problem."""
        return replace(self, problem=self.problem.shifted(**changes))

    def held_out(self) -> "RealScenes":
        """The same of the problem's held-out draws."""
        return replace(self, problem=self.problem.held_out())


@dataclass(frozen=True)
class OnePhaseSettings(Checked):
    """A network of real scenes for scenes that are real but for one phase, found from a linear image: a `OnePhase`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", (8, 8), (6, 6), targets="photographs", speckle=False)
        >>> within = ff.estimators.ThresholdMapFISTASettings(layers=3, width=4)
        >>> ff.estimators.OnePhaseSettings(within).build(problem).within.layers
        3
    """

    within: Imaging = field(default_factory=BackProjectionUNetSettings)  # The network of real scenes.
    image: ImageName = "lmmse"  # The image whose sum has the phase: LMMSE for white scenes, or the matched filter.
    signal_var: float | None = None  # E|x|² of a voxel for the LMMSE image; that of the problem if not given.

    def build(self, problem: Problem) -> "OnePhase":
        """The untrained network."""
        image, signal_var = image_for(self, problem)
        within = self.within.build(RealScenes(problem))
        net = OnePhase(image, within)
        net.settings = replace(self, signal_var=signal_var, within=within.settings or self.within)
        return net


class OnePhase(nn.Module):
    """Turns measurements by the phase of a first image and hands them, real, to another estimator.

    What is complex with n unknowns and m measurements becomes real with n and 2m, half the unknowns. Not
    scale-equivariant unless image and estimator are.

    Args:
        image: A complex estimator; the phase of the scene is that of its sum, as reflectivities are not negative.
        within: The real estimator; a network if it is to be trained. `of` makes it from settings, so that the whole
            can be kept.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", (8, 8), (6, 6), targets="photographs", speckle=False)
        >>> ff.estimators.OnePhase.of(problem, ff.estimators.MoDLSettings(layers=2, width=4)).within.scene
        (8, 8)
    """

    scale_equivariant: ClassVar[bool] = False
    settings: OnePhaseSettings | None = None  # None where image or estimator is the user's own

    def __init__(self, image: Any, within: Any):
        super().__init__()
        self.image, self.within = image, within

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem: Problem,
        within: Imaging | None = None,
        image: ImageName = "lmmse",
        *,
        signal_var: float | None = None,
    ) -> "OnePhase":
        """The untrained network for a problem.

        Args:
            problem: Says the operator and the scene, and draws scenes.
            within: Settings of the network of real scenes; a U-Net if None.
            image: The image whose sum has the phase: LMMSE for white scenes, "lmmse", or the matched filter `Aᴴ y`,
                "back-projection".
            signal_var: `E|x|²`, which the LMMSE image takes for that of every voxel; that of the problem if None.
        """
        return OnePhaseSettings(within or BackProjectionUNetSettings(), image, signal_var).build(problem)

    def real(self, obs: Observation) -> tuple[Tensor, Observation]:
        """The phase `(..., 1)` and the real observation; half the noise is in each part.

        Raises:
            ValueError: If the operator is unknown or the measurements are real.
        """
        phase = phase_of(self.image(obs).x)
        return phase, real_form(obs, phase)

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The real estimator's estimate, turned back."""
        phase, real = self.real(obs)
        estimate = self.within(real)
        return Estimate(estimate.x * phase, estimate.var)
