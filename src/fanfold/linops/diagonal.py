"""A diagonal matrix as an operator."""

import torch
from jaxtyping import Inexact
from torch import Tensor

from fanfold.linops.base import SVD, LinearOperator
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.mask import Mask


class Diagonal(LinearOperator):
    """A diagonal matrix: `d * x`, elementwise, for `d` of shape `(n,)`.

    Raises:
        ValueError: If `d` is not a vector, is empty, or holds NaN or Inf.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.linops.Diagonal(torch.tensor([1.0, 2.0])) @ torch.tensor([3.0, 4.0])
        tensor([3., 8.])
    """

    def __init__(self, d: Inexact[Tensor, "n"]):
        if d.ndim != 1 or len(d) == 0:
            raise ValueError(f"a diagonal operator takes a vector of shape (n,), not {tuple(d.shape)}.")
        refuse_non_finite(d)
        super().__init__((len(d), len(d)), d.dtype, d.device)
        self._d = d

    def _apply(self, x):
        return self._d * x

    def _adjoint(self, y):
        return self._d.conj() * y

    def _svd(self):
        s, order = self._d.abs().sort(descending=True)
        phase = torch.where(self._d == 0, 1, torch.sgn(self._d)).to(self.dtype)
        V = Mask(order, self.n, self.dtype, self.device).H  # picks the entries in the order of their size
        return SVD(Diagonal(phase) @ V, s, V)

    def _norm(self):
        return self._d.abs().max().item()

    def _gram_diagonal(self):
        return self._d.abs().square()

    def ranks(self):
        rank = int((self._d != 0).sum())
        yield f"{self}", rank, rank  # zeros are its structure

    def parts(self):
        return (self._d,)

    def to(self, device=None, dtype=None):
        return Diagonal(self._d.to(device or self.device, dtype or self.dtype))
