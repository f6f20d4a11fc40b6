"""Layers of values with axes: scales along some of them, values side by side, convolutions, logarithms by octaves.

Where entries that a matrix sums have scales of their own, its weights make up for it: Xiao et al. (2023), SmoothQuant,
eq. 3, with powers of two. Logarithms are those of Mitchell (1962), linear within each octave.
"""

import math
from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.estimators.fixed_point.arithmetic import SUM_BITS, Arithmetic
from fanfold.estimators.fixed_point.rounding import to_even
from fanfold.estimators.fixed_point.values import ONE_SCALE, RoundedMatrix, Scaled, V, ends, quantised_rows

LINEAR_BITS = SUM_BITS - 2  # of a matrix's sums, so that some of them may be added


class Logarithm(NamedTuple):
    """Logarithms to the base 2, each `value + beyond`.

    Example:
        >>> import numpy as np
        >>> from fanfold.estimators.fixed_point.values import Scaled
        >>> from fanfold.estimators.fixed_point.shaped import Logarithm
        >>> Logarithm(Scaled("x", np.array([4]), 64), -3).beyond
        -3
    """

    value: Scaled
    beyond: int


class ShapedArithmetic(Arithmetic[V]):
    """A reader of layers whose values have axes. The arguments are those of `Arithmetic`."""

    @abstractmethod
    def _joined(self, left: V, right: V, outer: int) -> V:
        """Two values side by side, each seen as `(outer, columns)`."""

    @abstractmethod
    def _convolved(
        self, x: Scaled[V], weights: RoundedMatrix, shape: tuple[int, int, int], kernel: tuple[int, int]
    ) -> V:
        """The products of the windows of a picture `(rows, columns, channels)`."""

    @abstractmethod
    def _regarded(self, x: Scaled[V], fraction: np.ndarray) -> V:
        """The same whole numbers, with another fraction."""

    @abstractmethod
    def _octaves(self, x: Scaled[V], first: int, count: int, digits: int) -> V:
        """`Σ_k clamp(x 2^-(k + digits), 1, 2) - 1` over octaves k of whole numbers, with so many digits."""

    def _fractions_for(self, x: Scaled[V], bits: int, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
        """The fractions of the next value that is narrowed, one for each place along these axes."""
        return np.array([next(self._fractions) for _ in range(math.prod(shape[axis] for axis in axes))])

    def linear(
        self, x: Scaled[V], weights: Tensor, outer: int = 1, inner: int = 1, bits: int | None = None
    ) -> Scaled[V]:
        """The product with weights `(rows, columns)`; x is seen as `(outer, columns, inner)`.

        Its fractions may be sums of one for each place along these three axes.
        """
        seen = np.broadcast_to(x.fraction, (outer * weights.shape[1] * inner,)).reshape(outer, -1, inner)
        columns = seen[0, :, 0] - seen[0, 0, 0]
        assert (seen == seen[:, :1] + columns[:, None]).all(), "fractions are no sums along the axes of a product"
        matrix = self._weights(weights, columns, bits)
        value = self._product(x, matrix, outer, inner)
        fraction = seen[:, :1] + matrix.fraction[:, None]
        return self.within(Scaled(value, _once(fraction.ravel()), matrix.row_sum * x.largest), LINEAR_BITS)

    def convolved(
        self, x: Scaled[V], weights: Tensor, shape: tuple[int, int, int], bits: int | None = None
    ) -> Scaled[V]:
        """The convolution of a picture `(rows, columns, channels)` with weights `(out, channels, h, w)`, as large.

        The picture's fractions may be one for each channel.
        """
        rows, columns, channels = shape
        seen = np.broadcast_to(x.fraction, (rows * columns * channels,)).reshape(-1, channels)
        assert (seen == seen[0]).all(), "fractions of a picture differ from place to place"
        kernel = (weights.shape[2], weights.shape[3])
        flat = weights.permute(0, 2, 3, 1).flatten(1)
        matrix = self._weights(flat, np.tile(seen[0] - seen[0, 0], kernel[0] * kernel[1]), bits)
        value = self._convolved(x, matrix, shape, kernel)
        fraction = np.tile(seen[0, 0] + matrix.fraction, rows * columns)
        return self.within(Scaled(value, _once(fraction), matrix.row_sum * x.largest), LINEAR_BITS)

    def _weights(self, weights: Tensor, columns: np.ndarray, bits: int | None) -> RoundedMatrix:
        columns = columns if columns.any() else ONE_SCALE
        return quantised_rows(weights, bits or self.weight_bits, pairs_fit=self.pairs_fit, columns=columns)

    def summed(self, x: Scaled[V], outer: int, columns: int, inner: int = 1) -> Scaled[V]:
        """The sums over the middle axis of `(outer, columns, inner)`, of values with one fraction."""
        ones = torch.ones(1, columns, dtype=torch.float64)
        return self.signed_sums(x, ones, outer, inner)

    def signed_sums(self, x: Scaled[V], signs: Tensor, outer: int = 1, inner: int = 1) -> Scaled[V]:
        """The product with whole numbers of a few bits, `(rows, columns)`: ones and minus ones that pick and add."""
        matrix = RoundedMatrix(signs.double(), np.zeros(len(signs), np.int64), 8)
        return Scaled(self._product(x, matrix, outer, inner), x.fraction, matrix.row_sum * x.largest)

    def narrowed_along(
        self, x: Scaled[V], shape: tuple[int, ...], axes: tuple[int, ...], bits: int | None = None
    ) -> Scaled[V]:
        """The numbers in as many bits as activations have, with a fraction for each place along some axes."""
        bits = bits or self.bits
        chosen = self._fractions_for(x, bits, shape, axes)
        seen = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        return self.on_grids(x, np.broadcast_to(chosen.reshape(seen), shape).ravel(), bits)

    def on_grids(self, x: Scaled[V], fraction: np.ndarray, bits: int) -> Scaled[V]:
        """The numbers in so many bits, with a fraction for each entry that the layers themselves say."""
        scaled = self.shifted(x, fraction)
        low, high = (torch.from_numpy(np.ldexp(float(end), -fraction)) for end in ends(bits))
        value = self._clamped(scaled, low, high, None)
        return Scaled(value, _once(fraction), min(scaled.largest, -ends(bits)[0]))

    def roomy(self, x: Scaled[V], size: int, bits: int | None = None) -> Scaled[V]:
        """The numbers `(size,)` with one fraction, which leaves more room than `narrowed` where there are many bits."""
        return self.narrowed_along(x, (size,), (), bits)

    def number_at(self, values: Tensor, fraction: int) -> Scaled[V]:
        """Numbers of the layer itself `(size,)`, rounded to a fraction."""
        at = np.array([fraction])
        rounded = to_even(values.double().reshape(-1), at)
        largest = math.ldexp(float(rounded.detach().abs().max()), fraction)
        return Scaled(self._constant(rounded, at), at, int(largest))

    def added(self, left: Scaled[V], right: Scaled[V]) -> Scaled[V]:
        """The sum with the finer fraction of the two, as far as it stays within sums."""
        finer = np.maximum(left.fraction, right.fraction)
        grown = max(int((finer - part.fraction).max()) + part.largest.bit_length() for part in (left, right))
        finer = _once(finer - max(0, grown - SUM_BITS))
        left, right = (self.shifted(part, finer) for part in (left, right))
        return self.plus(left, right)

    def joined(self, left: Scaled[V], right: Scaled[V], outer: int, columns: tuple[int, int]) -> Scaled[V]:
        """Two values side by side, each seen as `(outer, columns)`."""
        fractions = [
            np.broadcast_to(part.fraction, (outer * count,)).reshape(outer, count)
            for part, count in zip((left, right), columns)
        ]
        fraction = _once(np.concatenate(fractions, 1).ravel())
        return Scaled(self._joined(left.value, right.value, outer), fraction, max(left.largest, right.largest))

    def regarded(self, x: Scaled[V], fraction: int) -> Scaled[V]:
        """The same whole numbers, of another fraction: numbers times a power of two."""
        at = np.array([fraction])
        return Scaled(self._regarded(x, at), at, x.largest)

    def raised(self, x: Scaled[V], bits: np.ndarray) -> Scaled[V]:
        """Each entry of numbers with one fraction, times a power of two, `(size,)`."""
        return self.regarded(self.shifted(x, x.fraction + bits), int(x.fraction[0]))

    def log2(self, x: Scaled[V], octaves: int, digits: int) -> Logarithm:
        """The logarithm of positive numbers of one fraction, over the upper octaves that they may lie in.

        It is linear within each octave, and never more than 0.09 below the true one. Lower numbers have the least.
        """
        top = max(x.largest.bit_length(), digits + 1)  # a network without weights yet has zeros alone
        first = max(0, top - octaves - digits)
        count = top - digits - first
        value = self._octaves(x, first, count, digits)
        result = Scaled(value, np.array([digits]), count << digits)
        return Logarithm(result, first + digits - int(x.fraction[0]))


def power_of_two(logarithm: Tensor) -> Tensor:
    """The numbers whose logarithms, linear within each octave, these are."""
    octave = logarithm.floor()
    return torch.ldexp(1 + logarithm - octave, octave.to(torch.int64))


def _once(fraction: np.ndarray) -> np.ndarray:
    """Fractions that are all the same, as one."""
    return fraction[:1] if (fraction == fraction[0]).all() else fraction
