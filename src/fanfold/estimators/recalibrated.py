"""A network behind a receiver that is not what it was: gains, phases, noise, an error of A, the scale of signals.

The error of A is corrected by what the network says first, one step of defect correction: Stetter (1978), section 2.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.settings import Checked
from fanfold.core.units import power
from fanfold.estimators.arrays.learned_responses import LearnedResponsesSettings
from fanfold.estimators.base import Kept, ScaleAware
from fanfold.estimators.fixed_point import QuantisedSettings
from fanfold.estimators.imaging.one_phase import OnePhaseSettings
from fanfold.estimators.imaging.settings import Imaging
from fanfold.estimators.ofdm.adaptation import AdaptedSettings
from fanfold.estimators.ofdm.adaptation import NetworkSettings as Channels
from fanfold.linops import LinearOperator
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


class ErrorLeft(NamedTuple):
    """What pairs leave open of an error E of A, whose entries were of variance `entry_var` before there were any.

    To measurements of x it adds noise of variance `entry_var (|x|² - |K x|²)`, where K are the directions: ridge
    regression is the posterior mean of Gaussian entries. Bishop (2006), eqs. 3.58 and 3.59.

    Example:
        >>> import torch
        >>> from fanfold.estimators import ErrorLeft
        >>> ErrorLeft(torch.eye(3)[:1], 0.5, 0.01).variance(torch.tensor([[9.0, 2.0, 0.0]]))
        tensor([[2.]])
    """

    directions: Tensor  # (k, n), each times the root of the share of E that pairs tell along it
    entry_var: float | Tensor
    share: float | Tensor  # of the energy of measurements that E adds to them, uncorrected

    def variance(self, x: Tensor) -> Tensor:
        """What is left of E adds noise of this variance to measurements of x `(..., n)`: `(..., 1)`."""
        told = power(x @ self.directions.to(x.dtype).mT).sum(-1, keepdim=True)
        return self.entry_var * (power(x).sum(-1, keepdim=True) - told).clamp_min(0)


class ReceiverModel(nn.Module):
    """What is known of a receiver beside the A that the network believes in: `y = diag(g) (A + E) x + w`.

    Args:
        gains: g, `(m,)`, of the data type of y; an entry is 1 where to divide by it would do more harm than good.
        noise_factor: The variance of what is left of the noise, over the variance that observations say.
        error: E, `(m, n)`; None where it is taken to be zero.
        left: What is not known of E, which is more noise for larger signals; None where that is not said.
        scale: How many times as large x is as the network believes; None where it is not another.

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
    directions: Tensor | None
    entry_var: Tensor | None
    share: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        gains: Tensor,
        noise_factor: float = 1.0,
        error: Tensor | None = None,
        left: ErrorLeft | None = None,
        scale: float | None = None,
    ):
        super().__init__()
        if gains.ndim != 1 or not torch.isfinite(gains).all() or (gains == 0).any():
            raise ValueError(f"gains are {tuple(gains.shape)}; pass one finite number, not zero, a measurement: (m,).")
        for name, factor in (("noise_factor, of the variance,", noise_factor), ("scale, of x,", scale)):
            if factor is not None and not 0 < factor < float("inf"):
                raise ValueError(f"{name} is {factor}; pass a positive, finite one.")
        if error is not None and (error.ndim != 2 or len(error) != len(gains) or not torch.isfinite(error).all()):
            raise ValueError(f"error is {tuple(error.shape)} for {len(gains)} gains; pass finite numbers, (m, n).")
        if left is not None and (error is None or left.directions.shape[1:] != error.shape[1:]):
            raise ValueError(f"directions are {tuple(left.directions.shape)}; pass (k, n) with an error of A, (m, n).")

        def number(value: float | Tensor | None) -> Tensor | None:
            return None if value is None else torch.as_tensor(value, dtype=gains.real.dtype, device=gains.device)

        self.register_buffer("gains", gains.clone())
        self.register_buffer("noise_factor", number(noise_factor))
        self.register_buffer("error", None if error is None else error.clone())
        self.register_buffer("directions", None if left is None else left.directions.clone())
        self.register_buffer("entry_var", None if left is None else number(left.entry_var))
        self.register_buffer("share", None if left is None else number(left.share))
        self.register_buffer("scale", number(scale))

    @property
    def left(self) -> ErrorLeft | None:
        """What is not known of E."""
        if self.directions is None or self.entry_var is None or self.share is None:
            return None
        return ErrorLeft(self.directions, self.entry_var, self.share)

    def of_scale(self, scale: float | None) -> "ReceiverModel":
        """The same receiver, of signals that are `scale` times as large as the network believes."""
        return ReceiverModel(self.gains, self.noise_factor.item(), self.error, self.left, scale)

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
        noise_var, y, left = obs.noise_var, obs.y / self.gains.to(obs.y.dtype), self.left
        if noise_var is not None:
            noise_var = noise_var * self.noise_factor.to(noise_var.dtype)
        if self.error is None:
            return self._believed(y, obs.A, noise_var)
        at_first = noise_var
        if noise_var is not None and left is not None:
            at_first = noise_var + (left.share * power(y).mean(-1, keepdim=True)).to(noise_var.dtype)
        x = self.restored(estimator(self._believed(y, obs.A, at_first))).x
        if noise_var is not None and left is not None:
            noise_var = noise_var + left.variance(x).to(noise_var.dtype)
        return self._believed(y - x @ self.error.to(y.dtype).mT, obs.A, noise_var)

    def restored(self, estimate: Estimate) -> Estimate:
        """What a network said of a corrected observation, as large as the signals are."""
        if self.scale is None:
            return estimate
        scale = self.scale.to(estimate.x.real.dtype)
        return Estimate(estimate.x * scale, None if estimate.var is None else estimate.var * scale**2)

    def _believed(self, y: Tensor, A: LinearOperator | None, noise_var: Tensor | None) -> Observation:
        """Measurements of signals as large as the network believes."""
        if self.scale is None:
            return Observation.unchecked(y, A, noise_var)
        scale = self.scale.to(y.real.dtype)
        return Observation.unchecked(y / scale, A, None if noise_var is None else noise_var / scale**2)


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
    directions: int = 0  # of signals, along which pairs have told of that error
    scales: bool = False  # whether signals are larger or smaller than the network believes

    def __post_init__(self):
        if self.directions < 0 or (self.directions and not self.corrects):
            raise ValueError(f"directions is {self.directions}; pass 0 or more, and 0 where nothing is corrected.")

    def build(self, problem: Problem) -> "Recalibrated":
        """The network behind a receiver that is as it was.

        Raises:
            ValueError: If the problem has no operator, or one of its own for each sample.
        """
        A = problem.A
        if A is None or A.varies:
            raise ValueError("a receiver is recalibrated for one operator A, which all observations share; pass one.")
        error = torch.zeros(A.m, A.n, dtype=A.dtype, device=A.device) if self.corrects else None
        left = None
        if self.directions:
            left = ErrorLeft(torch.zeros(self.directions, A.n, dtype=A.dtype, device=A.device), 0.0, 0.0)
        ones = torch.ones(A.m, dtype=A.dtype, device=A.device)
        receiver = ReceiverModel(ones, 1.0, error, left, 1.0 if self.scales else None)
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
        receiver = self.receiver
        directions = 0 if receiver.directions is None else len(receiver.directions)
        return RecalibratedSettings(settings, receiver.error is not None, directions, receiver.scale is not None)

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
        return self.receiver.restored(self.within(self.receiver.corrected(obs, self.within)))
