"""Parameters as real numbers and back: complex ones become real parts and then imaginary parts."""

from typing import NamedTuple

import torch
from torch import Tensor


class RealParts(NamedTuple):
    """How parameters `(..., n)` and real numbers `(batch, d)` go into each other.

    Attributes:
        complex: Whether the parameters are complex, so that d is 2 n.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.real_parts import RealParts
        >>> RealParts(complex=True).real(torch.ones(5, 3, dtype=torch.complex64)).shape
        torch.Size([5, 6])
    """

    complex: bool

    def count(self, x: Tensor) -> int:
        """The real numbers in one sample of x."""
        return x.shape[-1] * (2 if self.complex else 1)

    def real(self, x: Tensor) -> Tensor:
        """`(..., n)` -> `(..., d)`; whole numbers become floating ones."""
        if self.complex:
            return torch.cat([x.real, x.imag], -1)
        return x if x.is_floating_point() else x.to(torch.get_default_dtype())

    def signal(self, x: Tensor, leading: tuple[int, ...]) -> Tensor:
        """`(batch, d)` -> `(*leading, n)`."""
        x = torch.complex(*x.chunk(2, -1)) if self.complex else x
        return x.reshape(*leading, x.shape[-1])

    def variance(self, var: Tensor, leading: tuple[int, ...]) -> Tensor:
        """Variances `(batch, d)` -> `(*leading, n)`: that of a complex number is the sum of those of its parts."""
        if self.complex:
            of_real, of_imaginary = var.chunk(2, -1)
            var = of_real + of_imaginary
        return var.reshape(*leading, var.shape[-1])
