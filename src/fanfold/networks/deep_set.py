"""Sets of i.i.d. observations. Zaheer et al. (2017), theorem 2: ρ(Σ φ(y_i)); pooled by attention, Lee et al. (2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import linear
from fanfold.networks.residual_mlp import ResidualMLP


class DeepSet(nn.Module):
    """Each observation becomes a vector; their mean and an attention-weighted mean go through a perceptron.

    The result does not depend on the order, and any number of observations will do, though the mean forgets how many
    there were: train on sets of the size that is asked about.

    Args:
        features: The number of entries of one observation.
        outputs: The number of entries of the result.
        width: The number of entries of the vector that an observation becomes.
        heads: The number of weighted means.
        seed: The seed of the starting weights.

    Example:
        >>> import torch
        >>> from fanfold.networks import DeepSet
        >>> DeepSet(features=4, outputs=2)(torch.ones(5, 100, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(self, features: int, outputs: int, width: int = 96, heads: int = 4, seed: int = 0):
        super().__init__()
        if min(features, outputs, width, heads) < 1:
            raise ValueError(f"a set network {features} -> {width} x {heads} heads -> {outputs}; pass positive sizes.")
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = linear(features, width, generator), linear(width, width, generator)
        self.weigh = linear(width, heads, None)  # every observation counts the same before training
        self.head = ResidualMLP((1 + heads) * width, outputs, seed=seed + 1)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, count, features)` -> `(batch, outputs)`, all zero before training."""
        z = self.second(functional.silu(self.first(z)))
        weights = torch.softmax(self.weigh(z), -2)  # (batch, count, heads)
        means = torch.cat([z.mean(-2, keepdim=True), weights.mT @ z], -2)
        return self.head(means.flatten(-2))
