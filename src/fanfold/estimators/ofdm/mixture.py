"""A Gaussian mixture of channels with Kronecker covariances. Koller, Fesl, Turan & Utschick (2022).

Components are learned by expectation-maximisation, Dempster, Laird & Rubin (1977); Kronecker factors as moments, the
first round of the flip-flop of Dutilleul (1999).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fanfold.core.files import write_whole
from fanfold.core.streams import Stream, generator_of
from fanfold.core.units import power
from fanfold.problems.draws import draw
from fanfold.problems.protocols import ChannelProblem

DRAWS_A_PRODUCT = 500
LOADING = 0.01  # noise variance at which draws are told apart: channels without noise are singular
MEANS_ROUNDS = 5  # of k-means, which only start the mixture


@dataclass(frozen=True)
class Mixture:
    """Weights and covariances of components, `E h hᴴ = space_k ⊗ F C_k Fᴴ`, of channels of unit mean power.

    F `(entries, modes)` has orthonormal columns, the strongest directions over the grid of one antenna.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("rayleigh:array=2x4,subcarriers=12")
        >>> mixture = ff.estimators.ofdm.Mixture.of(problem, components=2, samples=100, rounds=2)
        >>> len(mixture.weights), mixture.rounds
        (2, 2)
    """

    weights: Tensor  # (components,)
    space: Tensor  # (components, antennas, antennas), mean diagonal one
    modes: Tensor  # (components, modes, modes): C_k
    basis: Tensor  # (entries, modes): F
    rounds: int = 0  # rounds of expectation-maximisation that made it

    @classmethod
    def of(
        cls,
        problem: ChannelProblem,
        components: int = 16,
        samples: int = 20_000,
        rounds: int = 15,
        modes: int = 14,
        seed: int = 0,
        on_round: Callable[["Mixture", float], None] | None = None,
    ) -> "Mixture":
        """The mixture of a problem's channels after so many rounds of expectation-maximisation.

        Args:
            problem: Where channels come from; its pilots do not matter.
            components: The number of components.
            samples: The number of channels to learn from.
            rounds: The number of rounds of expectation-maximisation.
            modes: The largest number of directions over the grid that are kept.
            seed: The seed of the draws and of the first components.
            on_round: Called after each round with the mixture, which can be saved and gone on from, and the mean
                log-likelihood of the draws before it.

        Raises:
            ValueError: If `rounds` is not positive, or there are fewer draws than eight for each component.
        """
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}; pass at least one.")
        mixture, steps = None, expectation_maximisation_of(problem, components, samples, modes, seed)
        for mixture, likelihood in itertools.islice(steps, rounds):
            if on_round:
                on_round(mixture, likelihood)
        assert mixture is not None
        return mixture

    @property
    def grid(self) -> Tensor:
        """The covariances over the grid `F C_k Fᴴ`, `(components, entries, entries)`."""
        return self.basis @ self.modes @ self.basis.mH

    def mean(self) -> tuple[Tensor, Tensor]:
        """Covariances over space and over the modes of the mixture as a whole, the Kronecker factors of its moments."""
        antennas, entries = self.space.shape[-1], len(self.basis)
        of_space = self.space.diagonal(dim1=1, dim2=2).real.sum(-1) / antennas
        of_modes = self.modes.diagonal(dim1=1, dim2=2).real.sum(-1) / entries
        space = ((self.weights * of_modes)[:, None, None] * self.space).sum(0)
        return space, ((self.weights * of_space)[:, None, None] * self.modes).sum(0)

    def save(self, path: str | Path) -> None:
        """Write the mixture as safetensors, whole or not at all, so that expectation-maximisation can go on from it."""
        parts = {"weights": self.weights, "rounds": torch.tensor(self.rounds)}
        covariances = {"space": self.space, "modes": self.modes, "basis": self.basis}
        parts |= {name: torch.view_as_real(part) for name, part in covariances.items()}
        write_whole(Path(path), save({name: part.contiguous() for name, part in parts.items()}))

    @classmethod
    def load(cls, path: str | Path) -> "Mixture":
        """The mixture that was saved in a file.

        Raises:
            ValueError: If the file holds none.
        """
        parts = load_file(path)
        wanted = {"weights", "rounds", "space", "modes", "basis"}
        if set(parts) != wanted:
            raise ValueError(f"{path} holds {', '.join(sorted(parts))}; a mixture is {', '.join(sorted(wanted))}.")
        space, modes, basis = (torch.view_as_complex(parts[name]) for name in ("space", "modes", "basis"))
        return cls(parts["weights"], space, modes, basis, int(parts["rounds"]))


def expectation_maximisation_of(
    problem: ChannelProblem,
    components: int = 16,
    samples: int = 20_000,
    modes: int = 14,
    seed: int = 0,
    start: Mixture | None = None,
) -> Iterator[tuple[Mixture, float]]:
    """The mixture after each round of expectation-maximisation, and the mean log-likelihood before it, without an end.

    Args:
        problem: Where channels come from; its pilots do not matter.
        components: The number of components.
        samples: The number of channels to learn from.
        modes: The largest number of directions over the grid that are kept.
        seed: The seed of the draws and of the first components.
        start: Where to go on from; with the same draws it becomes what it would have without the break.

    Raises:
        ValueError: If there are fewer draws than eight for each component.
    """
    x, _ = draw(problem, samples, seed, Stream.PREPARATION, 0)
    return expectation_maximisation(x.unflatten(1, (problem.layout.antennas, -1)), components, modes, seed, start)


def expectation_maximisation(
    h: Tensor, components: int, modes: int = 14, seed: int = 0, start: Mixture | None = None
) -> Iterator[tuple[Mixture, float]]:
    """The rounds of `expectation_maximisation_of` on given channels `(draws, antennas, entries)` of any mean power."""
    if components < 1 or len(h) < 8 * components:
        raise ValueError(f"{len(h)} draws for {components} components; pass at least {max(8, 8 * components)}.")
    h = h / root_mean_square(h)
    basis = grid_basis(h, modes) if start is None else start.basis
    c = h @ basis.conj().to(h.dtype)  # (draws, antennas, modes)
    return _rounds(start or _first(c, basis, components, generator_of(seed, Stream.PREPARATION, 1)), c)


def root_mean_square(h: Tensor) -> Tensor:
    """The root mean square of all entries of channels; of any scale, since the largest is divided out first.

    Raises:
        ValueError: If they have no power or one that is not finite.
    """
    h = h.resolve_conj()
    largest = torch.view_as_real(h).abs().amax()
    if not 0 < largest < math.inf:
        raise ValueError(f"the largest entry of the channels is {largest.item()}; it is to be finite and not zero.")
    return largest * power(h / largest).mean(dtype=torch.float64).sqrt().to(largest.dtype)


def _rounds(mixture: Mixture, c: Tensor) -> Iterator[tuple[Mixture, float]]:
    while True:
        mixture, likelihood = _round(mixture, c)
        yield mixture, likelihood


def grid_basis(h: Tensor, modes: int) -> Tensor:
    """The strongest directions over the grid of one antenna, `(entries, modes)`, complex128, orthonormal columns."""
    rows = h.flatten(0, 1)
    over_grid = torch.zeros((), dtype=h.dtype)
    for part in rows.split(100 * DRAWS_A_PRODUCT):
        over_grid = over_grid + part.mT @ part.conj()
    return torch.linalg.eigh(over_grid.to(torch.complex128))[1].flip(1)[:, :modes].contiguous()


def _first(c: Tensor, basis: Tensor, components: int, generator: torch.Generator) -> Mixture:
    """Draws whose powers over directions at the array are alike, by k-means on the sphere; drawn in to the whole."""
    profile = power(torch.fft.fft(c[..., 0], dim=1, norm="ortho")).sqrt()
    profile = profile / profile.norm(dim=1, keepdim=True).clamp_min(torch.finfo(profile.dtype).tiny)
    centres = profile[torch.randperm(len(c), generator=generator)[:components]]
    for _ in range(MEANS_ROUNDS):
        sums = torch.zeros_like(centres).index_add(0, (profile @ centres.mT).argmax(1), profile)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres)
        centres = centres / centres.norm(dim=1, keepdim=True)
    share = nn.functional.one_hot((profile @ centres.mT).argmax(1), components).to(profile.dtype)
    moments = _Moments(components, c)
    for part, of_part in zip(
        c.split(DRAWS_A_PRODUCT), (0.9 * share + 0.1 / components).split(DRAWS_A_PRODUCT), strict=True
    ):
        moments.add(part, of_part)
    return moments.mixture(basis, 0)


def _round(mixture: Mixture, c: Tensor) -> tuple[Mixture, float]:
    moments, total = _Moments(len(mixture.weights), c), 0.0
    (of_space, U), (of_modes, V) = torch.linalg.eigh(mixture.space), torch.linalg.eigh(mixture.modes)
    d = of_space.clamp_min(0)[:, :, None] * of_modes.clamp_min(0)[:, None] + LOADING
    U, V = U.mH.resolve_conj().to(c.dtype), V.conj().resolve_conj().to(c.dtype)
    constant = mixture.weights.log() - d.log().sum((1, 2))
    precision = d.reciprocal().flatten(1).mT.to(c.real.dtype)
    for part in c.split(DRAWS_A_PRODUCT):
        z = U.flatten(0, 1) @ part.permute(1, 0, 2).flatten(1)  # (components · antennas, draws · modes)
        z = z.unflatten(0, (len(d), -1)).flatten(1).unflatten(1, (-1, c.shape[2])) @ V
        p = power(z).unflatten(1, (c.shape[1], -1)).permute(0, 2, 1, 3).flatten(2)  # (components, draws, ...)
        log = constant - torch.einsum("kbd,dk->bk", p, precision).double()
        total += log.logsumexp(1).sum().item()
        moments.add(part, log.softmax(1).to(c.real.dtype))
    return moments.mixture(mixture.basis, mixture.rounds + 1), total / len(c)


class _Moments:
    """Sums over draws, each of which belongs to each component by a share."""

    def __init__(self, components: int, c: Tensor):
        antennas, modes = c.shape[1:]
        self.count = torch.zeros(components, dtype=torch.float64)
        self.space = torch.zeros(components, antennas, antennas, dtype=torch.complex128)
        self.modes = torch.zeros(components, modes, modes, dtype=torch.complex128)

    def add(self, c: Tensor, share: Tensor) -> None:
        """Add draws `(draws, antennas, modes)` with their shares `(draws, components)`."""
        self.count += share.double().sum(0)
        for total, products in ((self.space, c @ c.mH), (self.modes, c.mT @ c.conj())):
            flat = torch.view_as_real(products).flatten(1)
            total += torch.view_as_complex((share.mT @ flat).unflatten(1, (*total.shape[1:], 2))).to(total.dtype)

    def mixture(self, basis: Tensor, rounds: int) -> Mixture:
        """The mixture of their weights and Kronecker factors; those of few draws are drawn in to white antennas."""
        antennas, count = self.space.shape[-1], self.count[:, None, None]
        modes = (self.modes + self.modes.mH) / (2 * antennas * count.clamp_min(1e-12))
        space = (self.space + self.space.mH) / 2
        space = space / space.diagonal(dim1=1, dim2=2).real.mean(-1).clamp_min(1e-300)[:, None, None]
        little = 4 / count.clamp_min(4)
        space = (1 - little) * space + little * torch.eye(antennas, dtype=space.dtype)
        weights = (self.count + 1) / (self.count + 1).sum()
        return Mixture(weights, space, modes, basis, rounds)
