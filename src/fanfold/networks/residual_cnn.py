"""A residual CNN denoiser. Zhang, Zuo, Chen, Meng & Zhang (2017), "DnCNN", section III, without batch norm."""

import torch
from torch import Tensor, nn

from fanfold.networks.layers import conv, zero_conv


class ResidualCNN(nn.Module):
    """A CNN that corrects an estimate: 3 x 3 convolutions with rectifiers between them, the last zero at first.

    Args:
        inputs: The number of channels of the picture that it sees.
        outputs: The number of channels of the correction.
        width: The number of channels between.
        depth: The number of convolutions, two or more.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import ResidualCNN
        >>> ResidualCNN(inputs=2, outputs=1)(torch.ones(5, 2, 16, 16)).abs().max().item()
        0.0
    """

    def __init__(self, inputs: int, outputs: int, width: int = 24, depth: int = 4, seed: int = 0):
        super().__init__()
        if min(inputs, outputs, width) < 1 or depth < 2:
            raise ValueError(f"a CNN of {inputs}, {width} and {outputs} channels and depth {depth}; take depth >= 2.")
        generator = torch.Generator().manual_seed(seed)
        parts: list[nn.Module] = []
        for layer in range(depth - 1):
            parts += [conv(width if layer else inputs, width, 3, generator), nn.ReLU()]
        self.layers = nn.Sequential(*parts, zero_conv(width, outputs, 3))

    def forward(self, picture: Tensor) -> Tensor:
        """`(batch, inputs, h, w)` -> `(batch, outputs, h, w)`, all zero before training."""
        return self.layers(picture)
