"""Orthonormal bases for signals and pictures: `basis @ picture` are coefficients, `basis.H @ c` is the picture.

DCT-II: Ahmed, Natarajan & Rao (1974). Wavelets: Mallat (1989), periodic at the borders, filters of PyWavelets.
"""

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import pywt
import scipy.fft
import torch
from torch import Tensor

from fanfold.linops.base import SVD, Dense, LinearOperator


class Basis(LinearOperator):
    """An orthonormal map on signals of one or two axes, flattened: `(..., h * w)` -> `(..., h * w)`.

    A subclass gives `_analyse` and `_synthesise` on `(..., h, w)` (a line has `h = 1`).

    Example:
        >>> import fanfold as ff
        >>> issubclass(ff.linops.DCT, ff.linops.Basis) and issubclass(ff.linops.Wavelet, ff.linops.Basis)
        True
    """

    def __init__(self, extent: tuple[int, ...], dtype: torch.dtype, device: torch.device | str):
        if len(extent) not in (1, 2) or min(extent) < 1:
            raise ValueError(f"a basis takes (length,) or (height, width), not {tuple(extent)}.")
        n = math.prod(extent)
        super().__init__((n, n), dtype, device)
        self.extent = tuple(extent)
        self._plane = (1, *extent)[-2:]

    @abstractmethod
    def _analyse(self, picture: Tensor) -> Tensor:
        """Coefficients `(..., h, w)` of a picture `(..., h, w)`."""

    @abstractmethod
    def _synthesise(self, coefficients: Tensor) -> Tensor:
        """The picture `(..., h, w)` with these coefficients."""

    def _apply(self, x):
        return self._analyse(x.unflatten(-1, self._plane)).flatten(-2)

    def _adjoint(self, y):
        return self._synthesise(y.unflatten(-1, self._plane)).flatten(-2)

    def _svd(self):
        identity = Dense(torch.eye(self.n, dtype=self.dtype, device=self.device))
        return SVD(self, torch.ones(self.n, dtype=self.dtype.to_real(), device=self.device), identity)

    def _norm(self):
        return 1.0

    def _gram_diagonal(self):
        return torch.ones(self.n, dtype=self.dtype.to_real(), device=self.device)

    def parts(self) -> tuple[Any, ...]:
        return (self.extent,)

    def _tensor(self, a: np.ndarray) -> Tensor:
        return torch.as_tensor(a).to(self.device, self.dtype)


class DCT(Basis):
    """The orthonormal discrete cosine transform (type II) along each axis.

    Args:
        extent: `(length,)` or `(height, width)`.
        dtype: The dtype of the signals.
        device: The device of the cosines.

    Example:
        >>> import fanfold as ff, torch
        >>> coefficients = ff.linops.DCT((8, 8)) @ torch.ones(64)
        >>> coefficients.abs().argmax().item(), round(coefficients.norm().item(), 3)
        (0, 8.0)
    """

    def __init__(self, extent: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        super().__init__(extent, dtype, device)
        self._rows, self._columns = (
            self._tensor(scipy.fft.dct(np.eye(size), axis=0, norm="ortho")) for size in self._plane
        )

    def _analyse(self, picture):
        return self._rows @ picture @ self._columns.mT

    def _synthesise(self, coefficients):
        return self._rows.mT @ coefficients @ self._columns

    def to(self, device=None, dtype=None):
        return DCT(self.extent, dtype or self.dtype, device or self.device)


class Wavelet(Basis):
    """The orthonormal wavelet transform, periodic at the borders; the coarsest averages come first.

    Args:
        extent: `(length,)` or `(height, width)`, divisible by `2^levels`.
        name: An orthogonal wavelet of PyWavelets, such as "haar", "db4" or "sym8".
        levels: How often the averages are split again; as often as the extent allows if None.
        dtype: The dtype of the signals.
        device: The device of the filters.

    Raises:
        ValueError: If the wavelet is unknown or not orthogonal, or the extent is not divisible.

    Example:
        >>> import fanfold as ff, torch
        >>> basis, picture = ff.linops.Wavelet((16, 16), "haar"), torch.rand(256)
        >>> torch.allclose(basis.H @ (basis @ picture), picture, atol=1e-5)
        True
    """

    def __init__(
        self,
        extent: tuple[int, ...],
        name: str = "db4",
        levels: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(extent, dtype, device)
        if name not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(name).orthogonal:  # pyrefly: ignore
            raise ValueError(
                f"{name!r} is no orthogonal wavelet; take haar, db2 … db38, sym2 … sym20 or coif1 … coif17."
            )
        halvings = min((size & -size).bit_length() - 1 for size in extent)
        self.name, self.levels = name, halvings if levels is None else levels
        if not 1 <= self.levels <= halvings:
            raise ValueError(f"{extent} can be halved {halvings} times and levels is {levels}; pass 1 to {halvings}.")
        self._steps = [
            tuple(self._split(size >> level) if size > 1 else self._tensor(np.eye(1)) for size in self._plane)
            for level in range(self.levels)
        ]

    def _split(self, size: int) -> Tensor:
        """The matrix of one level, orthogonal, `size x size`: averages on top, details below."""
        return self._tensor(np.vstack(pywt.dwt(np.eye(size), self.name, mode="periodization", axis=0)))

    def _analyse(self, picture):
        corner = picture
        done = []
        for rows, columns in self._steps:
            h, w = rows.shape[0], columns.shape[0]
            corner = rows @ corner @ columns.mT
            done.append(corner)
            corner = corner[..., : max(h // 2, 1), : max(w // 2, 1)]
        out = done[-1]
        for outer in reversed(done[:-1]):
            out = _put_corner(outer, out)
        return out

    def _synthesise(self, coefficients):
        corners = [coefficients]
        for rows, columns in self._steps[:-1]:
            h, w = rows.shape[0], columns.shape[0]
            corners.append(corners[-1][..., : max(h // 2, 1), : max(w // 2, 1)])
        inner = corners[-1]
        for (rows, columns), corner in zip(reversed(self._steps), reversed(corners), strict=True):
            inner = rows.mT @ _put_corner(corner, inner) @ columns
        return inner

    def parts(self):
        return (self.extent, self.name, self.levels)

    def to(self, device=None, dtype=None):
        return Wavelet(self.extent, self.name, self.levels, dtype or self.dtype, device or self.device)


def _put_corner(outer: Tensor, corner: Tensor) -> Tensor:
    """`outer` with its top-left corner replaced."""
    h, w = corner.shape[-2:]
    top = torch.cat([corner, outer[..., :h, w:]], -1)
    return torch.cat([top, outer[..., h:, :]], -2)
