"""Pilots: which resource elements of a slot carry known symbols."""

import torch
from torch import Tensor


def pilot_mask(pilots: str, symbols: int, subcarriers: int) -> Tensor:
    """Where the pilots are: `(symbols, subcarriers)`, boolean.

    Raises:
        ValueError: If the pattern is unknown.
    """
    kind, _, spacing = pilots.partition("-")
    if kind != "comb" or not spacing.isdigit() or int(spacing) < 1:
        raise ValueError(f"unknown pilots {pilots!r}; pass comb-2, comb-4, …")
    mask = torch.zeros(symbols, subcarriers, dtype=torch.bool)
    mask[0, :: int(spacing)] = True
    return mask
