"""Which axis of channels is which: what was read, in words, and whether two axes look swapped."""

import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.propagation.base import Layout

ALIKE = 0.9  # correlation of neighbours along what may be the subcarriers
SHARPER = 0.5  # share of the other axis's decorrelation that is left along it
DRAWS = 500  # that are looked at


def axes_in_words(layout: Layout) -> str:
    """The axes of channels, such as `72 antennas x 32 subcarriers`.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.propagation.axes import axes_in_words
        >>> axes_in_words(ff.propagation.Layout((2, 4), 14, 48))
        '8 antennas (2 x 4) x 14 symbols x 48 subcarriers'
    """
    array = f" ({' x '.join(map(str, layout.array))})" if len(layout.array) > 1 else ""
    symbols = f" x {layout.symbols} symbols" if layout.symbols > 1 else ""
    return f"{layout.antennas} antennas{array}{symbols} x {layout.subcarriers} subcarriers"


def neighbours_alike(channels: Tensor, axis: int) -> float:
    """The magnitude of the correlation of neighbours along an axis, over all draws: 1 where they are the same.

    A delay common to all draws turns every neighbour alike, and does not lower it.
    """
    last, size = channels.narrow(axis, 1, channels.shape[axis] - 1), channels.shape[axis] - 1
    first = channels.narrow(axis, 0, size)
    product = (last * first.conj()).sum().abs().item()
    return product / max((power(last).sum() * power(first).sum()).sqrt().item(), torch.finfo(torch.float32).tiny)


def swapped(channels: Tensor) -> str | None:
    """Why antennas and subcarriers of channels `(draws, antennas, symbols, subcarriers)` look swapped; None if not.

    Over a few subcarriers a channel hardly turns, as echoes come within a fraction of a symbol; from antenna to antenna
    it turns with the angle, which differs from draw to draw.
    """
    few = channels[:DRAWS]
    if min(channels.shape[1], channels.shape[3]) < 2:
        return None
    over_antennas, over_subcarriers = neighbours_alike(few, 1), neighbours_alike(few, 3)
    if over_antennas < ALIKE or 1 - over_antennas > SHARPER * (1 - over_subcarriers):
        return None
    return (
        f"neighbouring antennas are more alike (correlation {over_antennas:.3f}) than neighbouring subcarriers "
        f"({over_subcarriers:.3f}); of radio channels it is the other way round."
    )
