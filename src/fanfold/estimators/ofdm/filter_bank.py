"""The LMMSE filters of all components of a mixture, on real pairs. Koller, Fesl, Turan & Utschick (2022).

Each component has eigenbases of its own over space and over the pilots' modes; what it filters is weighted by how well
it explains the pilots.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.estimators.ofdm.mixture import Mixture
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.problems.radio.ofdm_channel import OFDMChannel

QUIETEST = 1e-6  # noise variance over power: rounding in single precision is not far below
LEAST_PROBABILITY = 1e-12  # of a component: what is less counts for nothing, and subnormal numbers are slow
LEAST_SHARE = 0.05  # of the measured power that is signal, however much noise there is said to be


class Filtered(NamedTuple):
    """What the components make of pilots."""

    z: Tensor  # (batch, components, 2, modes, antennas): the pilots in the eigenbases, real and imaginary
    gains: Tensor  # (batch, components, modes, antennas): from z to what `back` takes
    shares: Tensor  # (batch, components): P(component | pilots)


class FilterBank(nn.Module):
    """Filters, weights and likelihoods of the components of a mixture, for the pilots of a problem.

    All are parameters, so that they can be trained; deviations of eigenvalues start at zero. Everything is at unit
    power of the channel.

    Args:
        problem: Layout and pilots.
        components: How many.
        modes: Of the mixture.
    """

    seen: Tensor
    spectrum: Tensor
    of_space: Tensor

    def __init__(self, problem: OFDMChannel, components: int, modes: int):
        super().__init__()
        antennas, entries = problem.layout.antennas, problem.layout.n // problem.layout.antennas
        pilots = int(problem.mask.sum())
        modes, rank = min(modes, entries), min(modes, pilots)
        self.antennas, self.entries, self.pilots, self.modes, self.rank = antennas, entries, pilots, modes, rank
        self.register_buffer("pick", problem.mask.flatten().nonzero().flatten(), persistent=False)
        self.register_buffer("seen", torch.zeros(2, pilots, rank))  # from pilots to their modes
        self.register_buffer("spectrum", torch.ones(components, rank, antennas))  # variances of z
        self.register_buffer("of_space", torch.ones(components, antennas))
        self.U = nn.Parameter(torch.zeros(2, components, antennas, antennas))  # eigenbases over space, adjoint
        self.V = nn.Parameter(torch.zeros(2, components, rank, rank))  # over modes of the pilots, adjoint
        self.back = nn.Parameter(torch.zeros(2, components, modes, rank))
        self.basis = nn.Parameter(torch.zeros(2, entries, modes))
        self.log_weights = nn.Parameter(torch.zeros(components))
        self.gain_deviation = nn.Parameter(torch.zeros(components, rank, antennas))
        self.likelihood_deviation = nn.Parameter(torch.zeros(components, rank, antennas))
        self.noise_variance = NoiseVariance(torch.eye(antennas), torch.eye(pilots))

    @torch.no_grad()
    def set(self, mixture: Mixture) -> None:
        """Take over a mixture; deviations become zero.

        Raises:
            ValueError: If it is of another layout or has other numbers of components or modes.
        """
        wanted = (len(self.log_weights), self.antennas, self.entries, self.modes)
        given = (*mixture.space.shape[:2], *mixture.basis.shape)
        if wanted != given:
            names = "components, {} antennas, {} resource elements and {} modes"
            raise ValueError(
                f"the mixture has {given[0]} {names.format(*given[1:])}; wanted are {wanted[0]} "
                f"{names.format(*wanted[1:])}."
            )
        at_pilots = mixture.basis[self.pick.cpu()]
        Q = torch.linalg.qr(at_pilots)[0]
        R = Q.mH @ at_pilots
        of_modes, V = torch.linalg.eigh(R @ mixture.modes @ R.mH)
        of_space, U = torch.linalg.eigh(mixture.space)
        of_space, of_modes = of_space.clamp_min(0), of_modes.clamp_min(0)
        self.seen.copy_(_pair(Q.conj()))
        self.U.copy_(_pair(U.mH))
        self.V.copy_(_pair(V.mH))
        self.back.copy_(_pair(mixture.modes @ R.mH @ V))
        self.basis.copy_(_pair(mixture.basis))
        self.of_space.copy_(of_space)
        self.spectrum.copy_(of_space[:, None] * of_modes[:, :, None])
        self.log_weights.copy_(mixture.weights.log())
        self.gain_deviation.zero_()
        self.likelihood_deviation.zero_()
        space, over_modes = mixture.mean()
        self.noise_variance = NoiseVariance(space, at_pilots @ over_modes @ at_pilots.mH).to(self.U.device)

    def scaled(
        self, y: Tensor, noise_var: Tensor | None, *, known_power: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At unit power: modes of the pilots `(batch, rank, 2 antennas)` and noise variance; the power `(batch, 1)`.

        Args:
            y: `(batch, antennas · pilots, 2)`.
            noise_var: `(batch, 1)`; estimated if None.
            known_power: Whether it is known to be one.
        """
        noise_var = self.noise_variance.of_pairs(y) if noise_var is None else noise_var
        scale = torch.ones_like(noise_var)
        if not known_power:
            measured = y.square().sum(-1).mean(-1, keepdim=True)
            least = torch.maximum(LEAST_SHARE * measured, 1e-3 * noise_var)
            scale = torch.maximum(measured - noise_var, least).clamp_min(1e4 * torch.finfo(y.dtype).tiny)
        y = (y / scale.sqrt()[..., None]).unflatten(1, (self.antennas, self.pilots))
        z = (torch.cat([y[..., 0], y[..., 1]], -1) @ from_right(self.seen)).unflatten(-1, (2, -1))
        return z.permute(0, 3, 2, 1).flatten(2), (noise_var / scale).clamp_min(QUIETEST), scale

    def forward(self, z: Tensor, noise_var: Tensor) -> Filtered:
        """From the modes of the pilots at unit power."""
        v = noise_var[..., None, None]
        to_eigen = from_left(self.U).permute(2, 0, 1).flatten(1)  # (2 antennas, components · 2 antennas)
        z = (z @ to_eigen).unflatten(-1, (len(self.log_weights), 2, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        z = (from_left(self.V) @ z).unflatten(2, (2, -1))
        own = self.spectrum * self.likelihood_deviation.exp() + v
        shares = (self.log_weights - (z.square().sum(2) / own + own.log()).sum((2, 3))).softmax(1)
        shares = torch.where(shares > LEAST_PROBABILITY, shares, 0.0)
        gains = self.of_space[:, None] / (self.spectrum * self.gain_deviation.exp() + v)
        return Filtered(z, gains, shares)

    def mean(self, filtered: Filtered) -> Tensor:
        """The mixture's mean, as modes over the grid: `(batch, modes, 2 antennas)`."""
        kept = self._kept(filtered.z, filtered.gains * filtered.shares[..., None, None])
        return kept.permute(0, 3, 1, 2, 4).flatten(2) @ from_left(self.U).flatten(0, 1)

    def each_mean(self, filtered: Filtered) -> Tensor:
        """The mean of each component at the grid, `(batch, components, 2, entries, antennas)`."""
        x = self._kept(filtered.z, filtered.gains).transpose(2, 3).flatten(3) @ from_left(self.U)
        x = x.unflatten(-1, (2, -1)).transpose(-3, -2).flatten(-3, -2)
        return (from_left(self.basis) @ x).unflatten(-2, (2, -1))

    def at_grid(self, x: Tensor) -> Tensor:
        """Modes `(batch, modes, 2 antennas)` to pairs at the grid `(batch, antennas · entries, 2)`."""
        h = from_left(self.basis) @ x.unflatten(-1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return h.mT.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(1, 2)

    def _kept(self, z: Tensor, gains: Tensor) -> Tensor:
        """Filtered and turned to modes over the grid, `(batch, components, 2, modes, antennas)`."""
        return (from_left(self.back) @ (z * gains.unsqueeze(2)).flatten(2, 3)).unflatten(2, (2, -1))


def from_right(M: Tensor) -> Tensor:
    """The real `(..., 2 a, 2 b)` that right-multiplies rows of reals and imaginaries as complex M `(2, ..., a, b)`."""
    re, im = M[0], M[1]
    return torch.cat([torch.cat([re, im], -1), torch.cat([-im, re], -1)], -2)


def from_left(M: Tensor) -> Tensor:
    """The real `(..., 2 a, 2 b)` that left-multiplies columns, reals then imaginaries; its transpose is the adjoint."""
    re, im = M[0], M[1]
    return torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)


def _pair(M: Tensor) -> Tensor:
    return torch.view_as_real(M.resolve_conj()).movedim(-1, 0).float().contiguous()
