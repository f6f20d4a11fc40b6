"""The values of layers in whole numbers, and weights on their grids."""

import math
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.estimators.fixed_point.rounding import to_even, unit_of

V = TypeVar("V")  # what a reader has for the vector of a value
BYTE, PAIR_LIMIT, BYTE_BITS = 255, (1 << 15) - 1, 8  # of 8-bit kernels that add two products in 16 bits


class Scaled(NamedTuple, Generic[V]):
    """A value: its vector, the fraction of its entries, and a bound of its whole numbers.

    Example:
        >>> import numpy as np
        >>> from fanfold.estimators.fixed_point.values import Scaled
        >>> Scaled("x", np.array([4]), largest=127).largest
        127
    """

    value: V
    fraction: np.ndarray  # (1,), or one for each entry
    largest: int


ONE_SCALE = np.zeros(1, np.int64)


class RoundedMatrix(NamedTuple):
    """Weights on their grid: the numbers, with gradients, the fraction of each row, and the largest row.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.values import quantised_rows
        >>> quantised_rows(torch.tensor([[0.5, -1.0]]), bits=8).integers
        array([[ 32, -64]], dtype=int8)
    """

    numbers: Tensor  # (rows, columns)
    fraction: np.ndarray  # (rows,)
    bits: int
    columns: np.ndarray = ONE_SCALE  # what the fraction of each entry that goes in is beyond that of the first

    @property
    def integers(self) -> np.ndarray:
        """The whole numbers, int8 or int16."""
        whole = np.ldexp(self.numbers.detach().cpu().numpy(), self.fraction[:, None] - self.columns)
        return whole.astype(np.int8 if self.bits <= BYTE_BITS else np.int16)

    @property
    def row_sum(self) -> int:
        """The largest sum of absolute whole numbers in a row."""
        return int(np.abs(self.integers.astype(np.int64)).sum(1).max())


def finest(largest: float, bits: int) -> int:
    """The largest fraction with which a number of this size fits into so many bits."""
    if largest == 0:
        return bits - 1
    return math.floor(math.log2(((1 << (bits - 1)) - 1) / largest))


def ends(bits: int) -> tuple[int, int]:
    """The least and the largest whole number of so many bits that values are narrowed to.

    Bytes take all that they hold, as runtimes saturate there at no cost; wider numbers are as large either way.

    Example:
        >>> from fanfold.estimators.fixed_point.values import ends
        >>> ends(8), ends(12)
        ((-128, 127), (-2047, 2047))
    """
    most = (1 << (bits - 1)) - 1
    return (-most - 1 if bits == BYTE_BITS else -most), most


FINER = 3  # how many scales for all rows are tried, which clip more and more


def quantised_rows(
    weights: Tensor, bits: int, *, pairs_fit: bool = False, one_scale: bool = False, columns: np.ndarray = ONE_SCALE
) -> RoundedMatrix:
    """A matrix on its grid, with the fraction of each row: the largest that clips nothing.

    With one scale all rows have the same, that of the least squared error, which may clip some entries of many.

    Where entries that go in have fractions of their own, `columns` beyond that of the first, weights make up for it.

    Where pairs are to fit, `255 (|w1| + |w2|) <= 32767` holds for neighbours in rows of 8 bits.
    """
    weights = weights.double()
    sizes = torch.ldexp(weights.detach().abs(), torch.from_numpy(-columns).to(weights.device)).amax(1)
    fraction = np.array([finest(size, bits) for size in sizes.tolist()])
    if one_scale:
        fraction[:] = _least_error(weights.detach(), bits, int(fraction.min()))
    if pairs_fit and bits <= BYTE_BITS:
        whole = np.abs(_on_grid(weights.detach(), fraction, bits, columns).integers.astype(np.int64))
        pairs = whole[:, :-1] + whole[:, 1:] if whole.shape[1] > 1 else whole
        beyond = BYTE * pairs.max(1) > PAIR_LIMIT
        fraction = fraction - (beyond.any() if one_scale else beyond)
    return _on_grid(weights, fraction, bits, columns)


def _on_grid(weights: Tensor, fraction: np.ndarray, bits: int, columns: np.ndarray = ONE_SCALE) -> RoundedMatrix:
    """Weights rounded half to even, where they saturate with a gradient that passes straight through."""
    rounded = to_even(weights, fraction[:, None] - columns)
    most = ((1 << (bits - 1)) - 1) * unit_of(fraction[:, None] - columns).to(weights.device)
    beyond = (rounded - rounded.clamp(-most, most)).detach()
    return RoundedMatrix(rounded - beyond, fraction, bits, columns)


def _least_error(weights: Tensor, bits: int, first: int) -> int:
    """The fraction for all rows whose squared error is the least, of the one that clips nothing and finer ones."""
    if not weights.any():
        return first
    fractions = [first + k for k in range(FINER)]
    grids = [_on_grid(weights, np.full(len(weights), fraction), bits).numbers for fraction in fractions]
    errors = [float((grid - weights).square().sum()) for grid in grids]
    return fractions[int(np.argmin(errors))]
