"""Channels of the user's own, measured or ray-traced: an array in a .npz, .npy, .h5 or .mat file."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fanfold.core.array_files import array_of, held_arrays, listed
from fanfold.core.files import file_hash
from fanfold.core.settings import Checked
from fanfold.propagation.axes import axes_in_words, swapped
from fanfold.propagation.base import Layout, Part, picked, rows_of

AXES = {3: "daf", 4: "dasf", 7: "ddaddsf"}  # by the number of dimensions, where the user does not say
AXES_MEANING = (
    "d draws (several are joined, the first slowest), a antennas, s symbols, f subcarriers, c real and imaginary part"
)


@dataclass(frozen=True)
class UserFile(Checked):
    """Channels H of a file, of any scale; the last tenth is kept for testing.

    Axes are (draws, antennas, subcarriers), (draws, antennas, symbols, subcarriers) or, as the field writes them,
    `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]`, each link and stream being a draw; others are said in `axes`.
    They are scaled to unit mean power over the file, or each draw by itself.

    Raises:
        ValueError: If there is no such file or array, or the array is not one of channels.
        ImportError: If the format needs a package that is not installed.

    Example:
        >>> import tempfile, numpy as np, fanfold as ff
        >>> H = np.random.default_rng(0).standard_normal((20, 8, 24, 2)) @ np.array([1, 1j])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/measured.npz", H=H)
        ...     ff.propagation.source_of(f"{folder}/measured.npz:array=2x4").layout.shape
        (8, 1, 24)
    """

    path: str
    name: str = ""  # name of the array; the only one that can hold channels if not given
    axes: str = ""  # one letter for each dimension; see `AXES_MEANING`
    array: tuple[int, ...] = ()  # antennas along each axis, slowest first; one axis if not given
    spacing_hz: float = 30e3
    carrier_hz: float = 3.5e9
    normalise: Literal["file", "draw"] = "file"
    held_out_share: float = 0.1

    def __post_init__(self):
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it is between 0 and 1.")
        count = len(self.channels) // self._links
        if count < 2:
            raise ValueError(f"{self.path} holds {count} draws; one to train on and one to test are the least.")
        _ = self.layout

    @cached_property
    def layout(self) -> Layout:
        """The shape and numerology of its channels."""
        _, antennas, symbols, subcarriers = self.channels.shape
        array = self.array or (antennas,)
        if math.prod(array) != antennas:
            raise ValueError(f"{self.path} has {antennas} antennas, but an array of {array} has {math.prod(array)}.")
        return Layout(array, symbols, subcarriers, self.spacing_hz, self.carrier_hz)

    @cached_property
    def channels(self) -> Tensor:
        """All channels, scaled: `(draws, antennas, symbols, subcarriers)`, complex64."""
        H, _ = self._ordered
        bad = np.argwhere(~np.isfinite(H))
        if len(bad):
            raise ValueError(f"{self.path} holds a channel that is not finite, first at {tuple(map(int, bad[0]))}.")
        H = H / max(np.abs(H).max(initial=0.0), np.finfo(np.float64).tiny)  # squares neither overflow nor vanish
        power = np.square(np.abs(H), dtype=np.float64).mean((1, 2, 3), keepdims=True)
        if self.normalise == "file":
            power = power.mean(keepdims=True)
        if not power.all():
            raise ValueError(f"{self.path} holds a channel without power, first draw {int(power.argmin())}.")
        return torch.from_numpy((H / np.sqrt(power)).astype(np.complex64))

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the file."""
        return file_hash(Path(self.path))

    @cached_property
    def _ordered(self) -> tuple[np.ndarray, int]:
        return _ordered(self)

    @property
    def _links(self) -> int:
        """How many draws one topology has: links and streams of one entry of the batch."""
        return self._ordered[1]

    @property
    def reading(self) -> str:
        """What was read, in words."""
        return f"{self.path}: {len(self.channels)} channels of {axes_in_words(self.layout)}"

    @property
    def doubt(self) -> str | None:
        """Why the axes look swapped, and what to say if they are; None where they do not, or the user named them."""
        reason = None if self.axes else swapped(self.channels)
        if reason is None:
            return None
        axes = AXES[_chosen(self)[1].ndim]
        other = axes.translate(str.maketrans("af", "fa"))
        return f"{self.reading}: are the axes swapped? Then say axes={other}, or else axes={axes}. For {reason}"

    def rows(self, part: Part) -> range:
        """The draws that a part holds; no topology is in two parts."""
        rows = rows_of(part, len(self.channels) // self._links, self.held_out_share)
        return range(rows.start * self._links, rows.stop * self._links)

    def draw(self, n: int, generator: torch.Generator, part: Part = "train") -> Tensor:
        """`n` channels of a part; to train on with replacement, else each at most once."""
        return self.read(picked(self.rows(part), n, generator, part))

    def read(self, pick: Tensor) -> Tensor:
        """The channels of these rows `(n,)`: `(n, antennas, symbols, subcarriers)`, complex64."""
        return self.channels[pick]


def _ordered(source: UserFile) -> tuple[np.ndarray, int]:
    """The array as `(draws, antennas, symbols, subcarriers)`, complex, and how many draws share a topology."""
    name, H = _chosen(source)
    axes = source.axes or AXES.get(H.ndim, "")
    if len(axes) != H.ndim or set(axes) - set("dasfc") or any(axes.count(x) != 1 for x in "af") or "d" not in axes:
        raise ValueError(
            f"{source.path}: {name or 'the array'} has shape {H.shape}, and axes is {source.axes!r}; pass one letter "
            f"for each dimension ({AXES_MEANING}), such as axes=daf."
        )
    if "c" in axes:
        pair = np.moveaxis(H, axes.index("c"), -1)
        if pair.shape[-1] != 2 or np.iscomplexobj(H):
            raise ValueError(
                f"{source.path}: the axis c of {H.shape} has the real and the imaginary part, two entries."
            )
        H, axes = pair[..., 0] + 1j * pair[..., 1], axes.replace("c", "")
    elif not np.iscomplexobj(H):
        raise ValueError(
            f"{source.path}: {name or 'the array'} is {H.dtype}, channels are complex; if an axis holds real and "
            "imaginary part, name it c: axes=dafc."
        )
    order = sorted(range(H.ndim), key=lambda k: "dasf".index(axes[k]))
    H = H.transpose(order)
    draws, symbols = axes.count("d"), axes.count("s")
    if symbols > 1:
        raise ValueError(f"axes is {axes!r}; one axis of symbols at most.")
    if not H.size:
        raise ValueError(f"{source.path}: {name or 'the array'} of shape {H.shape} is empty.")
    links = math.prod(H.shape[1:draws])
    H = H.reshape(-1, *H.shape[draws:])
    return H if symbols else H[:, :, None], links


def _chosen(source: UserFile) -> tuple[str, np.ndarray]:
    """The array that was named, or the only one that can hold channels; no other is read."""
    name = source.name
    if not name:
        arrays = held_arrays(source.path)
        fitting = [name for name, held in arrays.items() if len(held.shape) >= 3]
        if len(fitting) != 1:
            raise ValueError(
                f"{source.path} has {len(fitting)} arrays of three or more dimensions, not one: {listed(arrays)}; "
                "name the channels: name=H."
            )
        name = fitting[0]
    return name, array_of(source.path, name)
