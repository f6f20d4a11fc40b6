"""Networks of the squared error: free ones, or gradients where the posterior mean is one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.pairing import paired
from fanfold.networks import StackedMLP, StackedPotentials
from fanfold.networks.members import Stacked

DEPTH = 6  # layers of a potential, through which there and back


class SquaredErrorNetworks(Stacked):
    """Deviations of the posterior mean from the linear estimate: of free networks, or of gradients.

    Both have the same members, and one of them learns and answers. A gradient is of statistics `R Cᵀ z` (`pairing`),
    whose C every member corrects, with a linear part of its own.

    Args:
        m: The number of features that are linear in y.
        d: The number of parameters.
        free: Free networks `(batch, inputs)` -> `(members, batch, 2 d)`; the second half of what they say is not asked.
        width: The number of entries of a layer.
        seed: The seed of the starting weights.
        decay: Share of the weight decay that is of gradients.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.squared_error import SquaredErrorNetworks
        >>> from fanfold.networks import StackedMLP
        >>> networks = SquaredErrorNetworks(3, 2, StackedMLP(5, 3, 4), width=16, seed=0)
        >>> networks(torch.ones(7, 3)).shape, networks.of_gradients
        (torch.Size([5, 7, 4]), False)
    """

    C: Tensor
    back: Tensor
    holds: Tensor

    def __init__(self, m: int, d: int, free: StackedMLP, width: int, seed: int, decay: float = 1.0):
        super().__init__()
        self.m, self.d, self.free, self.decay = m, d, free, decay
        members = free.count
        self.potentials = StackedPotentials(members, d, width, DEPTH, seed)
        self.register_buffer("C", torch.zeros(m, d))  # statistics of unit variance
        self.register_buffer("back", torch.zeros(d, d))  # from a gradient with respect to them to deviations
        self.register_buffer("holds", torch.zeros((), dtype=torch.bool))
        # one row each: an optimiser of matrices takes them for vectors, entry by entry
        self.correction = nn.Parameter(torch.zeros(members, 1, m * d))
        self.linear = nn.Parameter(torch.zeros(members, 1, m * d))
        self.shift = nn.Parameter(torch.zeros(members, 1, d))
        self.of_gradients = False

    @torch.no_grad()
    def prepare(self, z: Tensor, x: Tensor, unit: Tensor) -> None:
        """Tell from features `(samples, m)` and parameters `(samples, d)` which of both to take.

        Args:
            z: Features.
            x: Real parameters.
            unit: Of deviations, `(d,)`.
        """
        pairing = paired(z[:, : self.m], x)
        self.holds.fill_(pairing.holds)
        if pairing.holds:
            spread = pairing.statistics(z[:, : self.m].double()).std(0)
            self.C.copy_(pairing.C @ pairing.R / spread)
            self.back.copy_(pairing.R / spread[:, None] / unit)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch, inputs)` or `(members, batch, inputs)` -> `(members, batch, 2 d)`, zero before training."""
        if not self._takes_gradients():
            return self.free(z)
        return self._gradients(z)

    def noisy(self, z: Tensor) -> Tensor:
        return self._gradients(z) if self._takes_gradients() else self.free.noisy(z)

    def cost(self) -> int:
        """The number of weights that an answer multiplies by."""
        if not self._takes_gradients():
            return self.free.cost()
        return 2 * self.potentials.cost() + self.correction.numel() + self.linear.numel()

    def decayed(self) -> list[tuple[list[nn.Parameter], float]]:
        plain = [self.correction, self.linear, self.shift]
        return [([*self.free.parameters()], 1.0), ([*self.potentials.parameters()], self.decay), (plain, 0.0)]

    def _takes_gradients(self) -> bool:
        if not torch.compiler.is_compiling():  # what is traced was called before
            self.of_gradients = bool(self.holds)
        return self.of_gradients

    def _gradients(self, z: Tensor) -> Tensor:
        z = z[..., : self.m].expand(len(self.shift), *z.shape[-2:-1], self.m)
        C, linear = (part.unflatten(-1, (self.m, self.d)).squeeze(1) for part in (self.correction, self.linear))
        slope = self.potentials(z @ (self.C + C)) @ self.back
        said = slope + torch.baddbmm(self.shift, z, linear)
        return torch.cat([said, torch.zeros_like(said)], -1)

    @staticmethod
    def take(into: Mapping[str, Tensor], weights: Mapping[str, Tensor], which: Tensor) -> None:
        shared = ("C", "back", "holds")  # of all members
        Stacked.take(into, {name: weight for name, weight in weights.items() if name not in shared}, which)
