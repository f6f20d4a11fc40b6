"""U-Net. Ronneberger, Fischer & Brox (2015), figure 1, with padding; a residual to its input as Jin et al. (2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import conv, zero_conv


class UNet(nn.Module):
    """A U-Net halves the picture and doubles the channels `levels` times, comes back, and joins each level's input.

    The output is added to the first `outputs` channels of the input, and is zero before training.

    Args:
        inputs: The number of channels of the picture.
        outputs: The number of channels of the result, at most `inputs`.
        width: The number of channels of the first level.
        levels: How often the picture is halved; its sides are multiples of `2**levels`.
        groups: The number of groups of group norm (Wu & He, 2018) after each convolution; 0 leaves it out.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import UNet
        >>> picture = torch.rand(5, 2, 16, 16)
        >>> torch.equal(UNet()(picture), picture)
        True
    """

    def __init__(
        self, inputs: int = 2, outputs: int = 2, width: int = 32, levels: int = 2, groups: int = 8, seed: int = 0
    ):
        super().__init__()
        if not 0 < outputs <= inputs or min(width, levels) < 1 or (groups and width % groups):
            raise ValueError(
                f"a U-Net from {inputs} to {outputs} channels, width {width} in {groups} groups, {levels} levels: "
                "outputs are at most inputs and groups divide the width."
            )
        generator = torch.Generator().manual_seed(seed)

        def block(before: int, after: int) -> nn.Sequential:
            parts: list[nn.Module] = []
            for channels in (before, after):
                parts += [conv(channels, after, 3, generator)]
                parts += [nn.GroupNorm(groups, after)] if groups else []
                parts += [nn.ReLU()]
            return nn.Sequential(*parts)

        widths = [width * 2**level for level in range(levels + 1)]
        self.outputs = outputs
        self.down = nn.ModuleList(block(a, b) for a, b in zip([inputs, *widths], widths))
        self.up = nn.ModuleList(block(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1]))
        self.last = zero_conv(width, outputs, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """`(batch, inputs, h, w)` -> `(batch, outputs, h, w)`."""
        levels = []
        z = picture
        for depth, block in enumerate(self.down):
            z = block(functional.avg_pool2d(z, 2) if depth else z)
            levels.append(z)
        for block, beside in zip(self.up, levels[-2::-1]):
            z = block(torch.cat([beside, functional.interpolate(z, scale_factor=2.0, mode="nearest")], 1))
        return picture[:, : self.outputs] + self.last(z)
