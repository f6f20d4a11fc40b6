"""The uniformly quantised likelihood. Kamilov, Goyal & Rangan (2012), section III."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.truncated import truncated_gaussian
from fanfold.likelihoods.base import Likelihood
from fanfold.likelihoods.one_bit import spread


@dataclass(frozen=True)
class Quantised(Likelihood):
    """The middle `y = Q(z + w)` of one of `2^bits` cells of width `step`, symmetric about 0, the outer ones open.

    Of a complex signal each axis is quantised.

    Raises:
        ValueError: If `bits` is not from 1 to 20 or `step` not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.likelihoods.Quantised(bits=2, step=1.0).sample(torch.tensor([0.2, -9.0]), torch.Generator()).tolist()
        [0.5, -1.5]
    """

    bits: int = 3  # resolution: there are 2^bits cells
    step: float = 0.25  # width of a cell; 0.59 standard deviations of z is best at 3 bits, 1.0 at 2, 0.34 at 4

    def __post_init__(self):
        if not 1 <= self.bits <= 20:
            raise ValueError(f"bits is {self.bits}; pass 1 to 20.")
        if not 0 < self.step < math.inf:
            raise ValueError(f"step is {self.step}; pass the positive width of a cell.")

    @property
    def top(self) -> float:
        """The middle of the highest cell."""
        return (2**self.bits - 1) * self.step / 2

    @property
    def outcomes(self):
        return [k * self.step - self.top for k in range(2**self.bits)] if self.bits <= 8 else None

    @property
    def alphabet(self):
        cells, middle = 2**self.bits, (2**self.bits - 1) / 2
        return (
            f"the middles of {cells} cells of width {self.step:g}, from {-self.top:g} to {self.top:g}; of codes 0 to "
            f"{cells - 1} pass (code - {middle:g}) * {self.step:g}"
        )

    def _possible(self, y):
        cell = (y + self.top) / self.step
        rounding = 1e-3 + 4 * 2**self.bits * torch.finfo(y.dtype).eps
        return ((cell - cell.round()).abs() <= rounding) & (cell > -0.5) & (cell < 2**self.bits - 0.5)

    def _sample(self, z, generator, noise_var):
        u = z + circular(tuple(z.shape), generator, z.dtype, noise_var)
        return ((torch.floor(u / self.step) + 0.5) * self.step).clamp(-self.top, self.top)

    def _score(self, y, p, tau, noise_var):
        sd = spread(tau + noise_var)
        cell = truncated_gaussian(*self._edges(y, p, sd))
        return cell.mean / sd, (1 - cell.var) / (sd * sd)

    def _log_evidence(self, y, p, tau, noise_var):
        return truncated_gaussian(*self._edges(y, p, spread(tau + noise_var))).log_mass

    def _edges(self, y: Tensor, p: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """The edges of the cell, in standard deviations from p; an open side lies a million cells away."""
        half, last, open_side = (y.new_tensor(a * self.step) for a in (0.5, 2 ** (self.bits - 1) - 0.75, 1e6))
        low, high = torch.where(y < -last, y - open_side, y - half), torch.where(y > last, y + open_side, y + half)
        return (low - p) / sd, (high - p) / sd
