"""Circular Gaussian noise: `E|w|² = noise_var`, real or complex, everywhere in fanfold.

A complex sample has independent real and imaginary parts of variance `noise_var / 2` each.
"""

import torch
from torch import Tensor

__all__ = ["circular"]


def circular(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32, var: float | Tensor = 1.0
) -> Tensor:
    """White Gaussian noise of variance `E|w|² = var`.

    Args:
        shape: The shape of the draw.
        generator: The source of randomness; the draw is made on its device.
        dtype: A floating or complex dtype.
        var: The variance, a number or a tensor that broadcasts against `shape`.
    """
    unit = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    return unit * var**0.5


def __dir__() -> list[str]:
    return __all__
