"""A mixer over beams and delays whose gains depend on the powers it sees: an LMMSE filter that knows where to look.

Layers that mix along one axis at a time: Tolstikhin et al. (2021), MLP-Mixer. Gains on the coefficients of a transform,
predicted from the data, give the mean of a mixture of Gaussians with one component for each spectrum: Koller, Fesl,
Turan & Utschick (2022). Real gains on learned beams keep the channel's common phase: fanfold's own idea.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import beside, from_right, pair_of, swapped
from fanfold.estimators.ofdm.grid_network import LOG_POWER_SCALE, CorrectedLMMSE
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings, at_least
from fanfold.networks.layers import linear
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

SMALLEST_POWER_OVER_NOISE = 0.1  # below, there is nothing but noise to see


@dataclass(frozen=True)
class MixerSettings(ChannelNetworkSettings):
    """A `BeamMixer`: LMMSE over antennas and grid, corrected by gains on learned beams and delays.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.MixerSettings(stages=1, beams=8, width=16)
        >>> settings.build(ff.problems.OFDMChannel("umi")).settings == settings
        True
    """

    modes: int = 12  # modes of delay, seen at the pilots
    state: int = 12  # modes of delay, in which the correction grows
    stages: int = 4  # turns to beams and delays and back
    delays: int = 16  # learned mixtures of the modes of the observation and of the estimate so far
    beams: int = 64  # learned beams, for each polarisation or panel
    width: int = 112  # width of the network that predicts gains

    def __post_init__(self):
        sizes = {"delays": self.delays, "beams": self.beams, "width": self.width}
        at_least(1, modes=self.modes, state=self.state, stages=self.stages, **sizes)

    def _built(self, problem: ChannelProblem) -> "BeamMixer":
        return BeamMixer.of(problem, self)


class BeamMixer(CorrectedLMMSE):
    """Channel estimate `x = LMMSE(y) + F Σ_t C_t (g_t ∘ u_t)` with `u_t = B_t (z, s_t)` of the pilots' delay modes z.

    Each stage turns the pilots' modes and what the stages before it gave, s, to learned beams and delays, B, reads the
    powers |u|² over the noise variance, and says which real gain g each gets before the way back, C, learned too.
    Beams are those of one polarisation or panel; the network that predicts gains sees all of them. A turn of the
    channel's phase turns the estimate.

    Args:
        layout: Layout of the channels; the first axes of the array but the last two are polarisations and panels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Sizes and what is known.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.BeamMixer.of(problem, ff.estimators.ofdm.MixerSettings(stages=1))
        >>> net.measures_noise
        True
    """

    def __init__(self, layout: Layout, mask: Tensor, settings: MixerSettings):
        super().__init__(layout, mask, settings, summary=settings.width, modes=settings.modes)
        generator = torch.Generator().manual_seed(settings.network_seed)
        self.state = min(settings.state, self.entries)
        array = self.array if len(self.array) > 2 else (1, *self.array)
        self.groups = torch.Size(array[:-2]).numel()
        self.grid = nn.Parameter(torch.zeros(2, self.state, self.entries))
        make = (self.antennas // self.groups, self.groups, self.modes, self.state, settings, generator)
        self.stages = nn.ModuleList(MixerStage(*make) for _ in range(settings.stages))

    @classmethod
    def of(cls, problem: ChannelProblem, settings: MixerSettings | None = None) -> "BeamMixer":
        """The untrained network for a problem's layout and pilots; of the default sizes if `settings` is None."""
        return cls(problem.layout, problem.mask, settings or MixerSettings())

    def adopt(self, space: Tensor, grid: Tensor) -> None:
        """Take the directions of most power over the grid."""
        F = torch.linalg.eigh(grid).eigenvectors.flip(1)[:, : self.state]
        self.grid.copy_(pair_of(F.mT))

    def correction(self, z: Tensor, start: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """See `CorrectedLMMSE`; the summary is the mean over delays of what the last stage knows."""
        to_state = from_right(self.grid).mT  # adjoint of what leads from the state to the grid
        first = state = start @ to_state
        hidden = z
        for stage in self.stages:
            state, hidden = stage(state, z, noise_var.log())
        return (state - first) @ from_right(self.grid), hidden.mean(1)


class MixerStage(nn.Module):
    """One turn to beams and delays and back, with gains between; it adds nothing before training."""

    def __init__(
        self, antennas: int, groups: int, modes: int, state: int, size: MixerSettings, generator: torch.Generator
    ):
        super().__init__()
        self.groups, self.delays, self.beams = groups, size.delays, size.beams
        self.to_delays = _isometry(modes + state, size.delays, generator)
        self.to_beams = _isometry(antennas, size.beams, generator)
        self.from_beams = _isometry(size.beams, antennas, generator)
        self.from_delays = _isometry(size.delays, state, generator)
        self.see = linear(groups * size.beams + 2, size.width, generator)
        self.place = nn.Parameter(torch.zeros(size.delays, size.width))
        self.think = linear(size.width, size.width, generator)
        self.across = nn.ParameterList(_near_identity(size.delays, generator) for _ in range(2))
        self.say = linear(size.width, groups * size.beams, None)

    def forward(self, state: Tensor, z: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The state `(batch, antennas, 2 state)` after this stage, and what it knows, `(batch, delays, width)`."""
        u = beside(z, state) @ from_right(self.to_delays)
        u = swapped(u.unflatten(1, (self.groups, -1))) @ from_right(self.to_beams)  # (batch, groups, delays, 2 beams)
        u = u.unflatten(-1, (2, self.beams))
        gains, hidden = self._gains(u.square().sum(-2), level)
        back = swapped((u * gains.unsqueeze(-2)).flatten(-2) @ from_right(self.from_beams))
        return state + back.flatten(1, 2) @ from_right(self.from_delays), hidden

    def _gains(self, powers: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        powers = powers * torch.exp(-level).unflatten(-1, (1, 1, 1))
        over_noise = LOG_POWER_SCALE * (powers + SMALLEST_POWER_OVER_NOISE).log()
        level = (LOG_POWER_SCALE * level).unsqueeze(1).expand(-1, self.delays, 1)
        seen = torch.cat([over_noise.transpose(1, 2).flatten(2), level, level.square()], -1)
        hidden = nn.functional.gelu(self.across[0] @ self.see(seen) + self.place)
        hidden = hidden + nn.functional.gelu(self.across[1] @ self.think(hidden))
        return self.say(hidden).unflatten(-1, (self.groups, self.beams)).transpose(1, 2), hidden


def _isometry(inputs: int, outputs: int, generator: torch.Generator) -> nn.Parameter:
    """A random complex matrix as a pair, that keeps the mean square of an entry."""
    return nn.Parameter(torch.randn(2, inputs, outputs, generator=generator) / (2 * inputs) ** 0.5)


def _near_identity(size: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.eye(size) + 0.1 * torch.randn(size, size, generator=generator) / size**0.5)
