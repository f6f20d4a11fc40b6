"""Which fold a draw belongs to, told from its numbers alone: no draw needs a name, and equal ones stay together."""

import torch
from torch import Tensor

ODD = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9)  # multipliers as in splitmix64 (Steele, Lea & Flood, 2014), below 2^62
MOST_ENTRIES = 8  # of y that are looked at


def fold_of(x: Tensor, y: Tensor, folds: int) -> Tensor:
    """The fold of each pair, `(samples,)`, from 0 to `folds - 1`: each as likely, whatever the law of the pairs.

    Args:
        x: Parameters `(samples, d)`, real.
        y: Measurements `(samples, ...)`, real or complex.
        folds: The number of folds.
    """
    y = torch.view_as_real(y) if y.is_complex() else y
    numbers = torch.cat([x.double(), y.flatten(1)[:, :MOST_ENTRIES].double()], 1).contiguous().view(torch.int64)
    factors = ODD[0] * torch.arange(1, 2 * numbers.shape[1], 2, device=x.device)  # wraps around, as all of this
    mixed = ((numbers ^ (numbers >> 32)) * factors).sum(1)
    for odd in ODD:
        mixed = (mixed ^ (mixed >> 31)) * odd
    return (mixed ^ (mixed >> 29)).remainder(folds)
