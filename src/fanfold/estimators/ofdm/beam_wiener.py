"""A Wiener filter over beams and delays whose spectrum a network reads from the pilots, unfolded a few times.

The mean of a Gaussian mixture with one component for each place of the clusters: Koller, Fesl, Turan & Utschick (2022).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.networks.layers import conv, linear, zero_conv
from fanfold.observation import Estimate, Observation
from fanfold.problems.ofdm_channel import OFDMChannel
from fanfold.units import power

COMPRESSION = 0.3  # of logarithms of powers, to numbers of about one
FLOOR = 1e-3  # of powers over the noise variance: log of less tells nothing


@dataclass(frozen=True)
class Size:
    """Of the network."""

    modes: int = 12  # of delay: the strongest directions of the covariance between pilots
    stages: int = 3
    width: int = 48  # channels of the networks that predict gains
    depth: int = 3  # their convolutions
    oversampling: int = 2  # beams for each antenna along an axis


class BeamWiener(nn.Module):
    """Channel estimate `x = Σ_t B_tᴴ diag(g_t) B_t z` from the delay modes z of the pilots at each antenna.

    B is a learned transform from antennas to beams, at first an oversampled DFT along each axis of the array. A small
    convolutional network reads the powers of all beams and modes, over the noise variance, and says how much of each to
    keep: the gains g. The next stage sees the estimate too. A common phase of the channel passes through; the scale is
    measured for each observation, and so is the noise variance where it is unknown. Untrained, it is the LMMSE filter
    over frequency. Trained for several SNRs at once.

    Args:
        problem: Layout, pilots and, for the delay modes, draws.
        size: Of the network.
        seed: Of the starting weights.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

    Raises:
        ValueError: If there are fewer pilots than two.
    """

    training_defaults = {
        "steps": 4000, "batch": 64, "lr": 2e-3, "validate_every": 400, "validation_samples": 1000,
    }  # fmt: skip

    def __init__(self, problem: OFDMChannel, size: Size | None = None, seed: int = 0, *, known_power: bool = False):
        super().__init__()
        size, layout = size or Size(), problem.layout
        self.size, self.known_power = size, known_power
        self.pilots = int(problem.mask.sum())
        if self.pilots < 2:
            raise ValueError(f"{self.pilots} pilot on each antenna; there are no delay modes of fewer than two.")
        *groups, columns, rows = (1, *layout.array)
        self.groups, self.plane = math.prod(groups), (columns, rows)
        self.antennas, self.entries = layout.antennas, layout.symbols * layout.subcarriers
        modes = self.modes = min(size.modes, self.pilots)
        self.beams = tuple(size.oversampling * n if n > 1 else 1 for n in self.plane)
        pick = problem.mask.flatten().nonzero().flatten()
        self.register_buffer("pick", pick)
        generator = torch.Generator().manual_seed(seed)
        self.to_modes = nn.Parameter(torch.zeros(self.pilots, modes, 2))
        self.to_grid = nn.Parameter(torch.zeros(modes, self.entries, 2))
        self.register_buffer("mode_var", torch.ones(modes))
        self.register_buffer("space_var", torch.ones(self.antennas))
        turns = [torch.view_as_real(_dft(n, b)) for n, b in zip(self.plane, self.beams, strict=True)]
        back = [torch.view_as_real(_dft(n, b).mH.resolve_conj()) for n, b in zip(self.plane, self.beams, strict=True)]
        self.columns, self.rows, self.columns_back, self.rows_back = (
            nn.Parameter(turn.repeat(size.stages, 1, 1, 1)) for turn in (*turns, *back)
        )
        channels = self.groups * modes
        self.gains = nn.ModuleList(_Gains(channels, stage, size, generator) for stage in range(size.stages))
        self.spread = linear(size.width + 1, self.entries + self.antennas, None)
        identity = torch.eye(self.antennas, dtype=torch.complex64)
        self.noise_variance = NoiseVariance(identity, torch.eye(self.pilots, dtype=torch.complex64))

    @torch.no_grad()
    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Delay modes, and what LMMSE would reach, from channels `(draws, antennas · symbols · subcarriers)`."""
        h = x.unflatten(1, (self.antennas, self.entries)).to(torch.complex128)
        h = h / power(h).mean((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        over_grid = torch.einsum("bae,baf->ef", h, h.conj()) / (len(h) * self.antennas)
        space = torch.einsum("bae,bce->ac", h, h.conj()) / (len(h) * self.entries)
        at_pilots = over_grid[self.pick][:, self.pick]
        values, U = torch.linalg.eigh(at_pilots)
        values, U = values.flip(0)[: self.modes], U.flip(1)[:, : self.modes]
        loaded = values.clamp_min(1e-6 * values[0])
        back = over_grid[:, self.pick] @ U / loaded
        self.to_modes.copy_(torch.view_as_real(U.conj().resolve_conj()).float())
        self.to_grid.copy_(torch.view_as_real(back.mT.resolve_conj().contiguous()).float())
        self.mode_var.copy_(loaded.float())
        self.space_var.copy_(torch.linalg.eigvalsh(space).clamp_min(0).float())
        self.noise_variance = NoiseVariance(space, at_pilots)

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(batch, antennas · symbols · subcarriers)` and its error variance."""
        x, var = self.of_pairs(torch.view_as_real(obs.y.resolve_conj()), obs.noise_var)
        return Estimate(torch.view_as_complex(x.contiguous()), var)

    def of_pairs(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same in real pairs: y `(batch, m, 2)` to `(batch, n, 2)` and the variance `(batch, n)`."""
        x, var, _, _ = self._estimate(y, noise_var)
        return x, var

    def _estimate(self, y: Tensor, noise_var: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Also the scale that was measured, and the noise variance over it."""
        noise_var = self.noise_variance.of_pairs(y) if noise_var is None else noise_var.expand(len(y), 1)
        scale = self._scale(y, noise_var)
        noise_var = noise_var / scale
        y = y / scale.sqrt()[..., None]
        z = self._modes(y.unflatten(1, (self.antennas, self.pilots)))
        z, hidden = self._filtered(z, noise_var)
        x = self._grid(z) * scale.sqrt()[..., None]
        seen = torch.cat([hidden.mean((2, 3)).detach(), COMPRESSION * noise_var.log()], -1)
        of_entry, of_antenna = self.spread(seen).split([self.entries, self.antennas], -1)
        var = (of_antenna[:, :, None] + of_entry[:, None] + self._linear_error(noise_var).log()[..., None]).exp()
        return x, var.flatten(1) * scale, scale, noise_var

    def _scale(self, y: Tensor, noise_var: Tensor) -> Tensor:
        """The power of the channel `(batch, 1)`: that of the pilots less that of the noise."""
        if self.known_power:
            return torch.ones_like(noise_var)
        measured = y.square().sum(-1).mean(-1, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
        return torch.maximum(measured - noise_var, 0.05 * measured)

    def _linear_error(self, noise_var: Tensor) -> Tensor:
        """What LMMSE over space and delay would leave, `(batch, 1)`; of a channel of unit power."""
        d = (self.space_var[:, None] * self.mode_var).flatten()
        left = (d * noise_var / (d + noise_var).clamp_min(torch.finfo(d.dtype).tiny)).sum(-1, keepdim=True)
        return (left / (self.antennas * self.pilots)).clamp_min(1e-12)

    def _modes(self, y: Tensor) -> Tensor:
        """Pilots `(batch, antennas, pilots, 2)` to modes `(batch, groups · modes, 2 · plane)`, reals first."""
        z = _packed(y) @ _real_matrix(self.to_modes)
        z = z.unflatten(1, (self.groups, -1)).unflatten(-1, (2, self.modes))
        return z.permute(0, 1, 4, 3, 2).flatten(3).flatten(1, 2)

    def _grid(self, z: Tensor) -> Tensor:
        """Modes to the grid `(batch, antennas · entries, 2)`."""
        z = z.unflatten(1, (self.groups, self.modes)).unflatten(-1, (2, -1)).permute(0, 1, 4, 3, 2)
        h = z.flatten(3).flatten(1, 2) @ _real_matrix(self.to_grid)
        return h.unflatten(-1, (2, self.entries)).transpose(-1, -2).flatten(1, 2)

    def _filtered(self, z: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """All stages; also what the last network saw."""
        x, hidden = None, z
        over_noise = (self.mode_var / noise_var).log().repeat(1, self.groups)[..., None, None]
        for stage, gains in enumerate(self.gains):
            to_beams = _real_matrix(_kron(self.columns[stage], self.rows[stage]).transpose(0, 1))
            back = _real_matrix(_kron(self.columns_back[stage], self.rows_back[stage]).transpose(0, 1))
            q = self._beams(z, to_beams)
            seen = [self._level(q, noise_var)]
            before = None if x is None else self._beams(x, to_beams)
            if before is not None:
                seen.append(self._level(before, noise_var))
            level = (COMPRESSION * noise_var.log())[..., None, None].expand(-1, 1, *seen[0].shape[2:])
            keep, carry, hidden = gains(torch.cat([*seen, level], 1))
            kept = q * torch.sigmoid(keep + over_noise).unsqueeze(2)
            if before is not None:
                kept = kept + before * carry.unsqueeze(2)
            x = kept.flatten(2) @ back
        assert x is not None
        return x, hidden

    def _beams(self, z: Tensor, to_beams: Tensor) -> Tensor:
        """`(batch, channels, 2, beams of columns, beams of rows)`."""
        return (z @ to_beams).unflatten(-1, (2, *self.beams))

    def _level(self, q: Tensor, noise_var: Tensor) -> Tensor:
        p = q.square().sum(2) / noise_var[..., None, None]
        return COMPRESSION * (p + FLOOR).log()

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Error over what LMMSE would leave, so that every SNR counts; and how well the variance tells the error."""
        estimate, var, scale, noise_var = self._estimate(torch.view_as_real(obs.y.resolve_conj()), obs.noise_var)
        error = (estimate - torch.view_as_real(x.resolve_conj())).square().sum(-1)
        relative = (error.mean(-1, keepdim=True) / (scale * self._linear_error(noise_var))).flatten()
        misfit = (error.detach() / var + var.log() - scale.log()).mean(-1)
        return relative + 0.1 * misfit


class _Gains(nn.Module):
    """From levels of beams and modes to gains; zero at the start."""

    def __init__(self, channels: int, stage: int, size: Size, generator: torch.Generator):
        super().__init__()
        first, second = (1, 1) if stage == 0 else (2, 2)
        parts: list[nn.Module] = []
        for layer in range(size.depth - 1):
            parts += [conv(size.width if layer else first * channels + 1, size.width, 3, generator), nn.SiLU()]
        self.trunk, self.head = nn.Sequential(*parts), zero_conv(size.width, second * channels, 3)
        self.channels = channels

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.trunk(seen)
        gains = self.head(hidden)
        return gains[:, : self.channels], gains[:, self.channels :], hidden


def _dft(antennas: int, beams: int) -> Tensor:
    """`(beams, antennas)`, orthonormal columns."""
    angle = -2 * math.pi / beams * torch.arange(beams)[:, None] * torch.arange(antennas)
    return torch.polar(torch.full_like(angle, beams**-0.5, dtype=torch.float32), angle.float())


def _kron(left: Tensor, right: Tensor) -> Tensor:
    """The Kronecker product of two complex matrices, all as pairs `(rows, columns, 2)`."""
    a, b = left[:, None, :, None], right[None, :, None]
    re = a[..., 0] * b[..., 0] - a[..., 1] * b[..., 1]
    im = a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]
    return torch.stack([re, im], -1).flatten(0, 1).flatten(1, 2)


def _packed(z: Tensor) -> Tensor:
    """Pairs `(..., n, 2)` as `(..., 2n)`, reals before imaginaries."""
    return torch.cat([z[..., 0], z[..., 1]], -1)


def _real_matrix(M: Tensor) -> Tensor:
    """Of a complex M `(a, b, 2)` in pairs the real `(2a, 2b)` that right-multiplies rows of reals, then imaginaries."""
    re, im = M[..., 0], M[..., 1]
    return torch.cat([torch.cat([re, im], 1), torch.cat([-im, re], 1)], 0)
