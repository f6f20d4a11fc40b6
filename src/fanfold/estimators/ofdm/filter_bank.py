"""The LMMSE filters of all components of a mixture, on real pairs. Koller, Fesl, Turan & Utschick (2022).

Each component has eigenbases of its own over space and over the pilots' modes; what it filters is weighted by how well
it explains the pilots.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_left, from_right, pair_of
from fanfold.estimators.ofdm.front_end import ChannelNetwork, FrontEnd
from fanfold.estimators.ofdm.mixture import Mixture

SMALLEST_PROBABILITY = 1e-12  # of a component: what is less counts for nothing, and subnormal numbers are slow


class FilteredPilots(NamedTuple):
    """What the components make of pilots."""

    z: Tensor  # (batch, components, 2, modes, antennas): the pilots in the eigenbases, real and imaginary
    gains: Tensor  # (batch, components, modes, antennas): from z to what `back` takes
    shares: Tensor  # (batch, components): P(component | pilots)


class FilterBank(nn.Module):
    """Filters, weights and likelihoods of the components of a mixture, for the pilots of a problem.

    All are parameters, so that they can be trained; deviations of eigenvalues start at zero. Everything is at unit
    power of the channel.

    Args:
        antennas: Number of the array's antennas.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        components: How many.
        modes: Number of the mixture's modes.
    """

    seen: Tensor
    spectrum: Tensor
    of_space: Tensor

    def __init__(self, antennas: int, mask: Tensor, components: int, modes: int):
        super().__init__()
        entries, pilots = mask.numel(), int(mask.sum())
        modes, rank = min(modes, entries), min(modes, pilots)
        self.antennas, self.entries, self.pilots, self.modes, self.rank = antennas, entries, pilots, modes, rank
        self.register_buffer("pick", mask.flatten().nonzero().flatten(), persistent=False)
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
        self.seen.copy_(pair_of(Q.conj()))
        self.U.copy_(pair_of(U.mH))
        self.V.copy_(pair_of(V.mH))
        self.back.copy_(pair_of(mixture.modes @ R.mH @ V))
        self.basis.copy_(pair_of(mixture.basis))
        self.of_space.copy_(of_space)
        self.spectrum.copy_(of_space[:, None] * of_modes[:, :, None])
        self.log_weights.copy_(mixture.weights.log())
        self.gain_deviation.zero_()
        self.likelihood_deviation.zero_()

    def modes_of(self, y: Tensor) -> Tensor:
        """Modes of packed pilots `(batch, antennas, 2 pilots)`: `(batch, rank, 2 antennas)`."""
        z = (y @ from_right(self.seen)).unflatten(-1, (2, -1))
        return z.permute(0, 3, 2, 1).flatten(2)

    def forward(self, z: Tensor, noise_var: Tensor) -> FilteredPilots:
        """Filter the modes of the pilots `(batch, rank, 2 antennas)` by every component; at unit power."""
        v = noise_var[..., None, None]
        to_eigen = from_left(self.U).permute(2, 0, 1).flatten(1)  # (2 antennas, components · 2 antennas)
        z = (z @ to_eigen).unflatten(-1, (len(self.log_weights), 2, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        z = (from_left(self.V) @ z).unflatten(2, (2, -1))
        z_var = self.spectrum * self.likelihood_deviation.exp() + v
        shares = (self.log_weights - (z.square().sum(2) / z_var + z_var.log()).sum((2, 3))).softmax(1)
        shares = torch.where(shares > SMALLEST_PROBABILITY, shares, 0.0)
        gains = self.of_space[:, None] / (self.spectrum * self.gain_deviation.exp() + v)
        return FilteredPilots(z, gains, shares)

    def mean(self, filtered: FilteredPilots) -> Tensor:
        """The mixture's mean, as modes over the grid: `(batch, modes, 2 antennas)`."""
        kept = self._kept(filtered.z, filtered.gains * filtered.shares[..., None, None])
        return kept.permute(0, 3, 1, 2, 4).flatten(2) @ from_left(self.U).flatten(0, 1)

    def each_mean(self, filtered: FilteredPilots) -> Tensor:
        """The mean of each component at the grid, `(batch, components, 2, entries, antennas)`."""
        x = self._kept(filtered.z, filtered.gains).transpose(2, 3).flatten(3) @ from_left(self.U)
        x = x.unflatten(-1, (2, -1)).transpose(-3, -2).flatten(-3, -2)
        return (from_left(self.basis) @ x).unflatten(-2, (2, -1))

    def at_grid(self, x: Tensor) -> Tensor:
        """Modes `(batch, modes, 2 antennas)` to pairs at the grid `(batch, antennas · entries, 2)`."""
        h = from_left(self.basis) @ x.unflatten(-1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return h.mT.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(1, 2)

    def _kept(self, z: Tensor, gains: Tensor) -> Tensor:
        """FilteredPilots and turned to modes over the grid, `(batch, components, 2, modes, antennas)`."""
        return (from_left(self.back) @ (z * gains.unsqueeze(2)).flatten(2, 3)).unflatten(2, (2, -1))


class MixtureNetwork(ChannelNetwork):
    """A channel network that starts from a Gaussian mixture.

    Args:
        antennas: Number of the array's antennas.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        components: Number of the mixture's components.
        modes: Number of the mixture's modes.
        known_power: Whether entries of the channel have unit mean power, which is then not measured.
    """

    def __init__(self, antennas: int, mask: Tensor, components: int, modes: int, *, known_power: bool):
        super().__init__(FrontEnd(antennas, int(mask.sum()), known_power=known_power))
        self.bank = FilterBank(antennas, mask, components, modes)

    @torch.no_grad()
    def start(self, mixture: Mixture) -> None:
        """Take over a mixture.

        Raises:
            ValueError: If it is of another layout or has other numbers of components or modes.
        """
        self.bank.set(mixture)
        space, over_modes = mixture.mean()
        at_pilots = mixture.basis[self.bank.pick.cpu()]
        self.front_end.adopt(space, at_pilots @ over_modes @ at_pilots.mH)
