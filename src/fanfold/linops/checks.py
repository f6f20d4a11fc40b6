"""Checks of what an operator is made of."""

import torch
from torch import Tensor


def refuse_non_finite(entries: Tensor, what: str = "the operator") -> None:
    """Refuse NaN and Inf in what defines an operator.

    Raises:
        ValueError: Names the first bad entry.
    """
    bad = (~torch.isfinite(entries)).nonzero()
    if len(bad):
        raise ValueError(f"{what} is not finite: its first bad entry is at {tuple(bad[0].tolist())}.")
