"""Where a quantity lives, and so how a learned deviation moves it: the one idea, in one table."""

from enum import Enum

import torch
from torch import Tensor


class Domain(Enum):
    """Where a quantity lives, and how a deviation d moves its value v; d = 0 leaves v bit for bit.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.algorithms.POSITIVE.deviate(torch.tensor(2.0), torch.tensor(0.0))
        tensor(2.)
    """

    POSITIVE = "v * exp(d)"
    UNIT = "v ** exp(d)"
    FREE = "v + d"

    def deviate(self, v: Tensor, d: Tensor) -> Tensor:
        """The value `v` moved by the deviation `d`; the two broadcast."""
        if self is Domain.POSITIVE:
            return v * torch.exp(d)
        if self is Domain.UNIT:
            return v ** torch.exp(d)
        return v + d


POSITIVE, UNIT, FREE = Domain
