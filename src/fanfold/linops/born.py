"""Near-field, multistatic scattering under the Born approximation: no Kronecker product. Devaney (2012), chapter 8."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fanfold.linops.base import LinearOperator
from fanfold.linops.checks import refuse_non_finite
from fanfold.linops.product import linear_map

MAX_KEPT_ENTRIES = 2**22  # of a matrix that is formed once and kept; a larger one is formed block by block
BLOCK_ENTRIES = 2**18  # of a larger matrix that are formed at a time: as many as caches hold


class Born(LinearOperator):
    """`y[t, r, f] = Σ_v exp(-i k_f (|v - t| + |v - r|)) x[v] / sqrt(m)`: one scattering between pairs of antennas.

    Entries are computed as they are needed, in the forward and in the backward pass: memory holds a path length for
    each pair and voxel, and of A some rows at a time; only an A of 2²² entries or less is kept. Spreading loss is left
    out, as receivers compensate it by their range gain.

    Args:
        transmitters: Positions `(t, 3)` in metres.
        receivers: Positions `(r, 3)` in metres.
        wavenumbers: `2 pi f / c` of each frequency, `(f,)`, per metre.
        voxels: Positions `(n, 3)` in metres.
        dtype: The dtype of the operator, complex.

    Raises:
        ValueError: If shapes do not fit, an entry is not finite, antennas of an array coincide, or the dtype is real.

    Example:
        >>> import fanfold as ff, torch
        >>> senders, receivers, voxels = (torch.rand(count, 3) for count in (2, 3, 50))
        >>> ff.linops.Born(senders, receivers, torch.tensor([200.0, 210.0]), voxels).shape
        (12, 50)
    """

    def __init__(
        self,
        transmitters: Float[Tensor, "t 3"],
        receivers: Float[Tensor, "r 3"],
        wavenumbers: Float[Tensor, "f"],
        voxels: Float[Tensor, "n 3"],
        dtype: torch.dtype = torch.complex64,
    ):
        if not dtype.is_complex:
            raise ValueError(f"scattering is complex, not {dtype}; pass complex64 or complex128.")
        for name, points in (("transmitters", transmitters), ("receivers", receivers), ("voxels", voxels)):
            if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
                raise ValueError(f"{name} have shape {tuple(points.shape)}; pass positions (count, 3) in metres.")
            refuse_non_finite(points, f"the list of {name}")
            if name != "voxels" and len(points.unique(dim=0)) < len(points):
                raise ValueError(f"two {name} coincide; give each a place of its own.")
        refuse_non_finite(wavenumbers, "the list of wavenumbers")
        if wavenumbers.ndim != 1 or len(wavenumbers) == 0:
            raise ValueError(f"wavenumbers have shape {tuple(wavenumbers.shape)}; pass (f,).")
        self._points = tuple(p.double() for p in (transmitters, receivers, wavenumbers, voxels))
        m = len(transmitters) * len(receivers) * len(wavenumbers)
        super().__init__((m, len(voxels)), dtype, voxels.device)
        paths = torch.cdist(self._points[0], self._points[3])[:, None] + torch.cdist(self._points[1], self._points[3])
        self._paths = paths.reshape(-1, len(voxels))  # (t r, n) metres
        self._rows = max(1, BLOCK_ENTRIES // len(voxels))

    def _blocks(self):
        """The matrix in blocks of rows, `(rows, n)`, from the first to the last: all at once where it is kept."""
        return iter([self.matrix()]) if self.m * self.n <= MAX_KEPT_ENTRIES else self._formed()

    def _formed(self):
        frequencies = len(self._points[2])
        for row in torch.arange(self.m, device=self.device).split(self._rows):
            turns = self._paths[row // frequencies]  # of the phase: whole ones go before precision does
            turns.mul_(-self._points[2][row % frequencies, None] / (2 * math.pi))
            turns.sub_(turns.round())
            phase = turns.to(self.dtype.to_real()).mul_(2 * math.pi)
            yield torch.complex(phase.cos(), phase.sin()).mul_(self.m**-0.5)

    def _apply(self, x):
        return linear_map(x, self._scatter, self._focus)

    def _adjoint(self, y):
        return linear_map(y, self._focus, self._scatter)

    def _scatter(self, x):
        return torch.cat([x @ block.mT for block in self._blocks()], -1)

    def _focus(self, y):
        x, start = y.new_zeros((*y.shape[:-1], self.n)), 0
        for block in self._blocks():
            x += y[..., start : start + len(block)] @ block.conj()
            start += len(block)
        return x

    def _matrix(self):
        return torch.cat(list(self._formed()))

    def _gram_diagonal(self):
        return torch.ones(self.n, dtype=self.dtype.to_real(), device=self.device)

    def parts(self):
        return self._points

    def to(self, device=None, dtype=None):
        device = torch.device(device or self.device)
        return Born(*(p.to(device) for p in self._points), dtype=dtype or self.dtype)
