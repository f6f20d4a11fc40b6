"""A mask: only some entries are measured."""

import torch
from jaxtyping import Int
from torch import Tensor

from fanfold.linops.base import SVD, LinearOperator


class Mask(LinearOperator):
    """The mask that keeps the entries `x[..., index]`, in that order.

    Args:
        index: Distinct positions in `0 … n - 1`, shape `(m,)`.
        n: The number of unknowns.
        dtype: The dtype of the signals.
        device: The device of the index.

    Raises:
        ValueError: If an index is repeated or out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.linops.Mask(torch.tensor([2, 0]), n=3) @ torch.tensor([1.0, 2.0, 3.0])
        tensor([3., 1.])
    """

    def __init__(
        self,
        index: Int[Tensor, "m"],
        n: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        if index.ndim != 1 or len(index) == 0 or index.min() < 0 or index.max() >= n:
            raise ValueError(f"a mask takes positions between 0 and {n - 1}, shape (m,) and at least one of them.")
        if len(index.unique()) != len(index):
            raise ValueError("a mask takes each position once; remove the repeated ones.")
        super().__init__((len(index), n), dtype, device or index.device)
        self._index = index.to(self.device)

    def _apply(self, x):
        return x[..., self._index]

    def _adjoint(self, y):
        return y.new_zeros((*y.shape[:-1], self.n)).index_copy(-1, self._index, y)

    def _svd(self):
        same = Mask(torch.arange(self.m, device=self.device), self.m, self.dtype)
        return SVD(same, torch.ones(self.m, dtype=self.dtype.to_real(), device=self.device), self.H)

    def _norm(self):
        return 1.0

    def _gram_diagonal(self):
        return torch.zeros(self.n, dtype=self.dtype.to_real(), device=self.device).index_fill(0, self._index, 1)

    def parts(self):
        return (self._index.long(),)

    def to(self, device=None, dtype=None):
        return Mask(self._index, self.n, dtype or self.dtype, device or self.device)
