"""Linear images of a scene: the matched filter, and LMMSE for white scenes without a matrix being formed."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from fanfold.core.abilities import ability
from fanfold.core.settings import Checked, checks_arguments
from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.linops import reciprocal, refuse_zero
from fanfold.observation import Estimate, Estimator, Observation, in_working_precision, takes_measurements
from fanfold.problems.base import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import KnownPrior

ImageName = Literal["lmmse", "back-projection"]
POWER_DRAWS = 1000


@in_working_precision
def back_projection(obs: Observation) -> Estimate:
    """The matched filter `Aᴴ y`, scaled by the least squares of each sample."""
    x = adjoint_image(obs).x
    assert obs.A is not None
    y_hat = obs.A @ x
    tiny = torch.finfo(obs.y.dtype).tiny  # of silence
    scale = (y_hat.conj() * obs.y).sum(-1, keepdim=True) / power(y_hat).sum(-1, keepdim=True).clamp_min(tiny)
    return Estimate(x * scale)


@in_working_precision
def adjoint_image(obs: Observation) -> Estimate:
    """The matched filter `Aᴴ y` as it is.

    Raises:
        ValueError: If the operator is unknown or zero.
    """
    if obs.A is None:
        raise ValueError("an image of the scene needs the operator A; pass it in the Observation.")
    refuse_zero(obs.A)
    return Estimate(obs.A.H @ obs.y)


@in_working_precision
def white_lmmse(obs: Observation, signal_var: float) -> Estimate:
    """LMMSE for independent voxels of one variance, by the singular values: `V d v / (d² v + noise_var) Uᴴ y`.

    Raises:
        ValueError: If the operator or the noise variance is unknown, or the operator is zero.
    """
    if obs.A is None or obs.noise_var is None:
        raise ValueError("the LMMSE image needs the operator A and noise_var; pass both in the Observation.")
    refuse_zero(obs.A)
    U, d, V = obs.A.svd()
    loaded = (d**2 * signal_var + obs.noise_var).clamp_min(torch.finfo(d.dtype).tiny)
    w = torch.where(reciprocal(d, obs.A.shape) > 0, d * signal_var / loaded, 0)  # not where nothing is seen
    return Estimate(V @ (w * (U.H @ obs.y)))


@dataclass(frozen=True)
class WhiteLMMSE(Checked):
    """`white_lmmse` of scenes whose voxels have the variance `signal_var`, as an estimator.

    Example:
        >>> import torch, fanfold as ff
        >>> x, obs = ff.problems.RFImaging(scene=(8, 8), elements=(6, 6)).sample(3, torch.Generator())
        >>> ff.estimators.WhiteLMMSE(0.1)(obs).x.shape
        torch.Size([3, 64])
    """

    signal_var: float

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        return white_lmmse(obs, self.signal_var)


@checks_arguments
def linear_image(name: ImageName, signal_var: float) -> Estimator:
    """The image of that name: LMMSE for white scenes of that power, or the matched filter `Aᴴ y`.

    Raises:
        ValueError: If there is none of that name.
    """
    return WhiteLMMSE(signal_var) if name == "lmmse" else adjoint_image


class WithImage(Protocol):
    """Settings that name a linear image."""

    @property
    def image(self) -> ImageName: ...

    @property
    def signal_var(self) -> float | None: ...


def image_for(settings: WithImage, problem: Problem) -> tuple[Estimator, float | None]:
    """The image that settings name, and the power of signals that it takes, for settings that say all.

    Raises:
        ValueError: If there is no image of that name.
    """
    var = settings.signal_var
    if settings.image == "lmmse" and var is None:
        var = signal_power(problem)
    return linear_image(settings.image, var or 0.0), var


def signal_power(problem: Problem, seed: int = 0) -> float:
    """`E|x|²`: that of the problem's prior where it knows one, else the mean of 1000 draws."""
    known = ability(problem, KnownPrior)
    if known is not None and known.prior is not None:
        return known.prior.power
    return power(draw(problem, POWER_DRAWS, seed, Stream.TUNING, 3)[0]).mean().item()
