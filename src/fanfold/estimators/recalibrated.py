"""A network behind a receiver that is not what it was: gains, phases, noise and an error of A, known by then.

The error of A is corrected by what the network says first, one step of defect correction: Stetter (1978), section 2.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.settings import Checked
from fanfold.estimators.arrays.learned_responses import LearnedResponsesSettings
from fanfold.estimators.base import Kept, ScaleAware
from fanfold.estimators.fixed_point import QuantisedSettings
from fanfold.estimators.imaging.one_phase import OnePhaseSettings
from fanfold.estimators.imaging.settings import Imaging
from fanfold.estimators.ofdm.adaptation import AdaptedSettings
from fanfold.estimators.ofdm.adaptation import NetworkSettings as Channels
from fanfold.measurements import in_full_precision, takes_measurements
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems.base import Problem
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

Linear = (  # settings of every network of measurements through one operator
    Imaging | EquilibriumSettings | OnePhaseSettings | LearnedResponsesSettings | QuantisedSettings | Channels
    | AdaptedSettings
)  # fmt: skip
PASSED_ON = ("strength", "operator", "fingerprint")  # what is the network's, if it has it


class ReceiverModel(nn.Module):
    """What is known of a receiver beside the A that the network believes in: `y = diag(g) (A + E) x + w`.

    Args:
        gains: g, `(m,)`, of the data type of y; an entry is 1 where to divide by it would do more harm than good.
        noise_factor: The variance of what is left of the noise, over the variance that observations say.
        error: E, `(m, n)`; None where it is taken to be zero.

    Raises:
        ValueError: If shapes do not fit, a gain is zero, or a number is not finite.

    Example:
        >>> import torch
        >>> from fanfold.estimators import ReceiverModel
        >>> ReceiverModel(torch.ones(5), 2.0).noise_factor
        tensor(2.)
    """

    gains: Tensor
    noise_factor: Tensor
    error: Tensor | None

    def __init__(self, gains: Tensor, noise_factor: float = 1.0, error: Tensor | None = None):
        super().__init__()
        if gains.ndim != 1 or not torch.isfinite(gains).all() or (gains == 0).any():
            raise ValueError(f"gains are {tuple(gains.shape)}; pass one finite number, not zero, a measurement: (m,).")
        if not 0 < noise_factor < float("inf"):
            raise ValueError(f"noise_factor is {noise_factor}; pass a positive, finite one, of the variance.")
        if error is not None and (error.ndim != 2 or len(error) != len(gains) or not torch.isfinite(error).all()):
            raise ValueError(f"error is {tuple(error.shape)} for {len(gains)} gains; pass finite numbers, (m, n).")
        self.register_buffer("gains", gains.clone())
        self.register_buffer("noise_factor", torch.tensor(noise_factor, dtype=gains.real.dtype, device=gains.device))
        self.register_buffer("error", None if error is None else error.clone())

    def corrected(self, obs: Observation, estimator: Estimator) -> Observation:
        """The observation `(..., m)` as the receiver that the network believes in would have made it.

        Args:
            obs: What was measured.
            estimator: The network, whose first estimate tells what the error of A added.

        Raises:
            ValueError: If y has another number of entries, or is real where gains are complex.
        """
        if obs.y.shape[-1] != len(self.gains) or (self.gains.is_complex() and not obs.y.is_complex()):
            raise ValueError(
                f"y is {obs.y.dtype} of shape {tuple(obs.y.shape)}; pass measurements of shape (..., {len(self.gains)})"
                f" as the {self.gains.dtype} gains are of."
            )
        noise_var = obs.noise_var
        if noise_var is not None:
            noise_var = noise_var * self.noise_factor.to(noise_var.dtype)
        seen = Observation.unchecked(obs.y / self.gains.to(obs.y.dtype), obs.A, noise_var)
        if self.error is None:
            return seen
        added = estimator(seen).x @ self.error.to(obs.y.dtype).mT
        return Observation.unchecked(seen.y - added, obs.A, noise_var)


@dataclass(frozen=True)
class RecalibratedSettings(Checked):
    """A network behind a receiver whose gains, noise and, if it corrects, error of A are kept with its weights.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> ff.estimators.RecalibratedSettings().build(problem).receiver.gains.shape
        torch.Size([20])
    """

    within: "Linear | RecalibratedSettings" = field(default_factory=UnfoldedSettings)  # for the receiver as it was
    corrects: bool = False  # whether there is an error of A to correct

    def build(self, problem: Problem) -> "Recalibrated":
        """The network behind a receiver that is as it was.

        Raises:
            ValueError: If the problem has no operator, or one of its own for each sample.
        """
        A = problem.A
        if A is None or A.varies:
            raise ValueError("a receiver is recalibrated for one operator A, which all observations share; pass one.")
        error = torch.zeros(A.m, A.n, dtype=A.dtype, device=A.device) if self.corrects else None
        receiver = ReceiverModel(torch.ones(A.m, dtype=A.dtype, device=A.device), error=error)
        return Recalibrated(self.within.build(problem), receiver)


class Recalibrated(nn.Module):
    """A network that is given measurements as the receiver it was trained for would have made them.

    It belongs to the operator that the network belongs to. Where A is in error the network is asked twice: what the
    error has added is computed from its first estimate. Scale-equivariant if the network is.

    Args:
        within: The network.
        receiver: What is known of the receiver.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.estimators import Recalibrated, ReceiverModel
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net, obs = ff.iterate(ff.algorithms.ISTA(), 5), problem.sample(3, torch.Generator().manual_seed(0))[1]
        >>> louder = ff.Observation(2 * obs.y, obs.A, obs.noise_var)
        >>> torch.equal(Recalibrated(net, ReceiverModel(torch.full((20,), 2.0)))(louder).x, net(obs).x)
        True
    """

    def __init__(self, within: Estimator, receiver: ReceiverModel):
        super().__init__()
        self.within, self.receiver = within, receiver

    @property
    def settings(self) -> RecalibratedSettings | None:
        """The settings that build the network again; None where the one within has none."""
        kept = ability(self.within, Kept)
        settings = None if kept is None else kept.settings
        if not isinstance(settings, Linear | RecalibratedSettings):
            return None
        return RecalibratedSettings(settings, self.receiver.error is not None)

    @property
    def scale_equivariant(self) -> bool:
        """Whether the network within is."""
        aware = ability(self.within, ScaleAware)
        return aware is not None and aware.scale_equivariant

    def __getattr__(self, name: str) -> Any:
        if name in PASSED_ON:
            return getattr(self.within, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PASSED_ON:
            setattr(self.within, name, value)
        else:
            super().__setattr__(name, value)

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The network's estimate `(..., n)` from the corrected measurements.

        Raises:
            ValueError: If y does not have as many entries as there are gains.
        """
        return self.within(self.receiver.corrected(obs, self.within))
