"""Resource grids as the field writes them, `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]`, and single links."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.propagation.pilots import pilot_mask


class GridShape(NamedTuple):
    """Axes of the channels of a grid."""

    batch: int
    rx: int
    rx_ant: int
    tx: int
    stream: int
    symbol: int
    subcarrier: int


def to_links(h: Tensor) -> Tensor:
    """Channels `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]` as links.

    Returns:
        `(batch · rx · tx · stream, rx_ant · symbol · subcarrier)`.

    Raises:
        ValueError: If there are not seven axes.
    """
    if h.ndim != 7:
        raise ValueError(
            f"h has shape {tuple(h.shape)}; pass [batch, rx, rx_ant, tx, stream, symbol, subcarrier], seven axes."
        )
    return h.permute(0, 1, 3, 4, 2, 5, 6).flatten(4).flatten(0, 3)


def from_links(x: Tensor, shape: GridShape) -> Tensor:
    """Links `(batch · rx · tx · stream, rx_ant · symbol · subcarrier)` as channels of a grid, seven axes.

    Raises:
        ValueError: If the links are not those of such a grid.
    """
    batch, rx, rx_ant, tx, stream, symbol, subcarrier = shape
    wanted = (batch * rx * tx * stream, rx_ant * symbol * subcarrier)
    if tuple(x.shape) != wanted:
        raise ValueError(f"x has shape {tuple(x.shape)}, but a grid of {tuple(shape)} has links of shape {wanted}.")
    return x.reshape(batch, rx, tx, stream, rx_ant, symbol, subcarrier).permute(0, 1, 4, 2, 3, 5, 6)


@dataclass(frozen=True)
class GridPilots:
    """Pilots of all streams: complex `(tx, stream, symbol, subcarrier)`, zero where a stream sends none.

    They are orthogonal in frequency or time: where one stream sends a pilot all others are silent. The pilots of a
    stream have one magnitude, so that least squares has one noise variance.

    Raises:
        ValueError: If they are not so, or a stream has none.
    """

    values: Tensor

    def __post_init__(self):
        if self.values.ndim != 4 or not self.values.is_complex():
            raise ValueError(
                f"pilots are {self.values.dtype} of shape {tuple(self.values.shape)}; pass complex ones of shape "
                "(tx, stream, symbol, subcarrier)."
            )
        sent = self.values.abs().flatten(0, 1)
        shared = (sent > 0).sum(0) > 1
        if shared.any():
            symbol, subcarrier = shared.nonzero()[0].tolist()
            raise ValueError(
                f"several streams send pilots on symbol {symbol}, subcarrier {subcarrier}: they cannot be told apart; "
                "give each stream a comb offset or symbols of its own."
            )
        for index, power in enumerate(sent):
            own = power[power > 0]
            if not len(own):
                raise ValueError(f"stream {index} has no pilot.")
            if (own - own[0]).abs().max() > 1e-4 * own[0]:
                raise ValueError(
                    f"pilots of stream {index} have magnitudes from {own.min():g} to {own.max():g}; pass one."
                )

    @classmethod
    def combs(cls, streams: int, symbols: int, subcarriers: int, at: tuple[int, ...] = (2, 11)) -> "GridPilots":
        """A comb for each of `streams` single-stream transmitters, offset by one: Sionna's Kronecker pattern.

        All are one, as after division by the pilot symbols.
        """
        places = ",".join(map(str, at))
        masks = [pilot_mask(f"comb-{streams}:offset={k}@{places}", symbols, subcarriers) for k in range(streams)]
        return cls(torch.stack(masks).to(torch.complex64)[:, None])

    @property
    def masks(self) -> Tensor:
        """Where each stream has pilots: `(tx · stream, symbol, subcarrier)`, boolean."""
        return self.values.abs().flatten(0, 1) > 0

    @property
    def overhead(self) -> float:
        """Share of the resource elements on which no stream sends data, for one of them has a pilot there."""
        return self.masks.any(0).float().mean().item()

    def least_squares(self, y: Tensor, noise_var: Tensor | float) -> list[tuple[Tensor, Tensor]]:
        """Each stream's channel at its pilots, from a received grid.

        Args:
            y: `[batch, rx, rx_ant, symbol, subcarrier]`.
            noise_var: Of y; a number, or one for each of the batch `(batch,)`.

        Returns:
            For each stream `(batch · rx, rx_ant · pilots)` and the variance of its errors `(batch · rx, 1)`.

        Raises:
            ValueError: If the grid is another.
        """
        if y.ndim != 5 or y.shape[-2:] != self.values.shape[-2:]:
            raise ValueError(
                f"y has shape {tuple(y.shape)}; pass [batch, rx, rx_ant, symbol, subcarrier] with the last two "
                f"{tuple(self.values.shape[-2:])}, those of the pilots."
            )
        batch, rx = y.shape[:2]
        var = torch.as_tensor(noise_var, dtype=y.real.dtype, device=y.device).reshape(-1, 1).expand(batch, rx)
        found = []
        for values, mask in zip(self.values.flatten(0, 1).to(y), self.masks.to(y.device)):
            sent = values[mask]
            at_pilots = (y[..., mask] / sent).flatten(2).flatten(0, 1)
            found.append((at_pilots, var.reshape(-1, 1) / sent[0].abs().square()))
        return found
