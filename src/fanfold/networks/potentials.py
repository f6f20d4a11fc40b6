"""Networks that are gradients: what comes out is the slope of one number with respect to what goes in."""

import itertools

import torch
from torch import Tensor, nn

from fanfold.networks.layers import silu_with_slope
from fanfold.networks.members import Stacked, StackedLinear, stacked_linear


class StackedPotentials(Stacked):
    """Gradients of potentials `φ(z) = aᵀ σ(W_D … σ(W_1 z + b_1) … + b_D)` side by side, by the chain rule written out.

    The Jacobian of a gradient is symmetric: half as much is free as in a map of as many numbers to as many. σ is SiLU,
    whose slope is smooth.

    Args:
        members: The number of potentials.
        inputs: The number of entries of a vector, and of its gradient.
        width: The number of entries between.
        depth: The number of layers.
        seed: The seed of the starting weights.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> import torch
        >>> from fanfold.networks import StackedPotentials
        >>> StackedPotentials(members=5, inputs=8)(torch.ones(7, 8)).shape
        torch.Size([5, 7, 8])
    """

    def __init__(self, members: int, inputs: int, width: int = 64, depth: int = 4, seed: int = 0):
        super().__init__()
        if min(members, inputs, width, depth) < 1:
            raise ValueError(f"{members} potentials of {inputs} -> {width} x {depth}; pass positive sizes.")
        generator = torch.Generator().manual_seed(seed)
        sizes = [inputs] + [width] * depth
        self.layers = nn.ModuleList(stacked_linear(members, *pair, generator) for pair in itertools.pairwise(sizes))
        self.slope = nn.Parameter(torch.zeros(members, 1, width))  # a, zero as the gradient is before training

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` -> `(members, batch, inputs)`, all zero before training."""
        slopes = []
        for layer in self.layers:
            z, slope = silu_with_slope(layer(z))
            slopes.append(slope)
        back = self.slope
        for layer, slope in zip(reversed(self.layers), reversed(slopes)):
            assert isinstance(layer, StackedLinear)
            back = (back * slope) @ layer.weight.mT
        return back
