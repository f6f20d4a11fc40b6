"""What networks on the grid share: the covariances and the LMMSE filter that they start from, error variances.

The filter is separable: covariances over antennas and over the grid of one antenna, Kay (1993), ch. 12. The error
variance is trained by the Gaussian likelihood of Nix & Weigend (1994), eq. 1, without a gradient to the estimate.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_right, pair_of, paired, swapped
from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import check_channels
from fanfold.estimators.ofdm.front_end import ChannelNetwork, FrontEnd, UnitPower
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings
from fanfold.networks.layers import linear
from fanfold.observation import Observation
from fanfold.propagation import Layout

LARGEST_ERROR_VAR = 2.0  # over the channel's power: whoever estimates nothing has one
LOG_POWER_SCALE = 0.4  # of logarithms of powers, to numbers of about one


class GridNetwork(ChannelNetwork):
    """A channel network that starts from the covariances over antennas and over the grid of one antenna.

    One network serves all noise variances that it was trained with. The error variance is one factor for each antenna
    times one for each resource element. The covariances come from the draws that training prepares with.

    Args:
        layout: Layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Settings of the network.
        summary: Numbers that a subclass tells of each observation for its error variance.
        modes: Strongest directions of the covariance between pilots that are looked at, all of them if there are fewer.
    """

    training_defaults = {"steps": 8000, "batch": 128, "lr": 2e-3, "validate_every": 500, "validation_samples": 1000}
    pick: Tensor
    to_modes: Tensor
    from_modes: Tensor
    beams: Tensor
    beam_var: Tensor
    mode_var: Tensor
    rest_var: Tensor

    def __init__(self, layout: Layout, mask: Tensor, settings: ChannelNetworkSettings, *, summary: int, modes: int):
        super().__init__(FrontEnd(layout.antennas, int(mask.sum()), known_power=settings.known_power))
        self.antennas, self.entries, self.pilots = layout.antennas, mask.numel(), int(mask.sum())
        self.array, self.modes, self.settings = layout.array, min(modes, self.pilots), settings
        generator = torch.Generator().manual_seed(settings.network_seed)
        shapes = {
            "to_modes": (2, self.pilots, self.modes),
            "from_modes": (2, self.modes, self.entries),
            "beams": (2, self.antennas, self.antennas),
            "beam_var": (self.antennas,),
            "mode_var": (self.modes,),
            "rest_var": (),
        }
        self.register_buffer("pick", mask.flatten().nonzero().flatten(), persistent=False)
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))
        self.hidden = linear(summary + 2, 32, generator)
        self.spread = linear(32, self.antennas + self.entries, None)

    @abstractmethod
    def estimate(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """The channel, packed `(batch, antennas, 2 entries)`, and a summary `(batch, summary)`.

        Args:
            y: Packed pilots `(batch, antennas, 2 pilots)` of a channel of unit power.
            noise_var: `(batch, 1)`.
        """

    @torch.no_grad()
    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Take the covariances of channels `(draws, antennas · entries)`, each scaled to unit power."""
        h = check_channels(x).unflatten(1, (self.antennas, self.entries)).to(torch.complex128)
        h = h / power(h).mean((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        space = torch.einsum("bae,bce->ac", h, h.conj()) / (len(h) * self.entries)
        grid = torch.einsum("bae,baf->ef", h, h.conj()) / (len(h) * self.antennas)
        at_pilots = grid[self.pick][:, self.pick]
        mode_var, U = (part.flip(-1)[..., : self.modes] for part in torch.linalg.eigh(at_pilots))
        beam_var, V = torch.linalg.eigh(space)
        self.to_modes.copy_(pair_of(U.conj()))
        self.from_modes.copy_(pair_of((grid[:, self.pick] @ U).mT))
        self.beams.copy_(pair_of(V.conj()))
        self.beam_var.copy_(beam_var.clamp_min(0))
        self.mode_var.copy_(mode_var.clamp_min(0))
        seen = (grid[:, self.pick] @ U).abs().square().sum(0) / mode_var.clamp_min(1e-9 * mode_var[0])
        self.rest_var.copy_((1 - seen.sum() / self.entries).clamp_min(1e-9))
        self.front_end.adopt(space, at_pilots)
        self.adopt(space, grid)

    def adopt(self, space: Tensor, grid: Tensor) -> None:
        """Take what else a subclass needs from the covariances over antennas and over the grid of one antenna."""

    def at_unit_power(self, pilots: UnitPower) -> tuple[Tensor, Tensor]:
        """See `ChannelNetwork`."""
        x, summary = self.estimate(pilots.y, pilots.noise_var)
        return paired(x).flatten(1, 2), self._variance(summary, pilots.noise_var)

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Squared error over what LMMSE expects, so that every noise variance counts, and the variance's likelihood."""
        error, var, noise_var = self.squared_errors(obs, x)
        expected = self.expected(noise_var)
        likelihood = (error.detach() / var + (var / expected).log()).mean(-1)
        return error.mean(-1) / expected.flatten() + 0.1 * likelihood

    def expected(self, noise_var: Tensor) -> Tensor:
        """Mean error variance of separable LMMSE `(batch, 1)` where the covariances are true; at unit power."""
        d = self.beam_var.unsqueeze(-1) * self.mode_var
        left = 1 / (d + noise_var.unsqueeze(-1))  # of d: noise_var / (d + noise_var)
        share = self.beam_var.unsqueeze(-1) * self.from_modes.square().sum((0, 2)) / self.mode_var.clamp_min(1e-9)
        return (noise_var * (share * left).sum((1, 2)).unsqueeze(-1)) / (self.antennas * self.entries) + self.rest_var

    def _variance(self, summary: Tensor, noise_var: Tensor) -> Tensor:
        """Error variances `(batch, antennas · entries)`: what LMMSE expects times factors, one before training."""
        level = noise_var.log() / math.log(1e6)
        seen = torch.cat([summary.detach(), level, level.square()], -1)
        factors = self.spread(nn.functional.gelu(self.hidden(seen)))
        of_antenna, of_entry = factors.split([self.antennas, self.entries], -1)
        factor = (of_antenna.unsqueeze(-1) + of_entry.unsqueeze(-2)).exp()
        return (factor * self.expected(noise_var).unsqueeze(-1)).clamp_max(LARGEST_ERROR_VAR).flatten(1)


class CorrectedLMMSE(GridNetwork):
    """Separable LMMSE plus a correction that is zero before training."""

    @abstractmethod
    def correction(self, z: Tensor, start: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """The correction that is added to the start, packed alike, and a summary `(batch, summary)`.

        Args:
            z: Delay modes of the pilots, packed `(batch, antennas, 2 modes)`, with noise of variance `noise_var`.
            start: The LMMSE estimate, packed `(batch, antennas, 2 entries)`.
            noise_var: `(batch, 1)`; the channel has unit power.
        """

    def estimate(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """See `GridNetwork`."""
        z = y @ from_right(self.to_modes)
        start = self._start(z, noise_var)
        change, summary = self.correction(z, start, noise_var)
        return start + change, summary

    def _start(self, z: Tensor, noise_var: Tensor) -> Tensor:
        """The mean `E[x | z]`, packed `(batch, antennas, 2 entries)`, of Gaussian x with these covariances."""
        across = from_right(self.beams)
        c = (swapped(z) @ across).unflatten(-1, (2, -1))  # (batch, modes, 2, beams)
        gains = self.beam_var / (self.beam_var * self.mode_var.unsqueeze(-1) + noise_var.unsqueeze(-1))
        return swapped((c * gains.unsqueeze(-2)).flatten(-2) @ across.mT) @ from_right(self.from_modes)
