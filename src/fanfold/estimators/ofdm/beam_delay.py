"""Channels as sparse sums of beams and delay modes, and unfolded algorithms there with a learned dictionary.

Virtual channel representation: Sayeed (2002); Bajwa, Haupt, Sayeed & Nowak (2010). Learned dictionaries as deviations:
fanfold's own idea.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.algorithms import Algorithm
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.estimators.ofdm.grid_network import GridNetwork
from fanfold.estimators.ofdm.pairs import from_right, pair_of, swapped
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings
from fanfold.linops import Kronecker
from fanfold.observation import Observation
from fanfold.problems.ofdm_channel import OFDMChannel
from fanfold.unfold import unfold
from fanfold.units import power

OVERSAMPLING, ROUNDS = 2, 200
STEP = 0.2  # of an entry of the dictionary, against a relative deviation of the algorithm's numbers


def beam_delay_dictionary(
    problem: OFDMChannel, covariance: ChannelCovariance, beams: int, modes: int
) -> tuple[Tensor, Tensor]:
    """Beams `(antennas, beams)` and delay modes `(entries, modes)`, complex128, of coefficients of unit power.

    Beams are Fourier atoms, two for each antenna, along the last two axes of the array; polarisations and panels have
    their own. Those that carry most power are kept. Delay modes are orthogonal at the pilots: the eigenvectors of the
    covariance there, and what it says of the other resource elements.
    """
    atoms = torch.eye(torch.Size(problem.layout.array[:-2]).numel(), dtype=torch.complex128)
    for size in problem.layout.array[-2:]:
        atoms = torch.kron(atoms, _fourier(size))
    kept = _powers(atoms, covariance.space).argsort(descending=True)[:beams].sort().values
    powers = _powers(atoms[:, kept], covariance.space)
    B = atoms[:, kept] * powers.sqrt()
    B = B * (len(B) / B.abs().square().sum()).sqrt()
    pick = problem.mask.flatten().nonzero().flatten()
    values, U = (part.flip(-1)[..., :modes] for part in torch.linalg.eigh(covariance.grid[pick][:, pick]))
    return B, covariance.grid[:, pick] @ U / values.clamp_min(1e-6 * values[0]).sqrt()


@dataclass(frozen=True)
class BeamDelaySettings(ChannelNetworkSettings):
    """Of a `BeamDelayNetwork`; each algorithm adds its own."""

    iterations: int = 6  # of the algorithm, the layers of the network
    beams: int = 128  # atoms over the array
    modes: int = 12  # of delay, at each beam
    samples: int = 4000  # draws that the covariances are learned from


class BeamDelayNetwork(GridNetwork):
    """An unfolded algorithm for `y = (B ⊗ D_p) s + w`, between a learned turn of y and a learned way back, `(B ⊗ D) s`.

    Both deviate from the dictionary's own by matrices along each axis that are zero before training, when the estimate
    is that of the classical algorithm. The algorithm sees a channel of unit power.

    Args:
        problem: Layout, pilots and, for covariances, draws.
        settings: Of the network.
        algorithm: What is unfolded.
        learn: Which of the algorithm's quantities deviate; see `unfold`.
        B: Beams `(antennas, beams)`.
        D: Delays `(entries, delays)`.
    """

    training_defaults = {"steps": 2000, "batch": 64, "lr": 5e-3, "validate_every": 250, "validation_samples": 1000}
    in_pairs = False  # the algorithm inside computes with complex numbers, so that it does not export
    B: Tensor
    D: Tensor

    def __init__(
        self,
        problem: OFDMChannel,
        settings: BeamDelaySettings,
        algorithm: Algorithm,
        learn: Mapping[str, str],
        B: Tensor,
        D: Tensor,
    ):
        super().__init__(problem, settings, summary=2, modes=D.shape[1])
        self.A = Kronecker(B.to(torch.complex64), D[self.pick].to(torch.complex64))
        carrier = Observation.unchecked(torch.zeros(self.A.m, dtype=torch.complex64), self.A)
        self.within = unfold(algorithm, carrier, settings.iterations, learn)
        self.fingerprint = self.A.fingerprint()  # weights belong to a dictionary
        self.register_buffer("B", pair_of(B.mT), persistent=False)
        self.register_buffer("D", pair_of(D.mT), persistent=False)
        shapes = {
            "antennas": (2, self.antennas, self.antennas),
            "pilots": (2, self.pilots, self.pilots),
            "beams": tuple(self.B.shape),
            "delays": tuple(self.D.shape),
        }
        self.dictionary = nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})

    def estimate(self, y: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """See `GridNetwork`; the summary is what the estimate leaves of the pilots, and its own power."""
        y = y + STEP * (y @ from_right(self.dictionary["pilots"]))
        y = y + STEP * swapped(swapped(y) @ from_right(self.dictionary["antennas"]))
        z = torch.complex(*y.chunk(2, -1)).flatten(1)
        s = self.within(Observation.unchecked(z, self.A, noise_var)).x
        left = power(z - self.A @ s).mean(-1, keepdim=True) / noise_var
        summary = torch.cat([left, power(s).mean(-1, keepdim=True)], -1).clamp_min(1e-6).log()
        s = s.unflatten(1, (self.B.shape[1], self.D.shape[1]))
        x = torch.cat([s.real, s.imag], -1) @ from_right(self._moved("delays", self.D))
        return swapped(swapped(x) @ from_right(self._moved("beams", self.B))), summary

    def _moved(self, name: str, atoms: Tensor) -> Tensor:
        """The dictionary with its deviations, in units of each atom's entries: strong and weak ones move alike."""
        size = atoms.square().sum(0).mean(-1, keepdim=True).sqrt()
        return atoms + STEP * size * self.dictionary[name]


def _fourier(size: int) -> Tensor:
    """`(size, atoms)`; `(1, 1)` for a single entry."""
    atoms = OVERSAMPLING * size if size > 1 else 1
    turns = torch.arange(size, dtype=torch.float64)[:, None] * torch.arange(atoms, dtype=torch.float64) / atoms
    return torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)


def _powers(atoms: Tensor, covariance: Tensor) -> Tensor:
    """Powers p of which `Σ p a aᴴ` is nearest to the covariance, none negative. Lee & Seung (2001), theorem 1."""
    wanted = (atoms.conj() * (covariance @ atoms)).sum(0).real.clamp_min(0)
    gram = (atoms.mH @ atoms).abs().square()
    powers = torch.ones_like(wanted)
    for _ in range(ROUNDS):
        powers = powers * wanted / (gram @ powers)
    return powers.clamp_min(1e-6 * powers.max())
