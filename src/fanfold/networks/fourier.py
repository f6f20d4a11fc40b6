"""Perceptrons that are also shown sines of what goes in, so that they learn what oscillates, with their slopes."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import silu_with_slope
from fanfold.networks.members import Stacked, StackedLinear, stacked_linear


class StackedFourier(Stacked):
    """Residual perceptrons of z and of `sin(W z + b)`, side by side; W and b are learned with the rest.

    Tancik et al. (2020), "Fourier features let networks learn high frequency functions in low dimensional domains".

    Args:
        members: The number of perceptrons.
        inputs: The number of entries of a vector, of about unit variance.
        outputs: The number of entries of each result.
        width: The number of entries between.
        depth: The number of residual layers, z ← z + σ(W z).
        waves: The number of sines.
        frequencies: The standard deviations of the entries of W at the start, of the slowest and the fastest sine, in
            radians for a unit of an entry; those between are spread evenly in their logarithm.
        seed: The seed of the starting weights.

    Raises:
        ValueError: If a number is not positive, or the first frequency above the second.

    Example:
        >>> import torch
        >>> from fanfold.networks import StackedFourier
        >>> network = StackedFourier(members=2, inputs=4, outputs=3)
        >>> value, slopes = network.linearised(torch.zeros(2, 7, 4))
        >>> value.shape, slopes.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 7, 4, 3]))
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        width: int = 64,
        depth: int = 3,
        waves: int = 64,
        frequencies: tuple[float, float] = (0.25, 4.0),
        seed: int = 0,
    ):
        super().__init__()
        if min(members, inputs, outputs, width, depth, waves) < 1 or not 0 < frequencies[0] <= frequencies[1]:
            raise ValueError(
                f"{members} perceptrons {inputs} -> {width} x {depth} -> {outputs} with {waves} waves of frequencies "
                f"{frequencies}; pass positive numbers, the slowest first."
            )
        self.inputs = inputs
        generator = torch.Generator().manual_seed(seed)
        self.waves = stacked_linear(members, inputs, waves, generator)
        with torch.no_grad():
            slowest, fastest = frequencies
            spread = torch.logspace(math.log10(slowest), math.log10(fastest), waves)
            self.waves.weight.normal_(generator=generator).mul_(spread)
            self.waves.bias.uniform_(-math.pi, math.pi, generator=generator)
        sizes = [inputs + waves] + [width] * (depth + 1)
        self.layers = nn.ModuleList(stacked_linear(members, *pair, generator) for pair in itertools.pairwise(sizes))
        self.last = stacked_linear(members, width, outputs, None)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` or `(members, batch, inputs)` -> `(members, batch, outputs)`, all zero before training."""
        z = z.expand(len(self.last.weight), *z.shape[-2:])
        first, *between = self.layers
        z = functional.silu(first(torch.cat([z, torch.sin(self.waves(z))], -1)))
        for layer in between:
            z = z + functional.silu(layer(z))
        return self.last(z)

    def linearised(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of `(members, batch, inputs)`, and its slopes, `(members, batch, inputs, outputs)`."""
        phase = self.waves(z)
        weights = self.waves.weight.unsqueeze(1)  # (members, 1, inputs, waves): slopes go along in front of it
        along = torch.eye(self.inputs, dtype=z.dtype, device=z.device).expand(*z.shape, self.inputs)
        slopes = torch.cat([along, torch.cos(phase).unsqueeze(-2) * weights], -1)
        z = torch.cat([z, torch.sin(phase)], -1)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, StackedLinear)
            step, slope = silu_with_slope(layer(z))
            steps = slope.unsqueeze(-2) * (slopes @ layer.weight.unsqueeze(1))
            z, slopes = (z + step, slopes + steps) if i else (step, steps)
        return self.last(z), slopes @ self.last.weight.unsqueeze(1)
