"""What a source of channels is: draws of H over antennas, OFDM symbols and subcarriers, of unit mean power."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.settings import Checked

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Layout(Checked):
    """The axes of a channel: `(antennas, symbols, subcarriers)`, antennas in the order of the array's own axes.

    Attributes:
        array: Antennas along each axis, slowest first: (polarisations, columns, rows), panels before them.
        symbols: OFDM symbols.
        subcarriers: Subcarriers.
        spacing_hz: The spacing of neighbouring subcarriers, in hertz.
        carrier_hz: The carrier frequency, in hertz.

    Raises:
        ValueError: If an axis is empty, or the spacing or the carrier is not positive and finite.

    Example:
        >>> import fanfold as ff
        >>> layout = ff.propagation.Layout(array=(2, 4, 8), symbols=14, subcarriers=48)
        >>> layout.shape, layout.n
        ((64, 14, 48), 43008)
    """

    array: tuple[int, ...]
    symbols: int
    subcarriers: int
    spacing_hz: float = 30e3
    carrier_hz: float = 3.5e9

    def __post_init__(self):
        if not self.array or min(*self.array, self.symbols, self.subcarriers) < 1:
            raise ValueError(
                f"an array of {self.array} with {self.symbols} symbols of {self.subcarriers} subcarriers is empty."
            )
        if not all(0 < hz < math.inf for hz in (self.spacing_hz, self.carrier_hz)):
            raise ValueError(f"spacing {self.spacing_hz} Hz and carrier {self.carrier_hz} Hz; pass positive ones.")

    @property
    def antennas(self) -> int:
        """How many antennas the array has."""
        return math.prod(self.array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(antennas, symbols, subcarriers)`."""
        return self.antennas, self.symbols, self.subcarriers

    @property
    def n(self) -> int:
        """The number of unknowns: entries of one channel."""
        return math.prod(self.shape)

    @property
    def symbol_seconds(self) -> float:
        """The time from one OFDM symbol to the next: 14 of them in a slot of 1 ms at 15 kHz, of 500 µs at 30 kHz."""
        return 15 / 14 / self.spacing_hz


def rows_of(part: Part, topologies: int, held_out_share: float) -> range:
    """The topologies that a part has: the last share is for testing, half as many before it are for validation.

    One at least is for testing and one to train on; where no other is left, this one is for validation too.

    Args:
        part: `"train"`, `"validation"` or `"test"`.
        topologies: How many topologies there are in all.
        held_out_share: The share of them that is for testing.

    Raises:
        ValueError: If there is no such part.
    """
    if part not in get_args(Part):
        raise ValueError(f"there is no part {part!r} of channels; pass {', '.join(get_args(Part))}.")
    test = topologies - min(max(1, round(held_out_share * topologies)), topologies - 1)
    validation = test - min(round(held_out_share / 2 * topologies), test - 1)
    if part == "test":
        return range(test, topologies)
    return range(validation, test) if part == "validation" and validation < test else range(validation)


@runtime_checkable
class Source(Protocol):
    """A place that channels come from: a model, a dataset, a file of the user's, or several of these together.

    Example:
        >>> import fanfold as ff
        >>> isinstance(ff.propagation.source_of("rayleigh"), ff.propagation.Source)
        True
    """

    @property
    def layout(self) -> Layout:
        """The shape and numerology of its channels."""
        ...

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """Channels `(n, antennas, symbols, subcarriers)`, complex64, mean power one.

        Stored ones are picked at random from that part, those not trained on each at most once; others are fresh.
        """
        ...


# Abilities that some sources have beyond drawing: generic code asks for these


@runtime_checkable
class HashedSource(Protocol):
    """A source that knows a hash of its stored channels."""

    @property
    def fingerprint(self) -> str | None:
        """The hash of all its channels; another one tells that they changed. None where no channels are stored."""
        ...


@runtime_checkable
class ReadSource(Protocol):
    """A source that was read from a file, and says what it took its axes for."""

    @property
    def reading(self) -> str:
        """What was read, in words."""
        ...

    @property
    def doubt(self) -> str | None:
        """Why it may have been read wrongly, and what to do then; None where nothing says so."""
        ...


@runtime_checkable
class StoredSource(Protocol):
    """A source with a fixed number of channels, which can be read row by row.

    Example:
        >>> import torch, fanfold as ff
        >>> source = ff.propagation.source_of("umi")
        >>> isinstance(source, ff.propagation.StoredSource), tuple(source.read(torch.arange(3)).shape)
        (True, (3, 32, 1, 24))
    """

    def rows(self, part: Part) -> range:
        """The rows that a part holds."""
        ...

    def read(self, pick: Tensor) -> Tensor:
        """The channels of these rows `(n,)`: `(n, antennas, symbols, subcarriers)`, complex64."""
        ...

    @property
    def fingerprint(self) -> str:
        """The hash of all its channels; another one tells that they changed."""
        ...


@runtime_checkable
class DistinctSource(Protocol):
    """A source that draws by itself so that no channel comes twice."""

    def distinct(self, n: int, generator: torch.Generator, part: Part) -> Tensor:
        """`n` channels of a part of which no two are the same, `(n, antennas, symbols, subcarriers)`."""
        ...


@runtime_checkable
class VerifiableSource(Protocol):
    """A source that can hold its channels against what was written of them."""

    def verify(self) -> None:
        """Read all channels and compare them with their hashes.

        Raises:
            ValueError: If they are not what was written.
        """
        ...


@runtime_checkable
class SelfDescribedSource(Protocol):
    """A source that knows more of itself than its layout."""

    def facts(self) -> dict[str, Any]:
        """What it knows of its channels, as plain data by name."""
        ...


def stored_fingerprint(source: Source) -> str | None:
    """The hash of the stored channels that a source draws from; None if all are drawn afresh."""
    return (source.fingerprint or None) if offers(source, HashedSource) else None


def picked(rows: range, n: int, generator: torch.Generator, part: Part) -> Tensor:
    """`n` of the rows at random `(n,)`: to train on with replacement, else each at most once."""
    if part != "train":
        return rows.start + torch.randperm(len(rows), generator=generator)[:n]
    return rows.start + torch.randint(len(rows), (n,), generator=generator)
