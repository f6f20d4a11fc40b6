"""Which unknowns an operator sees, and what that means for averages over them and for variances."""

from dataclasses import dataclass

import torch
from torch import Tensor

UNINFORMED = 1e7  # variance, relative to the power of x, of the noise in which an unknown is seen that nothing sees


@dataclass(frozen=True)
class Seen:
    """Which unknowns leave a trace in the measurements; the others keep what was known of them before.

    Attributes:
        count: How many are seen: a number, or `(batch, 1)` where samples differ.
        mask: Whether each is seen, `(n,)` or `(batch, n)`; None where all are.

    Example:
        >>> import fanfold as ff, torch
        >>> seen = ff.linops.Dense(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).seen()
        >>> seen.count, seen.mask.tolist()
        (1, [True, False])
    """

    count: int | Tensor
    mask: Tensor | None = None

    @classmethod
    def of(cls, gram_diagonal: Tensor) -> "Seen":
        """The unknowns whose columns, of these squared norms, are longer than rounding of the longest."""
        longest = gram_diagonal.amax(-1, keepdim=True)
        mask = gram_diagonal > torch.finfo(gram_diagonal.dtype).eps ** 2 * longest
        if mask.all():
            return cls(mask.shape[-1])
        count = mask.sum(-1, keepdim=True)
        return cls(int(count) if mask.ndim == 1 else count.to(gram_diagonal.dtype), mask)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the unknowns that are seen, `(..., 1)`."""
        if self.mask is None:
            return values.mean(-1, keepdim=True)
        return torch.where(self.mask, values, 0).sum(-1, keepdim=True) / self.count

    def only(self, values: Tensor, others: Tensor | float) -> Tensor:
        """The values `(..., n)` of the unknowns that are seen, and `others` in place of the rest."""
        return values if self.mask is None else torch.where(self.mask, values, others)

    def noise(self, v: Tensor, power: float) -> Tensor:
        """The variance v of the noise in which unknowns of this power are seen, next to infinite where nothing is."""
        return self.only(v, UNINFORMED * power)
