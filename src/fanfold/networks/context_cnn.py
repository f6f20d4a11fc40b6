"""A CNN that sees a voxel's neighbours and not the voxel. Krull, Buchholz & Jug (2019), "Noise2Void", section 3.2."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import conv, zero_conv


class ContextCNN(nn.Module):
    """A CNN that sees a voxel's neighbours: a convolution without its centre, then 1 x 1 ones, the last zero at first.

    As the voxel's own value never enters, the derivative of the output with respect to it is zero, whatever is learned.

    Args:
        inputs: The number of channels of the picture that it sees.
        outputs: The number of channels that it gives.
        width: The number of channels between.
        reach: How many voxels away a neighbour may be, on each axis.
        depth: The number of convolutions of 1 x 1, one or more.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import ContextCNN
        >>> ContextCNN(inputs=2, outputs=1)(torch.ones(5, 2, 16, 16)).shape
        torch.Size([5, 1, 16, 16])
    """

    centreless: Tensor

    def __init__(self, inputs: int, outputs: int, width: int = 24, reach: int = 4, depth: int = 3, seed: int = 0):
        super().__init__()
        if min(inputs, outputs, width, reach, depth) < 1:
            raise ValueError(
                f"a CNN of {inputs}, {width} and {outputs} channels, reach {reach} and depth {depth}; pass at least 1."
            )
        generator = torch.Generator().manual_seed(seed)
        side = 2 * reach + 1
        self.around = conv(inputs, width, side, generator)
        mask = torch.ones(side, side)
        mask[reach, reach] = 0
        self.register_buffer("centreless", mask, persistent=False)
        parts: list[nn.Module] = [nn.ReLU()]
        for _ in range(depth - 1):
            parts += [conv(width, width, 1, generator), nn.ReLU()]
        self.mix = nn.Sequential(*parts, zero_conv(width, outputs, 1))

    def forward(self, picture: Tensor) -> Tensor:
        """`(batch, inputs, h, w)` -> `(batch, outputs, h, w)`, all zero before training."""
        weight = self.around.weight * self.centreless
        return self.mix(functional.conv2d(picture, weight, self.around.bias, padding="same"))
