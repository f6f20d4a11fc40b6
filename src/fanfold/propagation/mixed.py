"""Channels of several sources in one: what an estimator for all of them trains on."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.settings import Checked, checks_arguments
from fanfold.propagation.base import DistinctSource, Layout, Part, ReadSource, Source, StoredSource, stored_fingerprint


@dataclass(frozen=True)
class Mixed(Checked):
    """Draws of several sources of one layout, the same number of each but for a remainder, in random order.

    Attributes:
        sources: The sources, two or more.
        names: What they are called in errors; their numbers, counted from 1, if none are given.

    Raises:
        ValueError: If there are fewer than two, or their layouts differ: numerologies are not mixed.

    Example:
        >>> import fanfold as ff
        >>> mixed = ff.propagation.source_of("umi + rician:array=2x4x4,subcarriers=24")
        >>> len(mixed.sources), mixed.layout.shape
        (2, (32, 1, 24))
    """

    sources: tuple[Source, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self):
        if len(self.sources) < 2:
            raise ValueError(f"a mixture takes at least two sources, not {len(self.sources)}.")
        named = self.names or tuple(str(k) for k in range(1, len(self.sources) + 1))
        for name, source in zip(named, self.sources, strict=True):
            if source.layout != self.layout:
                raise ValueError(f"{named[0]} has {self.layout} but {name} has {source.layout}; mix one layout only.")

    @cached_property
    def layout(self) -> Layout:
        """The layout of every source."""
        return self.sources[0].layout

    @property
    def fingerprint(self) -> str | None:
        """The hashes of the sources that are stored, joined by `+`; None if all draw afresh."""
        return "+".join(hashed for source in self.sources if (hashed := stored_fingerprint(source))) or None

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """`n` channels; not to train on, as many as every source has, so that none counts for more than another."""
        sizes = self._sizes(n, generator)
        if part != "train":
            counts = [len(source.rows(part)) for source in self.sources if offers(source, StoredSource)]
            sizes = [min(size, *counts) for size in sizes] if counts else sizes
        drawn = [source.draw(size, generator, part) for source, size in zip(self.sources, sizes, strict=True) if size]
        together = torch.cat(drawn)
        return together[torch.randperm(len(together), generator=generator)]

    def distinct(self, n: int, generator: torch.Generator, part: Part) -> Tensor:
        """`n` channels of which no two are the same; see `distinct`.

        Raises:
            ValueError: If a stored source is named twice, or holds too few.
        """
        stored = [source.fingerprint for source in self.sources if offers(source, StoredSource)]
        if len(set(stored)) < len(stored):
            raise ValueError(
                "the mixture names a stored source twice, so that its channels cannot all differ; name each once."
            )
        sizes = self._sizes(n, generator)
        drawn = [distinct(source, size, generator, part) for source, size in zip(self.sources, sizes, strict=True)]
        return torch.cat(drawn)[torch.randperm(n, generator=generator)]

    @property
    def reading(self) -> str:
        """What was read from files, in words."""
        return "; ".join([source.reading for source in self.sources if offers(source, ReadSource)])

    @property
    def doubt(self) -> str | None:
        """Why the axes of one of the files look swapped; None where they do not."""
        return next((s.doubt for s in self.sources if offers(s, ReadSource) and s.doubt is not None), None)

    def _sizes(self, n: int, generator: torch.Generator) -> list[int]:
        """How many draws each source gives."""
        first = torch.randint(len(self.sources), (), generator=generator).item()  # whose turn it is for the remainder
        share, rest = divmod(n, len(self.sources))
        return [share + ((k - first) % len(self.sources) < rest) for k in range(len(self.sources))]


@checks_arguments
def distinct(source: Source, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
    """`n` channels of a part, `(n, antennas, symbols, subcarriers)`; of stored ones none twice, to train on too.

    Raises:
        ValueError: If the part holds fewer.
    """
    if offers(source, DistinctSource):
        return source.distinct(n, generator, part)
    if not offers(source, StoredSource):
        return source.draw(n, generator, part)
    rows = source.rows(part)
    if n > len(rows):
        raise ValueError(f"{n} different channels are wanted and {len(rows)} are stored ({part}); draw more.")
    return source.read(rows.start + torch.randperm(len(rows), generator=generator)[:n])
