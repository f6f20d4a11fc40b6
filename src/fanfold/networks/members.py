"""Several networks of one form side by side, each with weights of its own, at the cost of few large products."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.networks.layers import started


class Members(nn.Module, ABC):
    """Networks side by side, whose weights can be taken over one by one.

    Example:
        >>> from fanfold.networks import Members, StackedMLP
        >>> issubclass(StackedMLP, Members)
        True
    """

    of_matrices: ClassVar[bool] = False  # every parameter of more than one row and column is a stack of matrices

    @abstractmethod
    def noisy(self, z: Tensor) -> Tensor:
        """What they say as they are trained, with entries left out by chance from torch's global generator, if any."""

    @abstractmethod
    def apart(self, z: Tensor) -> Tensor:
        """What each says of an input of its own, `(members, batch, ...)` -> `(members, batch, outputs)`."""

    def cost(self) -> int:
        """The number of weights that an answer multiplies by."""
        return sum(p.numel() for p in self.parameters())

    @staticmethod
    @abstractmethod
    def take(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        """Copy the weights of some members, `which` of `(members,)`, in place."""


class Stacked(Members):
    """Networks whose weights are stacked in front, so that inputs of their own cost what one input for all does.

    Example:
        >>> from fanfold.networks.members import Stacked
        >>> Stacked.of_matrices
        True
    """

    of_matrices: ClassVar[bool] = True

    def noisy(self, z: Tensor) -> Tensor:
        return self(z)

    def apart(self, z: Tensor) -> Tensor:
        return self(z)

    @staticmethod
    def take(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        for name, weight in weights.items():
            into[name][which] = weight[which]


class StackedLinear(nn.Module):
    """Layers of a matrix and a bias side by side, not started.

    Args:
        members: The number of layers.
        inputs: The number of entries that go in.
        outputs: The number of entries that come out.
        device: Where the weights are; "meta" for their shapes alone.

    Example:
        >>> import torch
        >>> from fanfold.networks.members import StackedLinear
        >>> StackedLinear(3, 4, 2)(torch.ones(7, 4)).shape
        torch.Size([3, 7, 2])
    """

    def __init__(self, members: int, inputs: int, outputs: int, device: torch.device | str | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs, device=device))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs, device=device))

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` or `(members, batch, inputs)` -> `(members, batch, outputs)`."""
        return torch.baddbmm(self.bias, z.expand(len(self.weight), *z.shape[-2:]), self.weight)


def stacked_linear(members: int, inputs: int, outputs: int, generator: torch.Generator | None) -> StackedLinear:
    """Layers whose weights come from a generator; at zero without one."""
    layer = nn.utils.skip_init(StackedLinear, members, inputs, outputs)
    assert isinstance(layer, StackedLinear)
    started(layer, inputs, generator)
    return layer


class StackedMLP(Stacked):
    """Residual perceptrons, z ← z + W₂ σ(W₁ z), whose weights are stacked in front. He, Zhang, Ren & Sun (2016), eq. 1.

    Args:
        members: The number of perceptrons.
        inputs: The number of entries of a vector.
        outputs: The number of entries of each result.
        width: The number of entries between.
        depth: The number of residual layers, z ← z + σ(W z).
        seed: The seed of the starting weights.
        dropout: The share of entries between that `noisy` leaves out (Srivastava et al., 2014).

    Example:
        >>> import torch
        >>> from fanfold.networks import StackedMLP
        >>> StackedMLP(members=5, inputs=8, outputs=3)(torch.ones(7, 8)).shape
        torch.Size([5, 7, 3])
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        width: int = 64,
        depth: int = 5,
        seed: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dropout, self.count = dropout, members
        if min(members, inputs, outputs, width, depth) < 1:
            raise ValueError(f"{members} perceptrons {inputs} -> {width} x {depth} -> {outputs}; pass positive sizes.")
        generator = torch.Generator().manual_seed(seed)
        sizes = [inputs] + [width] * (depth + 1)
        between = [stacked_linear(members, *pair, generator) for pair in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList([*between, stacked_linear(members, width, outputs, None)])

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` -> `(members, batch, outputs)`, all zero before training."""
        return self._through(z, 0.0)

    def noisy(self, z: Tensor) -> Tensor:
        return self._through(z, self.dropout)

    def _through(self, z: Tensor, dropout: float) -> Tensor:
        first, *between, last = self.layers
        z = functional.silu(first(z))
        for layer in between:
            step = functional.silu(layer(z))
            z = z + (functional.dropout(step, dropout) if dropout else step)
        return last(z)


class SideBySide(Members):
    """Networks of any form side by side.

    Args:
        members: The number of networks.
        make: What makes one of a seed.
        seed: The seed of the first; those of the others stay apart from the seeds of its parts.

    Example:
        >>> import torch
        >>> from fanfold.networks import DeepSet, SideBySide
        >>> SideBySide(2, lambda seed: DeepSet(4, 3, seed=seed))(torch.ones(7, 100, 4)).shape
        torch.Size([2, 7, 3])
    """

    def __init__(self, members: int, make: Callable[[int], nn.Module], seed: int = 0):
        super().__init__()
        self.each = nn.ModuleList(make(seed + 1000 * i) for i in range(members))

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, ...)` -> `(members, batch, outputs)`."""
        return torch.stack([member(z) for member in self.each])

    def noisy(self, z: Tensor) -> Tensor:
        return self(z)

    def apart(self, z: Tensor) -> Tensor:
        return torch.stack([member(part) for member, part in zip(self.each, z, strict=True)])

    @staticmethod
    def take(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        for name, weight in weights.items():
            if which[int(name.split(".")[1])]:
                into[name].copy_(weight)
