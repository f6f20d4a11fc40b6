"""What layers may compute in whole numbers, said once: torch trains with it, and integer programs are drafted by it.

A value is a vector of whole numbers, each of which stands for `integer * 2^-fraction`. What loses digits is rounded
half up, `(x + (1 << (s - 1))) >> s`; what is shifted to the left loses nothing. The scales of weights and of tables
follow from their largest entry, those of activations are given. Jacob et al. (2018), with powers of two for scales.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Literal

import numpy as np
import torch
from torch import Tensor

from fanfold.estimators.fixed_point.rounding import to_even
from fanfold.estimators.fixed_point.values import BYTE_BITS, RoundedMatrix, Scaled, V, ends, finest, quantised_rows

Widths = Literal["w8a8", "w8a12", "w16a16"]
BITS_OF: dict[str, tuple[int, int]] = {"w8a8": (8, 8), "w8a12": (8, 12), "w16a16": (16, 16)}  # weights, activations
PORT_BITS = 16  # of what comes in and goes out, which no matrix multiplies as it is
NUMBER_BITS = 16  # of numbers that multiply a sum
MOST_BITS = 46  # of a sum, its sign apart
SUM_BITS = 27  # of a sum that such a number multiplies, its sign apart


class Arithmetic(ABC, Generic[V]):
    """A reader of layers that are written in these operations.

    Args:
        widths: The bits of weights and activations.
        fractions: The fraction of each value that is narrowed, in the order in which they are.
        pairs_fit: Whether weights of 8 bits lose one more, in rows that need it, so that `255 (|w1| + |w2|) <= 32767`
            for neighbours.
        noise_var: The noise variance that tables are made for; None where it is not known.
    """

    def __init__(
        self, widths: Widths, fractions: Sequence[int], *, pairs_fit: bool = False, noise_var: float | None = None
    ):
        self.weight_bits, self.bits = BITS_OF[widths]
        self.pairs_fit, self.noise_var, self._fractions = pairs_fit, noise_var, iter(fractions)

    # What a reader has to know

    @abstractmethod
    def _entered(self, name: str, fraction: int, bits: int) -> V:
        """The whole numbers of a port, of so many bits."""

    @abstractmethod
    def _constant(self, numbers: Tensor, fraction: np.ndarray) -> V:
        """Numbers `(size,)` that lie on their grid."""

    @abstractmethod
    def _product(self, x: Scaled[V], weights: RoundedMatrix, outer: int, inner: int) -> V:
        """`out[o, r, i] = Σ_c weights[r, c] in[o, c, i]`."""

    @abstractmethod
    def _rounded(self, x: Scaled[V], fraction: np.ndarray, name: str | None) -> V:
        """The numbers on another grid, half up where it is coarser."""

    @abstractmethod
    def _clamped(self, x: Scaled[V], low: Tensor, high: Tensor, name: str | None) -> V:
        """The numbers between two others, `(1,)` or `(size,)`, which lie on the grid of x."""

    @abstractmethod
    def _sum(self, left: Scaled[V], right: Scaled[V], sign: int, name: str | None) -> V:
        """`left ± right`, which have one fraction."""

    @abstractmethod
    def _times(self, left: Scaled[V], right: Scaled[V]) -> V:
        """The products of two values entry by entry."""

    @abstractmethod
    def _moved(self, x: Scaled[V], shape: tuple[int, ...], axes: tuple[int, ...]) -> V:
        """The entries with their axes in another order."""

    @abstractmethod
    def _looked_up(
        self,
        x: Scaled[V],
        tables: Tensor,
        fraction: np.ndarray,
        row: Scaled[V] | None,
        edges: np.ndarray | None,
        name: str | None,
    ) -> V:
        """The entries of tables `(rows, 2 largest + 1)`, which lie on their grid, at x and at the picked row."""

    def _fraction_for(self, x: Scaled[V], bits: int, least: int | None) -> int:
        """The fraction with which the next value is narrowed."""
        return next(self._fractions)

    # What layers are written in

    def entered(self, name: str, bits: int = PORT_BITS) -> Scaled[V]:
        """The port of that name, with 16 or 32 bits."""
        fraction = self._entered_fraction(name, bits)
        return Scaled(self._entered(name, fraction, bits), np.array([fraction]), 1 << (bits - 1))

    def _entered_fraction(self, name: str, bits: int) -> int:
        return next(self._fractions)

    def matrix(self, weights: Tensor, bits: int | None = None, *, one_scale: bool = False) -> RoundedMatrix:
        """Weights `(rows, columns)` in as many bits as weights have, each row on the finest grid that clips nothing.

        With one scale all have that of the least squared error: runtimes scale a product by one number then, faster.
        """
        return quantised_rows(weights, bits or self.weight_bits, pairs_fit=self.pairs_fit, one_scale=one_scale)

    def rest(self, weights: Tensor, quantised: RoundedMatrix) -> RoundedMatrix | None:
        """What rounding took from weights, as a matrix; None of more than 8 bits, where it is next to nothing."""
        if quantised.bits > BYTE_BITS:
            return None
        return self.matrix(weights.double() - quantised.numbers.detach())

    def number(self, values: Tensor, bits: int = NUMBER_BITS) -> Scaled[V]:
        """Numbers of the layer itself, such as steps or a bias, `(size,)`."""
        values = values.double().reshape(-1)
        fraction = np.array([finest(float(values.detach().abs().max()), bits)])
        return Scaled(self._constant(to_even(values, fraction), fraction), fraction, (1 << (bits - 1)) - 1)

    def product(self, x: Scaled[V], weights: RoundedMatrix, outer: int = 1, inner: int = 1) -> Scaled[V]:
        """The product with a matrix, exactly; x is seen as `(outer, columns, inner)` and has one fraction."""
        value = self._product(x, weights, outer, inner)
        rows = weights.fraction + int(x.fraction[0])
        if (rows == rows[0]).all():
            rows = rows[:1]
        elif outer * inner > 1:
            rows = np.tile(np.repeat(rows, inner), outer)
        return Scaled(value, rows, weights.row_sum * x.largest)

    def shifted(self, x: Scaled[V], fraction: np.ndarray, name: str | None = None) -> Scaled[V]:
        """The same numbers with another fraction, rounded half up where digits are lost."""
        shift = x.fraction - fraction
        if (shift == 0).all():
            return x
        longest, least = int(shift.max()), int(shift.min())
        largest = x.largest << max(0, -least)
        if least > 0:
            largest = (x.largest + (1 << (least - 1))) >> least
        elif longest > 0:
            largest = max(largest, x.largest)
        return Scaled(self._rounded(x, fraction, name), fraction, largest)

    def within(self, x: Scaled[V], bits: int = SUM_BITS) -> Scaled[V]:
        """The numbers without the last digits that are beyond so many bits, sign apart."""
        excess = x.largest.bit_length() - bits
        return self.shifted(x, x.fraction - excess) if excess > 0 else x

    def plus(self, left: Scaled[V], right: Scaled[V], name: str | None = None) -> Scaled[V]:
        """The sum, with the finer one of both fractions, entry by entry; digits beyond 46 bits are lost."""
        left, right = self._aligned(left, right)
        return Scaled(self._sum(left, right, 1, name), left.fraction, left.largest + right.largest)

    def minus(self, left: Scaled[V], right: Scaled[V], name: str | None = None) -> Scaled[V]:
        """The difference, with the finer one of both fractions, entry by entry; digits beyond 46 bits are lost."""
        left, right = self._aligned(left, right)
        return Scaled(self._sum(left, right, -1, name), left.fraction, left.largest + right.largest)

    def _aligned(self, left: Scaled[V], right: Scaled[V]) -> tuple[Scaled[V], Scaled[V]]:
        """Both with one fraction, so fine that their sum is proved to fit."""
        fraction = np.maximum(left.fraction, right.fraction)
        most = sum(x.largest << int((fraction - x.fraction).max()) for x in (left, right))
        fraction = fraction - max(0, most.bit_length() - MOST_BITS)
        return self.shifted(left, fraction), self.shifted(right, fraction)

    def times(self, left: Scaled[V], right: Scaled[V]) -> Scaled[V]:
        """The products entry by entry, exactly."""
        return Scaled(self._times(left, right), left.fraction + right.fraction, left.largest * right.largest)

    def clamped(self, x: Scaled[V], low: Tensor, high: Tensor, name: str | None = None) -> Scaled[V]:
        """The numbers between `low` and `high`, `(1,)` or `(size,)`, which are put on x's grid.

        One number for all entries is put on the coarsest grid that some of them have, so that it is one for all.
        """
        ends = [end.double().reshape(-1) for end in (low, high)]
        low, high = (to_even(end, x.fraction if len(end) > 1 else x.fraction.min(keepdims=True)) for end in ends)
        value = self._clamped(x, low, high, name)
        largest = torch.maximum(low.detach().abs(), high.detach().abs()).cpu().numpy()
        most = np.ldexp(largest, x.fraction).max()
        return Scaled(value, x.fraction, min(x.largest, int(most)))

    def soft(self, x: Scaled[V], threshold: Tensor) -> Scaled[V]:
        """The soft threshold, `x - clamp(x, -t, t)`."""
        kept = self.clamped(x, -threshold, threshold)
        return Scaled(self._sum(x, kept, -1, None), x.fraction, x.largest)

    def narrowed(
        self, x: Scaled[V], bits: int | None = None, name: str | None = None, at_least: np.ndarray | None = None
    ) -> Scaled[V]:
        """The numbers in as many bits as activations have, with the fraction that was given, where they saturate.

        Args:
            x: The numbers.
            bits: How many, if not as many as activations have.
            name: The name of the value.
            at_least: The least fraction that may be chosen for it.
        """
        bits = bits or self.bits
        least = None if at_least is None else int(at_least.max())
        return self.on_grid(x, self._fraction_for(x, bits, least), bits, name)

    def with_room(
        self, x: Scaled[V], spare: int, at_least: np.ndarray | None = None, at_most: int | None = None
    ) -> Scaled[V]:
        """The numbers in as many bits as activations have, of which some are left for larger ones than were seen.

        Args:
            x: The numbers.
            spare: How many bits are left.
            at_least: The least fraction that may be chosen for it.
            at_most: The largest one.
        """
        least = None if at_least is None else int(at_least.max())
        fraction = self._fraction_for(x, self.bits - spare, least)
        return self.on_grid(x, fraction if at_most is None else min(fraction, at_most), self.bits)

    def on_grid(self, x: Scaled[V], fraction: int, bits: int, name: str | None = None) -> Scaled[V]:
        """The numbers in so many bits with a fraction that the layers themselves say, such as those of a table."""
        scaled = self.shifted(x, np.array([fraction]))
        low, high = (torch.tensor([math.ldexp(end, -fraction)], dtype=torch.float64) for end in ends(bits))
        value = self._clamped(scaled, low, high, name)
        return Scaled(value, scaled.fraction, min(scaled.largest, -ends(bits)[0]))

    def output(self, x: Scaled[V], name: str) -> Scaled[V]:
        """What goes out by a port of that name."""
        return self.narrowed(x, PORT_BITS, name)

    def table(
        self, x: Scaled[V], function: Callable[[Tensor], Tensor], bits: int | None = None, name: str | None = None
    ) -> Scaled[V]:
        """A function of each entry, as a table of its values, `(entries,)` of numbers `(entries,)`."""
        return self._tabled(x, lambda at: function(at)[None], bits, None, None, name)

    def bank(
        self,
        x: Scaled[V],
        row: Scaled[V],
        edges: np.ndarray,
        function: Callable[[Tensor], Tensor],
        bits: int | None = None,
        name: str | None = None,
    ) -> Scaled[V]:
        """A function of each entry, one of several that another value picks: the number of edges that it reaches.

        Args:
            x: What the function is of.
            row: What picks: one entry for all, or one for each.
            edges: Whole numbers, rising, on the grid of `row`, `(rows - 1,)`.
            function: Of numbers `(entries,)`, the values of each table, `(rows, entries)`.
            bits: Of the values; those of activations if not given.
            name: The name of the value.
        """
        return self._tabled(x, function, bits, row, edges, name)

    def picked(self, row: Scaled[V], edges: np.ndarray, rows: Tensor, bits: int = NUMBER_BITS) -> Scaled[V]:
        """One of several rows of numbers `(rows, size)`: that of the number of edges which a value reaches.

        Args:
            row: What picks, `(1,)`.
            edges: Whole numbers, rising, on the grid of `row`, `(rows - 1,)`.
            rows: The numbers.
            bits: How many each has.
        """
        rows, half = rows.double(), rows.shape[1] // 2
        fraction, whole = np.array([finest(float(rows.detach().abs().max()), bits)]), np.array([0])
        places = torch.arange(rows.shape[1], dtype=torch.float64) - half
        at = Scaled(self._constant(places, whole), whole, half)
        padded = torch.nn.functional.pad(rows, (0, 2 * half + 1 - rows.shape[1]))
        value = self._looked_up(at, to_even(padded, fraction), fraction, row, edges, None)
        return Scaled(value, fraction, (1 << (bits - 1)) - 1)

    def _tabled(
        self,
        x: Scaled[V],
        function: Callable[[Tensor], Tensor],
        bits: int | None,
        row: Scaled[V] | None,
        edges: np.ndarray | None,
        name: str | None,
    ) -> Scaled[V]:
        bits = bits or self.bits
        entries = torch.arange(-x.largest, x.largest + 1, dtype=torch.float64)
        values = function(torch.ldexp(entries, torch.tensor(-int(x.fraction[0])))).double()
        fraction = np.array([finest(float(values.detach().abs().max()), bits)])
        tables = to_even(values, fraction)
        value = self._looked_up(x, tables, fraction, row, edges, name)
        return Scaled(value, fraction, (1 << (bits - 1)) - 1)

    def moved(self, x: Scaled[V], shape: tuple[int, ...], axes: tuple[int, ...]) -> Scaled[V]:
        """The entries, seen in this shape, with their axes in another order."""
        fraction = x.fraction
        if fraction.size > 1:
            fraction = fraction.reshape(shape).transpose(axes).ravel()
        return Scaled(self._moved(x, shape, axes), fraction, x.largest)
