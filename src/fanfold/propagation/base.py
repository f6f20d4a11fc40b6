"""What a source of channels is: draws of H over antennas, OFDM symbols and subcarriers, of unit mean power."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Layout:
    """Axes of a channel: `(antennas, symbols, subcarriers)`, the antennas in the order of the array's own axes."""

    array: tuple[int, ...]  # antennas along each axis, slowest first: (polarisations, columns, rows), panels before
    symbols: int
    subcarriers: int
    spacing_hz: float = 30e3  # between subcarriers
    carrier_hz: float = 3.5e9

    def __post_init__(self):
        object.__setattr__(self, "array", tuple(int(size) for size in self.array))
        if not self.array or min(*self.array, self.symbols, self.subcarriers) < 1:
            raise ValueError(
                f"an array of {self.array} with {self.symbols} symbols of {self.subcarriers} subcarriers is empty."
            )
        if not all(0 < hz < math.inf for hz in (self.spacing_hz, self.carrier_hz)):
            raise ValueError(f"spacing {self.spacing_hz} Hz and carrier {self.carrier_hz} Hz; pass positive ones.")

    @property
    def antennas(self) -> int:
        """How many there are."""
        return math.prod(self.array)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(antennas, symbols, subcarriers)`."""
        return self.antennas, self.symbols, self.subcarriers

    @property
    def n(self) -> int:
        """Number of unknowns: entries of one channel."""
        return math.prod(self.shape)

    @property
    def symbol_seconds(self) -> float:
        """From one OFDM symbol to the next: 14 of them in a slot of 1 ms at 15 kHz, 500 µs at 30 kHz."""
        return 15 / 14 / self.spacing_hz


def rows_of(part: Part, topologies: int, held_out_share: float) -> range:
    """Which topologies a part has: the last share is for testing, half as many before it are for validation.

    One at least is for testing and one to train on; where no other is left, this one is for validation too.

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
class StoredSource(Protocol):
    """A source whose channels are so many."""

    def rows(self, part: Part) -> range:
        """Which of them a part holds."""
        ...

    def read(self, pick: Tensor) -> Tensor:
        """Those of these rows `(n,)`: `(n, antennas, symbols, subcarriers)`, complex64."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all of them; another one tells that they changed."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where channels come from."""

    @property
    def layout(self) -> Layout:
        """Shape and numerology of its channels."""
        ...

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """Channels `(n, antennas, symbols, subcarriers)`, complex64, mean power one.

        Stored ones are picked at random from that part, those not trained on each at most once; others are fresh.
        """
        ...
