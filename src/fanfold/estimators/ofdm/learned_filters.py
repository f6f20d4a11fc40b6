"""Learned filters: the mean of a Gaussian mixture, unfolded and trained end to end. Koller et al. (2022), the mixture.

A mixture has few components and an array sees clusters anywhere: after the mixture's mean, each stage looks at the
powers over beams and delays and predicts gains there, as a mixture with a component for each place would.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_left, pair_of
from fanfold.core.units import ordinary_binade, power
from fanfold.estimators.ofdm.covariance import check_channels
from fanfold.estimators.ofdm.filter_bank import MixtureNetwork
from fanfold.estimators.ofdm.front_end import UnitPower
from fanfold.estimators.ofdm.grid_network import LARGEST_ERROR_VAR
from fanfold.estimators.ofdm.mixture import Mixture, expectation_maximisation
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings, at_least
from fanfold.networks.layers import conv, linear, zero_conv
from fanfold.observation import Observation
from fanfold.problems.protocols import ChannelProblem
from fanfold.propagation import Layout

LOG_BEAM_SCALE = 0.3  # of logarithms of powers, to numbers of about one
MIXTURE_LR = 0.1  # learning rate of the mixture's own quantities, over that of the networks
SMALLEST_BEAM_POWER = 0.03  # over the noise variance: the logarithm of less tells nothing


@dataclass(frozen=True)
class FilterSettings(ChannelNetworkSettings):
    """A `LearnedFilters` network: a Gaussian mixture of channels, unfolded, and corrected by gains on beams.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.estimators.ofdm.FilterSettings(components=2, modes=4, stages=1, width=8)
        >>> settings.build(ff.problems.OFDMChannel("umi")).settings == settings
        True
    """

    components: int = 8  # components of the mixture
    rounds: int = 12  # rounds of expectation-maximisation that start it
    modes: int = 12  # directions over the grid of one antenna
    stages: int = 2  # corrections after the mixture
    corrected: int = 8  # number of modes, the strongest, that stages correct
    width: int = 48  # channels of the networks that predict gains
    depth: int = 3  # convolutions of these networks, at least two
    oversampling: int = 2  # beams for each antenna along an axis

    def __post_init__(self):
        sizes = {"corrected": self.corrected, "width": self.width, "oversampling": self.oversampling}
        at_least(1, components=self.components, rounds=self.rounds, modes=self.modes, **sizes)
        at_least(0, stages=self.stages)
        at_least(2, depth=self.depth)

    def _built(self, problem: ChannelProblem) -> "LearnedFilters":
        return LearnedFilters.of(problem, self)


class LearnedFilters(MixtureNetwork):
    """Channel estimate `x = Σ_k P(k | y) W_k y`, then `x ← x + B' (g ∘ B (z - x) + c ∘ B x)` in each stage.

    Filters, weights and likelihoods of the components start as those of a mixture that expectation-maximisation
    learned; z are the modes of the pilots, B learned beams, at first an oversampled DFT over the array. The gains g and
    c are predicted from the powers in the beams and are zero before training: untrained, this is `KroneckerGMM`, bit
    for bit. A turn of the channel's phase turns the estimate; the scale, and the noise variance where it is unknown,
    are measured for each observation. Train for all SNRs at once.

    Args:
        layout: The layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Sizes and what is known; the seed is that of expectation-maximisation too.
        mixture: The mixture to start from; learned from the draws that training prepares with if None. Whether one was
            given is kept with the weights, so that a loaded network does not learn another.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.LearnedFilters.of(problem, ff.estimators.ofdm.FilterSettings(components=2))
        >>> net.measures_noise
        True
    """

    training_defaults = {
        "steps": 4000, "batch": 64, "lr": 2e-3, "validate_every": 400, "validation_samples": 1000,
    }  # fmt: skip
    to_modes: Tensor
    given: Tensor  # a boolean

    def __init__(self, layout: Layout, mask: Tensor, settings: FilterSettings, mixture: Mixture | None = None):
        if mixture is not None:
            settings = replace(settings, components=len(mixture.weights), modes=mixture.modes.shape[-1])
        sizes = settings.components, settings.modes
        super().__init__(layout.antennas, mask, *sizes, known_power=settings.known_power)
        self.settings = settings
        self.corrected = min(settings.corrected, self.bank.rank)
        *groups, columns, rows = (1, *layout.array)
        self.groups = math.prod(groups)
        generator = torch.Generator().manual_seed(settings.network_seed)
        self.register_buffer("to_modes", torch.zeros(2, self.bank.modes, self.bank.rank))
        self.stages = nn.ModuleList(
            FilterStage((columns, rows), self.groups * self.corrected, settings, generator)
            for _ in range(settings.stages)
        )
        summary = (settings.width if settings.stages else 0) + settings.components + 2
        self.hidden = linear(summary, 32, generator)
        self.spread = linear(32, layout.antennas + self.bank.entries, None)
        self.register_buffer("given", torch.tensor(mixture is not None))
        if mixture is not None:
            self.start(mixture)

    @classmethod
    def of(
        cls, problem: ChannelProblem, settings: FilterSettings | None = None, mixture: Mixture | None = None
    ) -> "LearnedFilters":
        """The untrained network for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            settings: The default ones if None.
            mixture: The mixture to start from; learned from the draws that training prepares with if None.
        """
        return cls(problem.layout, problem.mask, settings or FilterSettings(), mixture)

    @torch.no_grad()
    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Learn the mixture from channels `(draws, antennas · entries)`, unless one was given."""
        if self.given:
            return
        h = check_channels(x).cpu().unflatten(1, (self.bank.antennas, -1))
        h = h / ordinary_binade(h.abs().amax((1, 2), keepdim=True))
        h = h / power(h).mean((1, 2), keepdim=True).clamp_min(torch.finfo(h.dtype).tiny).sqrt()
        settings = self.settings
        steps = expectation_maximisation(h, settings.components, settings.modes, settings.network_seed)
        *_, (mixture, _) = itertools.islice(steps, settings.rounds)
        self.start(mixture)

    @torch.no_grad()
    def start(self, mixture: Mixture) -> None:
        """Take over the filters of a mixture, and how modes of the pilots tell of those of the grid, on average."""
        super().start(mixture)
        Q = torch.view_as_complex(self.bank.seen.cpu().double().movedim(0, -1).contiguous()).conj()  # (pilots, rank)
        R = Q.mH @ mixture.basis[self.bank.pick.cpu()]
        over_modes = mixture.mean()[1]
        loaded = R @ over_modes @ R.mH
        loaded = loaded + 1e-5 * loaded.diagonal().real.mean() * torch.eye(len(loaded))
        back = torch.linalg.solve(loaded, R @ over_modes, left=True).mT.conj()  # (modes, rank)
        self.to_modes.copy_(pair_of(back))

    def parameter_groups(self, lr: float) -> list[dict]:
        """Groups of parameters: what a mixture knows moves more slowly than networks, which know nothing yet."""
        networks = [p for part in (self.stages, self.hidden, self.spread) for p in part.parameters()]
        return [
            {"params": networks, "lr": lr},
            {"params": [*self.bank.parameters()], "lr": MIXTURE_LR * lr},
        ]

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Squared error over what the mixture expects, so that every SNR counts, and the variance's likelihood."""
        error, var, noise_var = self.squared_errors(obs, x)
        expected = self._expected(noise_var).mean(1)
        likelihood = (error.detach() / var + var.log()).mean(-1) - expected.log()
        return error.mean(-1) / expected + 0.1 * likelihood

    def at_unit_power(self, pilots: UnitPower) -> tuple[Tensor, Tensor]:
        """See `ChannelNetwork`."""
        bank, noise_var = self.bank, pilots.noise_var
        modes = bank.modes_of(pilots.y)
        filtered = bank(modes, noise_var)
        x = bank.mean(filtered)
        expected = (self._expected(noise_var) * filtered.shares.detach()).sum(1, keepdim=True)
        level = LOG_BEAM_SCALE * noise_var.log()
        summary = [filtered.shares, LOG_BEAM_SCALE * expected.log(), level]
        if len(self.stages):
            x, seen = self._corrected(x, modes, noise_var, filtered.shares)
            summary.append(seen)
        hidden = nn.functional.gelu(self.hidden(torch.cat([part.detach() for part in summary], -1)))
        of_antenna, of_entry = self.spread(hidden).split([bank.antennas, bank.entries], -1)
        var = (of_antenna[..., None] + of_entry[:, None] + expected.log()[..., None]).exp()
        return bank.at_grid(x), var.clamp_max(LARGEST_ERROR_VAR).flatten(1)

    def _expected(self, noise_var: Tensor) -> Tensor:
        """Mean error variance at the pilots that each component of the mixture at the start expects, `(batch, k)`."""
        d = self.bank.spectrum.flatten(1)
        left = (d / (d + noise_var[..., None])).mean(-1) * (self.bank.rank / self.bank.pilots)
        return noise_var * left

    def _corrected(self, x: Tensor, modes: Tensor, noise_var: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """All stages, from the mixture's mean; also what the last network saw, `(batch, width)`."""
        z = modes.unflatten(-1, (2, -1)).transpose(1, 2).flatten(1, 2)  # (batch, 2 rank, antennas)
        z = from_left(self.to_modes[:, : self.corrected]) @ z
        z = self._planes(z.unflatten(1, (2, -1)).transpose(1, 2))
        now = first = self._planes(x[:, : self.corrected].unflatten(-1, (2, -1)))
        seen = x.new_zeros(())
        for stage in self.stages:
            change, seen = stage(z, now, noise_var, shares)
            now = now + change
        change = (now - first).unflatten(1, (-1, self.groups)).unflatten(-1, (2, -1)).transpose(2, 3).flatten(2)
        return torch.cat([x[:, : self.corrected] + change, x[:, self.corrected :]], 1), seen

    def _planes(self, z: Tensor) -> Tensor:
        """Rows `(batch, modes · groups, 2 · plane)` of modes `(batch, modes, 2, antennas)`."""
        return z.unflatten(-1, (self.groups, -1)).transpose(2, 3).flatten(3).flatten(1, 2)


class FilterStage(nn.Module):
    """Gains over beams from their powers; a correction that is zero at the start."""

    def __init__(self, plane: tuple[int, int], channels: int, size: FilterSettings, generator: torch.Generator):
        super().__init__()
        along, across = (size.oversampling * n if n > 1 else 1 for n in plane)
        self.beams = (along, across)
        turn = torch.kron(*(_dft(n, beams) for n, beams in zip(plane, self.beams, strict=True)))
        self.forth = nn.Parameter(torch.view_as_real(turn).movedim(-1, 0).contiguous())
        self.back = nn.Parameter(torch.view_as_real(turn.mH.resolve_conj()).movedim(-1, 0).contiguous())
        self.first = conv(2 * channels, size.width, 3, generator)
        self.about = linear(size.components + 1, size.width, None)
        parts: list[nn.Module] = [nn.SiLU()]
        for _ in range(size.depth - 2):
            parts += [conv(size.width, size.width, 3, generator), nn.SiLU()]
        self.trunk, self.head = nn.Sequential(*parts), zero_conv(size.width, 2 * channels, 3)

    def forward(self, z: Tensor, x: Tensor, noise_var: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        forth = from_left(self.forth).mT
        rest, now = ((part @ forth).unflatten(-1, (2, *self.beams)) for part in (z - x, x))
        v = noise_var[..., None, None]
        of_rest, of_now = (part.square().sum(2) / v for part in (rest, now))
        levels = [LOG_BEAM_SCALE * (powers + SMALLEST_BEAM_POWER).log() for powers in (of_rest, of_now)]
        about = self.about(torch.cat([LOG_BEAM_SCALE * noise_var.log(), shares], -1))
        hidden = self.trunk(self.first(torch.cat(levels, 1)) + about[..., None, None])
        add, shrink = self.head(hidden).chunk(2, 1)
        shrink = shrink / (1 + of_now)  # what is far above the noise is left as it is
        change = rest * add.unsqueeze(2) + now * shrink.unsqueeze(2)
        return change.flatten(2) @ from_left(self.back).mT, hidden.mean((2, 3))


def _dft(antennas: int, beams: int) -> Tensor:
    """The DFT `(beams, antennas)` with orthonormal columns."""
    angle = -2 * math.pi / beams * torch.arange(beams)[:, None] * torch.arange(antennas)
    return torch.polar(torch.full_like(angle, beams**-0.5, dtype=torch.float32), angle.float())
