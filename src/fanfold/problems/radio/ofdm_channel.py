"""Channel estimation in OFDM: y = h[pilots] + w at each antenna, the channel h wanted everywhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.noise import circular
from fanfold.linops import LinearOperator, Mask
from fanfold.observation import Observation
from fanfold.problems.base import Described
from fanfold.propagation import (
    Layout,
    Part,
    Source,
    distinct,
    files_of_source,
    pilot_mask,
    source_of,
    stored_fingerprint,
)
from fanfold.propagation.base import ReadSource


@dataclass(frozen=True)
class OFDMChannel(Described):
    """The channel h of one link over antennas, OFDM symbols and subcarriers, from noisy pilots: `y = A h + w`.

    A keeps the resource elements that carry pilots, of unit modulus and already divided out, at every antenna. Channels
    have unit mean power, so that the SNR of an antenna and resource element is `1 / noise_var`. The unknowns are the
    entries of h, antennas slowest and subcarriers fastest: `x.reshape(-1, *layout.shape)`. Signals and observations are
    complex64.

    Raises:
        ValueError: If the source or the pilots are unknown or do not fit each other, or a number is out of range.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.OFDMChannel("umi", pilots="comb-4", snr_db=10.0)
        >>> problem.layout.shape, problem.A.shape  # 32 antennas, 24 subcarriers, 6 pilots at each antenna
        ((32, 1, 24), (192, 768))
    """

    source: str = (
        "umi"  # where channels come from: a shipped draw, a model, the folder of a dataset or a file of the user's
    )
    pilots: str = "comb-2"  # the name of a pattern; see `propagation.pilot_mask`
    snr_db: float | tuple[float, float] = 10.0  # SNR of all draws, or the range from which each takes its own
    known_noise: bool = True  # whether the receiver knows the noise variance
    power: float = 1.0  # E|h|² of an entry, which no estimator knows
    part: Part = "train"  # which channels of a source are drawn, where it keeps some apart

    def __post_init__(self):
        if isinstance(self.snr_db, tuple) and not self.snr_db[0] <= self.snr_db[1]:
            low, high = self.snr_db
            raise ValueError(f"snr_db is from {low} to {high}; pass the lower end first.")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power is {self.power}; it is E|h|² of an entry, finite and greater than zero.")
        _ = self.A  # refuses sources and pilots that do not exist

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The sources of channels and the mask of pilots that are files or folders."""
        pilots = settings.get("pilots", "")
        return [*files_of_source(settings.get("source", "umi")), *([pilots] if pilots.endswith(".npy") else [])]

    @property
    def channels(self) -> Source:
        """The source that channels come from."""
        return source_of(self.source)

    @property
    def layout(self) -> Layout:
        """Shape and numerology of a channel."""
        return self.channels.layout

    @property
    def reading(self) -> str | None:
        """What was read from a file of channels, in words; None of other sources."""
        return self.channels.reading if offers(self.channels, ReadSource) else None

    @property
    def doubt(self) -> str | None:
        """Why the axes of a file look swapped; None where they do not."""
        return self.channels.doubt if offers(self.channels, ReadSource) else None

    @property
    def mask(self) -> Tensor:
        """Where the pilots are: `(symbols, subcarriers)`, boolean."""
        return pilot_mask(self.pilots, self.layout.symbols, self.layout.subcarriers)

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator from a channel `(antennas · symbols · subcarriers)` to its pilots `(antennas · pilots)`."""
        of_file = self.pilots.endswith(".npy") and Path(self.pilots).is_file()
        changed_ns = Path(self.pilots).stat().st_mtime_ns if of_file else 0
        return _operator(self.layout, self.pilots, changed_ns)

    @property
    def fingerprint(self) -> str | None:
        """The hash of the channels that are stored; None if all are drawn afresh."""
        return stored_fingerprint(self.channels)

    def held_out(self) -> "OFDMChannel":
        """The same problem with channels that are kept for testing: those of other topologies."""
        return self.shifted(part="test")

    def validation(self) -> "OFDMChannel":
        """The same problem with channels of yet other topologies, by which the best weights are chosen."""
        return self.shifted(part="validation")

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draw `n` channels `(n, antennas · symbols · subcarriers)` and their noisy pilots."""
        x = self.power**0.5 * self.channels.draw(n, generator, self.part).flatten(1)
        return x, self.observe(x, generator)

    def distinct(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draw as `sample` does, but of stored channels none twice, so that some of them can be held out.

        Raises:
            ValueError: If fewer are stored.
        """
        x = self.power**0.5 * distinct(self.channels, n, generator, self.part).flatten(1)
        return x, self.observe(x, generator)

    def observe(self, x: Tensor, generator: torch.Generator) -> Observation:
        """Draw noisy pilots of channels `(n, antennas · symbols · subcarriers)`."""
        noise_var = self._noise_var(len(x), generator)
        y = self.A @ x
        y = y + circular(tuple(y.shape), generator, y.dtype, noise_var)
        return Observation(y, self.A, noise_var if self.known_noise else None)

    def _noise_var(self, n: int, generator: torch.Generator) -> Tensor:
        if not isinstance(self.snr_db, tuple):
            return torch.tensor(self.power * 10 ** (-self.snr_db / 10))
        low, high = self.snr_db
        return self.power * 10 ** (-(low + (high - low) * torch.rand(n, 1, generator=generator)) / 10)


@lru_cache(maxsize=32)
def _operator(layout: Layout, pilots: str, changed_ns: int) -> LinearOperator:
    mask = pilot_mask(pilots, layout.symbols, layout.subcarriers)
    return Mask(mask.expand(layout.antennas, -1, -1).flatten().nonzero().flatten(), layout.n, torch.complex64)
