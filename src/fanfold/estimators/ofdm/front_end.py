"""The front end of every channel network: pilots as pairs of reals, their noise variance, the channel's power.

Networks see channels of unit power, so that one network serves every scale, and estimates go back to the scale of the
observation. The power is that of the pilots less that of the noise.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import as_pairs, packed
from fanfold.estimators.ofdm.covariance import SMALLEST_OVER_NOISE, SMALLEST_SIGNAL_SHARE, check_pilots
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.scale import at_any_scale, over, unit_of
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation

SMALLEST_NOISE_VAR = 1e-6  # over the channel's power: rounding in single precision is not far below


class UnitPower(NamedTuple):
    """Pilots of a channel of unit power, and what they were divided by."""

    y: Tensor  # (batch, antennas, 2 pilots), packed
    noise_var: Tensor  # (batch, 1), over the channel's power
    scale: Tensor  # (batch, 1), the channel's power


class FrontEnd(nn.Module):
    """What stands between an observation and a channel network.

    Args:
        antennas: Number of the array's antennas.
        pilots: Number of one antenna's pilots.
        known_power: Whether entries of the channel have unit mean power, which is then not measured.

    Example:
        >>> import torch
        >>> from fanfold.estimators.ofdm.front_end import FrontEnd
        >>> pilots = FrontEnd(antennas=8, pilots=6)(1e-6 * torch.ones(1, 48, 2), noise_var=torch.zeros(1, 1))
        >>> round(float(pilots.y.square().mean()), 3)  # pairs of unit power
        0.5
    """

    def __init__(self, antennas: int, pilots: int, *, known_power: bool = False):
        super().__init__()
        self.antennas, self.pilots, self.known_power = antennas, pilots, known_power
        self.noise_variance = NoiseVariance(torch.eye(antennas), torch.eye(pilots))

    def adopt(self, space: Tensor, at_pilots: Tensor) -> None:
        """Tell noise from signal by these covariances, of antennas and of the pilots of one antenna."""
        self.noise_variance = NoiseVariance(space, at_pilots).to(self.noise_variance.d.device)

    def pairs_of(self, obs: Observation) -> tuple[Tensor, Tensor | None]:
        """Pilots as pairs `(batch, m, 2)` in single precision, and their noise variance `(batch, 1)`, where known.

        Raises:
            ValueError: If the pilots are not as many as those that the network was made for.
        """
        check_pilots(obs.y, self.antennas, self.pilots)
        leading, y = obs.y.shape[:-1], obs.y.reshape(-1, obs.y.shape[-1]).to(torch.complex64)
        noise_var = obs.noise_var
        if noise_var is not None:
            noise_var = noise_var.float().expand(*leading, 1).reshape(-1, 1)
        return as_pairs(y), noise_var

    def forward(self, y: Tensor, noise_var: Tensor | None) -> UnitPower:
        """Bring pilots `(batch, m, 2)` to unit power of the channel; a noise variance that is not known is measured."""
        noise_var = self.noise_variance.from_pairs(y) if noise_var is None else noise_var
        scale = self._power(y, noise_var)
        y = (y / scale.sqrt().unsqueeze(-1)).unflatten(1, (self.antennas, self.pilots))
        return UnitPower(packed(y), (noise_var / scale).clamp_min(SMALLEST_NOISE_VAR), scale)

    def _power(self, y: Tensor, noise_var: Tensor) -> Tensor:
        """The power of the channel, `(batch, 1)`."""
        if self.known_power:
            return torch.ones_like(noise_var)
        measured = y.square().sum(-1).mean(-1, keepdim=True)
        least = torch.maximum(SMALLEST_SIGNAL_SHARE * measured, SMALLEST_OVER_NOISE * noise_var)
        return torch.maximum(measured - noise_var, least).clamp_min(1e4 * torch.finfo(y.dtype).tiny)


class ChannelNetwork(nn.Module):
    """An estimate of a channel and its error variance, from pilots that a front end has brought to unit power.

    Scale-equivariant, unless the power is known: the power is measured for each observation, and so is the noise
    variance where it is unknown. Computes in single precision; estimates have the precision of the observation.

    Args:
        front_end: A front end for the antennas and pilots that the network takes.
    """

    measures_noise = True

    def __init__(self, front_end: FrontEnd):
        super().__init__()
        self.front_end = front_end

    @property
    def scale_equivariant(self) -> bool:
        """Whether the power is measured for each observation, so that other units change nothing."""
        return not self.front_end.known_power

    @abstractmethod
    def at_unit_power(self, pilots: UnitPower) -> tuple[Tensor, Tensor]:
        """The channel in pairs `(batch, n, 2)` and its error variance `(batch, n)`, both at unit power."""

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the network was made for.
        """
        return estimate_of(*self.at_scale(*self.front_end.pairs_of(obs)), obs)

    def at_scale(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor]:
        """The channel `(batch, n, 2)` and its error variance `(batch, n)` from pilots `(batch, m, 2)` of any scale."""
        pilots = self.front_end(y, noise_var)
        x, var = self.at_unit_power(pilots)
        return x * pilots.scale.sqrt().unsqueeze(-1), var * pilots.scale

    def squared_errors(self, obs: Observation, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared errors at unit power, what the network says of them, both `(batch, n)`, and the noise variance there.

        Args:
            obs: Observations of a batch.
            x: Their channels `(batch, n)`.
        """
        if self.scale_equivariant:
            unit = unit_of(obs.y, obs.noise_var)
            obs, x = over(obs, unit), x / unit.to(x.real.dtype)
        pilots = self.front_end(*self.front_end.pairs_of(obs))
        x_hat, var = self.at_unit_power(pilots)
        error = (x_hat - as_pairs(x) / pilots.scale.sqrt().unsqueeze(-1)).square().sum(-1)
        return error, var, pilots.noise_var


def estimate_of(x: Tensor, var: Tensor, obs: Observation) -> Estimate:
    """Pairs `(batch, n, 2)` and variances `(batch, n)` in the shape and precision of an observation."""
    leading = obs.y.shape[:-1]
    channel = torch.view_as_complex(x.contiguous()).to(obs.y.dtype)
    return Estimate(channel.reshape(*leading, -1), var.to(channel.real.dtype).reshape(*leading, -1))
