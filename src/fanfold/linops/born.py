"""Near-field, multistatic scattering under the Born approximation: no Kronecker product. Devaney (2012), chapter 8."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fanfold.linops.base import LinearOperator, refuse_non_finite

CHUNK = 2**22  # entries of the matrix that are formed at a time


class Born(LinearOperator):
    """`y[t, r, f] = Σ_v exp(-i k_f (|v - t| + |v - r|)) x[v] / sqrt(m)`: one scattering between pairs of antennas.

    Entries are computed as they are needed: memory holds a path length for each pair and voxel, never A. Spreading
    loss is left out, as receivers compensate it by their range gain.

    Args:
        transmitters: Positions `(t, 3)` in metres.
        receivers: Positions `(r, 3)` in metres.
        wavenumbers: `2 pi f / c` of each frequency, `(f,)`, per metre.
        voxels: Positions `(n, 3)` in metres.
        dtype: Complex.

    Raises:
        ValueError: If shapes do not fit, an entry is not finite, antennas of an array coincide, or the dtype is real.
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
            refuse_non_finite(points)
            if name != "voxels" and len(points.unique(dim=0)) < len(points):
                raise ValueError(f"two {name} coincide; give each a place of its own.")
        refuse_non_finite(wavenumbers)
        if wavenumbers.ndim != 1 or len(wavenumbers) == 0:
            raise ValueError(f"wavenumbers have shape {tuple(wavenumbers.shape)}; pass (f,).")
        self._points = tuple(p.double() for p in (transmitters, receivers, wavenumbers, voxels))
        m = len(transmitters) * len(receivers) * len(wavenumbers)
        super().__init__((m, len(voxels)), dtype, voxels.device)
        paths = torch.cdist(self._points[0], self._points[3])[:, None] + torch.cdist(self._points[1], self._points[3])
        self._paths = paths.reshape(-1, len(voxels))  # (t r, n) metres
        self._rows = max(1, CHUNK // (len(voxels) * len(wavenumbers)))

    def _blocks(self):
        """Blocks of whole antenna pairs: `(rows, n)` of the matrix, from the first to the last."""
        k = self._points[2]
        for paths in self._paths.split(self._rows):
            phase = torch.remainder(-k[:, None] * paths[:, None], 2 * math.pi).flatten(0, 1)
            yield (torch.polar(torch.ones_like(phase), phase) / self.m**0.5).to(self.dtype)

    def _apply(self, x):
        return torch.cat([x @ block.mT for block in self._blocks()], -1)

    def _adjoint(self, y):
        sizes = [len(paths) * len(self._points[2]) for paths in self._paths.split(self._rows)]
        parts = zip(y.split(sizes, -1), self._blocks(), strict=True)
        return sum((part @ block.conj() for part, block in parts), y.new_zeros((*y.shape[:-1], self.n)))

    def _matrix(self):
        return torch.cat(list(self._blocks()))

    def gram_diagonal(self):
        return torch.ones(self.n, dtype=self.dtype.to_real(), device=self.device)

    def parts(self):
        return self._points

    def to(self, device=None, dtype=None):
        device = torch.device(device or self.device)
        return Born(*(p.to(device) for p in self._points), dtype=dtype or self.dtype)
