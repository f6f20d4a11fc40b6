"""A CNN along a bank of matched filters: what it says of each bin is a correction to what the filters say alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import conv1, started


class SpectrumCNN(nn.Module):
    """A CNN of residual convolutions along the bins; the last starts at zero.

    Args:
        inputs: The number of channels of its input.
        outputs: The number of channels of its output.
        width: The number of channels between.
        depth: The number of residual convolutions.
        size: The number of bins that a convolution sees, odd.
        seed: The seed of the starting weights.

    Raises:
        ValueError: If a size is not positive, or that of the convolutions even.

    Example:
        >>> import torch
        >>> from fanfold.networks import SpectrumCNN
        >>> SpectrumCNN(inputs=2, outputs=1)(torch.ones(5, 2, 64)).shape
        torch.Size([5, 1, 64])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 24, depth: int = 3, size: int = 5, seed: int = 0):
        super().__init__()
        if min(inputs, outputs, width, depth, size) < 1 or size % 2 == 0:
            raise ValueError(f"width {width}, depth {depth}, size {size}: they are at least 1, and size is odd.")
        generator = torch.Generator().manual_seed(seed)
        self.first = conv1(inputs, width, size, generator)
        self.blocks = nn.ModuleList(conv1(width, width, size, generator) for _ in range(depth))
        last = nn.utils.skip_init(nn.Conv1d, width, outputs, 1)
        self.last = started(last, width, None)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs, bins)` -> `(batch, outputs, bins)`, all zero before training."""
        z = functional.silu(self.first(z))
        for block in self.blocks:
            z = z + functional.silu(block(z))
        return self.last(z)
