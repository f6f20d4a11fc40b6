"""A perceptron with residual blocks for vectors. He, Zhang, Ren & Sun (2016), eq. 1: z ← z + W₂ σ(W₁ z)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import linear


class ResidualMLP(nn.Module):
    """A perceptron of residual blocks between two matrices, the last of which starts at zero.

    Args:
        inputs: The number of entries of a vector.
        outputs: The number of entries of the result.
        width: The number of entries between.
        depth: The number of residual blocks.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import ResidualMLP
        >>> ResidualMLP(inputs=8, outputs=3)(torch.ones(5, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 128, depth: int = 3, seed: int = 0):
        super().__init__()
        if min(inputs, outputs, width, depth) < 1:
            raise ValueError(f"a perceptron {inputs} -> {width} x {depth} -> {outputs}; pass positive sizes.")
        generator = torch.Generator().manual_seed(seed)
        self.first = linear(inputs, width, generator)
        self.inner = nn.ModuleList(linear(width, width, generator) for _ in range(depth))
        self.outer = nn.ModuleList(linear(width, width, None) for _ in range(depth))  # a block starts as the identity
        self.last = linear(width, outputs, None)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` -> `(batch, outputs)`, all zero before training."""
        z = self.first(z)
        for inner, outer in zip(self.inner, self.outer):
            z = z + outer(functional.silu(inner(z)))
        return self.last(z)
