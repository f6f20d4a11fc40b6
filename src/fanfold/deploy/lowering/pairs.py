"""Complex numbers as two real tensors, while a traced program is run again with real operations alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ComplexParts(NamedTuple):
    """A complex tensor as its real and its imaginary part, of one shape.

    Example:
        >>> import torch
        >>> from fanfold.deploy.lowering.pairs import ComplexParts
        >>> ComplexParts.of_pairs(torch.ones(5, 2)).joined().shape
        torch.Size([5, 2])
    """

    re: Tensor
    im: Tensor

    @classmethod
    def of_pairs(cls, pairs: Tensor) -> "ComplexParts":
        """The parts of pairs `(..., 2)`."""
        return cls(pairs[..., 0], pairs[..., 1])

    @classmethod
    def of_real(cls, real: Tensor) -> "ComplexParts":
        """A real tensor as a complex one."""
        return cls(real, torch.zeros_like(real))

    @classmethod
    def of_complex(cls, z: Tensor) -> "ComplexParts":
        """The parts of a complex tensor."""
        z = z.resolve_conj().resolve_neg()
        return cls(z.real.contiguous(), z.imag.contiguous())

    def joined(self) -> Tensor:
        """Pairs `(..., 2)`, interleaved."""
        return torch.stack([self.re, self.im], -1)

    def each(self, part: Callable[[Tensor], Tensor]) -> "ComplexParts":
        """A map that is linear over the reals, of each part."""
        return ComplexParts(part(self.re), part(self.im))


class Constant:
    """A tensor, real or complex, that depends on no input of the program."""

    def __init__(self, value: Tensor):
        self.value = value


class Spread:
    """A constant matrix `(..., a, b)` with no other axes of length, the same for each of a batch, `(batch, a, b)`.

    Products with it are taken with the matrix, which is never copied for the batch.
    """

    def __init__(self, matrix: Constant, shape: Any):
        self.matrix, self.shape = matrix, tuple(shape)
