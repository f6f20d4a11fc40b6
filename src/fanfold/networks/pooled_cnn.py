"""Convolutions that halve a sequence or picture again and again, then a perceptron. LeCun et al. (1998), fig. 2."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import conv, conv1
from fanfold.networks.residual_mlp import ResidualMLP


class PooledCNN(nn.Module):
    """A residual CNN that halves its input and widens, and a perceptron on what is left, which sees every place.

    Args:
        shape: `(channels, length)` of a sequence or `(channels, height, width)` of a picture.
        outputs: The number of entries of the result.
        width: The number of channels of the first level; they double up to four times that.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import PooledCNN
        >>> PooledCNN((2, 64), outputs=3)(torch.ones(5, 2, 64)).shape
        torch.Size([5, 3])
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int = 24, seed: int = 0):
        super().__init__()
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a CNN on {shape}; pass (channels, length) or (channels, height, width).")
        layer, size = (conv1, 5) if len(shape) == 2 else (conv, 3)
        generator = torch.Generator().manual_seed(seed)
        sides, before, levels, widen = [*shape[1:]], shape[0], [], width
        while min(sides) > 4 or not levels:
            halve = 2 if min(sides) > 4 else 1
            down, keep = layer(before, widen, size, generator, halve), layer(widen, widen, size, generator)
            levels.append(nn.ModuleList([down, keep]))
            sides = [-(-side // halve) for side in sides]
            before, widen = widen, min(2 * widen, 4 * width)
        self.levels = nn.ModuleList(levels)
        self.head = ResidualMLP(before * math.prod(sides), outputs, depth=1, seed=seed + 1)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, *shape)` -> `(batch, outputs)`, all zero before training."""
        for level in self.levels:
            down, keep = level.children()
            z = functional.silu(down(z))
            z = z + functional.silu(keep(z))
        return self.head(z.flatten(1))
