"""What learned channel estimators share: scale, noise variance, the LMMSE filter they start from, error variances.

The filter is separable: covariances over antennas and over the grid of one antenna, Kay (1993), ch. 12. The error
variance is trained by the Gaussian likelihood of Nix & Weigend (1994), eq. 1, without a gradient to the estimate.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from fanfold.core.units import power
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.pairs import from_right, packed, pair_of, paired, swapped
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings
from fanfold.networks.layers import linear
from fanfold.observation import Estimate, Observation
from fanfold.problems.radio.ofdm_channel import OFDMChannel

QUIETEST = 1e-6  # noise variance over power: rounding in single precision is not far below
MOST = 2.0  # error variance over the channel's power: whoever estimates nothing has one
LEAST_SHARE = 0.05  # of the measured power that is signal, however much noise there is said to be


class GridNetwork(nn.Module):
    """A channel estimate and its error variance.

    Scale-equivariant: the power is measured for each observation, and so is the noise variance where it is unknown. One
    network serves all noise variances that it was trained with. The error variance is one factor for each antenna times
    one for each resource element.

    Args:
        problem: Layout and pilots; the covariances come from its draws when training begins.
        settings: Of the network.
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

    def __init__(self, problem: OFDMChannel, settings: ChannelNetworkSettings, *, summary: int, modes: int):
        super().__init__()
        layout, mask = problem.layout, problem.mask.flatten()
        self.antennas, self.entries, self.pilots = layout.antennas, len(mask), int(mask.sum())
        self.array, self.modes = layout.array, min(modes, self.pilots)
        self.settings, self.known_power = settings, settings.known_power
        generator = torch.Generator().manual_seed(settings.network_seed)
        shapes = {
            "to_modes": (2, self.pilots, self.modes),
            "from_modes": (2, self.modes, self.entries),
            "beams": (2, self.antennas, self.antennas),
            "beam_var": (self.antennas,),
            "mode_var": (self.modes,),
            "rest_var": (),
        }
        self.register_buffer("pick", mask.nonzero().flatten(), persistent=False)
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))
        self.hidden = linear(summary + 2, 32, generator)
        self.spread = linear(32, self.antennas + self.entries, None)
        self.noise_variance = NoiseVariance(torch.eye(self.antennas), torch.eye(self.pilots))

    @abstractmethod
    def estimate(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """The channel, packed `(batch, antennas, 2 entries)`, from packed pilots `(batch, antennas, 2 pilots)`.

        Both at unit power, the noise variance `(batch, 1)`. Also a summary `(batch, summary)`.
        """

    @torch.no_grad()
    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Covariances from channels `(draws, antennas · entries)`, each scaled to unit power."""
        h = x.unflatten(1, (self.antennas, self.entries)).to(torch.complex128)
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
        self.noise_variance = NoiseVariance(space, at_pilots).to(x.device)
        self.learn(space, grid)

    def learn(self, space: Tensor, grid: Tensor) -> None:
        """What else a subclass takes from the covariances over antennas and over the grid of one antenna."""

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., antennas · entries)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the network was made for.
        """
        if obs.y.shape[-1] != self.antennas * self.pilots:
            raise ValueError(
                f"y has {obs.y.shape[-1]} entries; this network takes the {self.pilots} pilots of each of "
                f"{self.antennas} antennas, (..., {self.antennas * self.pilots})."
            )
        leading, y = obs.y.shape[:-1], obs.y.reshape(-1, obs.y.shape[-1]).to(torch.complex64)
        noise_var = obs.noise_var
        if noise_var is not None:
            noise_var = noise_var.float().expand(*leading, 1).reshape(-1, 1)
        x, var = self.of_pairs(torch.view_as_real(y.resolve_conj()), noise_var)
        x = torch.view_as_complex(x.contiguous()).to(obs.y.dtype)
        return Estimate(x.reshape(*leading, -1), var.to(x.real.dtype).reshape(*leading, -1))

    def of_pairs(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same in real pairs: y `(batch, m, 2)`, noise variance `(batch, 1)` -> `(batch, n, 2)`, `(batch, n)`."""
        x, var, scale, _ = self._normalised(y, noise_var)
        return x * scale.sqrt().unsqueeze(-1), var * scale

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Squared error over what LMMSE expects, so that every noise variance counts, and the variance's likelihood."""
        y = torch.view_as_real(obs.y.resolve_conj())
        noise_var = None if obs.noise_var is None else obs.noise_var.expand(len(y), 1)
        x_hat, var, scale, noise_var = self._normalised(y, noise_var)
        error = (x_hat - torch.view_as_real(x.resolve_conj()) / scale.sqrt().unsqueeze(-1)).square().sum(-1)
        expected = self.expected(noise_var)
        likelihood = (error.detach() / var + (var / expected).log()).mean(-1)
        return error.mean(-1) / expected.flatten() + 0.1 * likelihood

    def expected(self, noise_var: Tensor) -> Tensor:
        """Mean error variance of separable LMMSE `(batch, 1)` where the covariances are true; at unit power."""
        d = self.beam_var.unsqueeze(-1) * self.mode_var
        left = 1 / (d + noise_var.unsqueeze(-1))  # of d: noise_var / (d + noise_var)
        share = self.beam_var.unsqueeze(-1) * self.from_modes.square().sum((0, 2)) / self.mode_var.clamp_min(1e-9)
        return (noise_var * (share * left).sum((1, 2)).unsqueeze(-1)) / (self.antennas * self.entries) + self.rest_var

    def _normalised(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Estimate and error variance at unit power, the scale that was measured and the noise variance over it."""
        noise_var = self.noise_variance.of_pairs(y) if noise_var is None else noise_var
        scale = self._scale(y, noise_var)
        noise_var = (noise_var / scale).clamp_min(QUIETEST)
        y = packed((y / scale.sqrt().unsqueeze(-1)).unflatten(1, (self.antennas, self.pilots)))
        x, summary = self.estimate(y, noise_var)
        return paired(x).flatten(1, 2), self._variance(summary, noise_var), scale, noise_var

    def _scale(self, y: Tensor, noise_var: Tensor) -> Tensor:
        """The power of the channel `(batch, 1)`: that of the pilots less that of the noise."""
        if self.known_power:
            return torch.ones_like(noise_var)
        measured = y.square().sum(-1).mean(-1, keepdim=True)
        least = torch.maximum(LEAST_SHARE * measured, 1e-3 * noise_var).clamp_min(1e4 * torch.finfo(y.dtype).tiny)
        return torch.maximum(measured - noise_var, least)

    def _variance(self, summary: Tensor, noise_var: Tensor) -> Tensor:
        """`(batch, antennas · entries)`: what LMMSE expects times factors that are one before training."""
        level = noise_var.log() / math.log(1e6)
        seen = torch.cat([summary.detach(), level, level.square()], -1)
        factors = self.spread(nn.functional.gelu(self.hidden(seen)))
        of_antenna, of_entry = factors.split([self.antennas, self.entries], -1)
        factor = (of_antenna.unsqueeze(-1) + of_entry.unsqueeze(-2)).exp()
        return (factor * self.expected(noise_var).unsqueeze(-1)).clamp_max(MOST).flatten(1)


class CorrectedLMMSE(GridNetwork):
    """Separable LMMSE plus a correction that is zero before training."""

    @abstractmethod
    def correction(self, z: Tensor, start: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the start, and a summary `(batch, summary)`.

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
        """`E[x | z]`, packed `(batch, antennas, 2 entries)`, where x is Gaussian with these covariances."""
        across = from_right(self.beams)
        c = (swapped(z) @ across).unflatten(-1, (2, -1))  # (batch, modes, 2, beams)
        gains = self.beam_var / (self.beam_var * self.mode_var.unsqueeze(-1) + noise_var.unsqueeze(-1))
        return swapped((c * gains.unsqueeze(-2)).flatten(-2) @ across.mT) @ from_right(self.from_modes)
