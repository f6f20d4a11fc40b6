"""Channels as sparse sums of beams and delay modes, and unfolded algorithms there with a learned dictionary.

Virtual channel representation: Sayeed (2002); Bajwa, Haupt, Sayeed & Nowak (2010). Learned dictionaries as deviations:
fanfold's own idea.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.algorithms import Algorithm
from fanfold.core.complex_pairs import from_right, pair_of, swapped
from fanfold.core.units import power
from fanfold.estimators.ofdm.grid_network import GridNetwork
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings, at_least
from fanfold.linops import Kronecker
from fanfold.observation import Observation
from fanfold.propagation import Layout
from fanfold.unfolding.unfold import unfold

BEAMS_AN_ANTENNA = 2
POWER_ROUNDS = 200
DICTIONARY_STEP = 0.2  # of an entry of the dictionary, against a relative deviation of the algorithm's numbers


def beam_delay_dictionary(
    array: tuple[int, ...], pick: Tensor, space: Tensor, grid: Tensor, beams: int, modes: int
) -> tuple[Tensor, Tensor]:
    """Beams `(antennas, beams)` and delay modes `(entries, modes)`, complex128, of coefficients of unit power.

    Beams are Fourier atoms, two for each antenna, along the last two axes of the array; polarisations and panels have
    their own. Those that carry most power are kept. Delay modes are orthogonal at the pilots: the eigenvectors of the
    covariance there, and what it says of the other resource elements.

    Args:
        array: Antennas along each axis.
        pick: Indices of the resource elements that are pilots, `(pilots,)`.
        space: Covariance over antennas `(antennas, antennas)`, complex128.
        grid: Covariance over the grid of one antenna `(entries, entries)`, complex128.
        beams: How many are kept, at most.
        modes: How many are kept, at most.
    """
    atoms = torch.eye(torch.Size(array[:-2]).numel(), dtype=torch.complex128)
    for size in array[-2:]:
        atoms = torch.kron(atoms, _fourier(size))
    kept = _powers(atoms, space).argsort(descending=True)[:beams].sort().values
    powers = _powers(atoms[:, kept], space)
    B = atoms[:, kept] * powers.sqrt()
    B = B * (len(B) / B.abs().square().sum()).sqrt()
    values, U = (part.flip(-1)[..., :modes] for part in torch.linalg.eigh(grid[pick][:, pick]))
    return B, grid[:, pick] @ U / values.clamp_min(1e-6 * values[0]).sqrt()


@dataclass(frozen=True)
class BeamDelaySettings(ChannelNetworkSettings):
    """The settings of a `BeamDelayNetwork`; each algorithm adds its own."""

    iterations: int = 6  # steps of the algorithm, the layers of the network
    beams: int = 128  # atoms over the array
    modes: int = 12  # modes of delay, at each beam

    def __post_init__(self):
        at_least(1, iterations=self.iterations, beams=self.beams, modes=self.modes)


class BeamDelayNetwork(GridNetwork):
    """An unfolded algorithm for `y = (B ⊗ D_p) s + w`, between a learned turn of y and a learned way back, `(B ⊗ D) s`.

    The dictionary comes from the channels that training prepares with and is kept with the weights. Both turns deviate
    from it by matrices along each axis that are zero before training, when the estimate is that of the classical
    algorithm. The algorithm sees a channel of unit power.

    Args:
        layout: Layout of the channels.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        settings: Settings of the network.
        learn: The algorithm's quantities that deviate; see `unfold`.
    """

    training_defaults = {"steps": 2000, "batch": 64, "lr": 5e-3, "validate_every": 250, "validation_samples": 1000}
    B: Tensor
    D: Tensor

    def __init__(self, layout: Layout, mask: Tensor, settings: BeamDelaySettings, learn: Mapping[str, str]):
        super().__init__(layout, mask, settings, summary=2, modes=settings.modes)
        self.sizes = settings.beams, settings.modes
        white = (torch.eye(size, dtype=torch.complex128) for size in (self.antennas, self.entries))
        for name, part in self.atoms(*white).items():
            self.register_buffer(name, part)
        A = self._operator()
        carrier = Observation.unchecked(torch.zeros(A.m, dtype=torch.complex64), A)
        self.within = unfold(self.algorithm(), carrier, settings.iterations, learn)
        self._bound = self._versions(), A
        shapes = {
            "antennas": (2, self.antennas, self.antennas),
            "pilots": (2, self.pilots, self.pilots),
            "beams": tuple(self.B.shape),
            "delays": tuple(self.D.shape),
        }
        self.dictionary = nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})

    @abstractmethod
    def algorithm(self) -> Algorithm:
        """The algorithm that is unfolded, for the dictionary as it is."""

    def atoms(self, space: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """Buffers made of covariances: beams B `(2, beams, antennas)`, delays D `(2, modes, entries)`."""
        B, D = beam_delay_dictionary(self.array, self.pick.cpu(), space, grid, *self.sizes)
        return {"B": pair_of(B.mT), "D": pair_of(D.mT)}

    def adopt(self, space: Tensor, grid: Tensor) -> None:
        """Take the dictionary."""
        buffers = dict(self.named_buffers(recurse=False))
        for name, part in self.atoms(space.cpu(), grid.cpu()).items():
            buffers[name].copy_(part)

    @property
    def A(self) -> Kronecker:  # noqa: N802
        """The operator from coefficients to pilots, `B ⊗ D_p`, of the dictionary as it is."""
        return self._operator() if self._dictionary_changed() else self._bound[1]

    def bind(self) -> Kronecker:
        """Bind the algorithm inside to the dictionary as it is, if weights were loaded, or moved to another device.

        Returns:
            The operator `A`, the same object until the dictionary changes; a call of the network binds first.
        """
        if self._dictionary_changed():
            self._bound = self._versions(), self._operator()
            self.within.algorithm = self.algorithm()
            self.within.bind(self._bound[1])
        return self._bound[1]

    def _operator(self) -> Kronecker:
        B, D = (torch.complex(*part).mT for part in (self.B, self.D))
        return Kronecker(B.contiguous(), D[self.pick])

    def _versions(self) -> list[tuple[Tensor, int]]:
        """The buffers of the dictionary with their versions, by which a change is noticed."""
        return [(part, part._version) for part in (self.B, self.D)]

    def _dictionary_changed(self) -> bool:
        if torch.compiler.is_compiling():  # a trace has stand-ins for buffers; the call before it has bound
            return False
        pairs = zip(self._versions(), self._bound[0])
        return any(now is not then or version != before for (now, version), (then, before) in pairs)

    def estimate(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """See `GridNetwork`; the summary is what the estimate leaves of the pilots, and its own power."""
        y = y + DICTIONARY_STEP * (y @ from_right(self.dictionary["pilots"]))
        y = y + DICTIONARY_STEP * swapped(swapped(y) @ from_right(self.dictionary["antennas"]))
        z, A = torch.complex(*y.chunk(2, -1)).flatten(1), self.bind()
        s = self.within(Observation.unchecked(z, A, noise_var)).x
        left = power(z - A @ s).mean(-1, keepdim=True) / noise_var
        summary = torch.cat([left, power(s).mean(-1, keepdim=True)], -1).clamp_min(1e-6).log()
        s = s.unflatten(1, (self.B.shape[1], self.D.shape[1]))
        x = torch.cat([s.real, s.imag], -1) @ from_right(self._moved("delays", self.D))
        return swapped(swapped(x) @ from_right(self._moved("beams", self.B))), summary

    def _moved(self, name: str, atoms: Tensor) -> Tensor:
        """The dictionary with its deviations, in units of each atom's entries: strong and weak ones move alike."""
        size = atoms.square().sum(0).mean(-1, keepdim=True).sqrt()
        return atoms + DICTIONARY_STEP * size * self.dictionary[name]


def _fourier(size: int) -> Tensor:
    """Fourier atoms `(size, atoms)` along one axis; `(1, 1)` for a single entry."""
    atoms = BEAMS_AN_ANTENNA * size if size > 1 else 1
    turns = torch.arange(size, dtype=torch.float64)[:, None] * torch.arange(atoms, dtype=torch.float64) / atoms
    return torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)


def _powers(atoms: Tensor, covariance: Tensor) -> Tensor:
    """Powers p of which `Σ p a aᴴ` is nearest to the covariance, none negative. Lee & Seung (2001), theorem 1."""
    wanted = (atoms.conj() * (covariance @ atoms)).sum(0).real.clamp_min(0)
    gram = (atoms.mH @ atoms).abs().square()
    powers = torch.ones_like(wanted)
    for _ in range(POWER_ROUNDS):
        powers = powers * wanted / (gram @ powers)
    return powers.clamp_min(1e-6 * powers.max())
