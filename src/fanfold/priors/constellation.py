"""A discrete prior: the points of a square QAM constellation. Proakis & Salehi (2008), section 4.3."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fanfold.priors.base import SATURATED, Prior, Variance, gaussian_log_prob, in_single, raised

Name = Literal["qpsk", "16-qam", "64-qam", "256-qam"]
BITS: dict[str, int] = {"qpsk": 1, "16-qam": 2, "64-qam": 3, "256-qam": 4}  # of each axis


@dataclass(frozen=True)
class Constellation(Prior):
    """Points of a square constellation with `E|x|² = 1`, equally likely; nothing in it is to be learned.

    Real and imaginary part are independent points of a pulse-amplitude modulation (PAM), so that the exact posterior
    costs as many exponentials as an axis has levels. Of a real signal the prior is that PAM with `E x² = 1`: QPSK is
    then ±1. It is not circular: turning r by a quarter turns the posterior, by anything else does not.

    Example:
        >>> import fanfold as ff, torch
        >>> qpsk, r = ff.priors.Constellation("qpsk"), torch.tensor([0.9 + 0.6j])
        >>> qpsk.nearest(r).abs().item(), qpsk.bits(r).tolist()
        (1.0, [[True, True]])
    """

    kind: Name = "qpsk"  # name of the constellation

    circular = False

    @property
    def power(self) -> float:
        return 1.0

    @property
    def landmarks(self):
        return [(a, 0.0) for a in self.levels(torch.empty((), dtype=torch.float64)).tolist()]

    @property
    def side(self) -> int:
        """The number of levels of each axis."""
        return 1 << BITS[self.kind]

    def levels(self, like: Tensor) -> Tensor:
        """The levels of each axis, rising: `(side,)`, real, for signals of the dtype and on the device of `like`."""
        spacing = math.sqrt((6 if like.is_complex() else 12) / (self.side**2 - 1))
        return like.real.new_tensor([spacing * (k - (self.side - 1) / 2) for k in range(self.side)])

    def sample(self, shape, generator, dtype=torch.float32):
        axes = 2 if dtype.is_complex else 1
        index = torch.randint(self.side, (*shape, axes), generator=generator, device=generator.device)
        return _join(self.levels(torch.empty((), dtype=dtype, device=generator.device))[index], dtype)

    def log_prob(self, x):
        axes = _axes(x)
        known = (axes[..., None] == self.levels(x)).any(-1).to(axes.dtype)
        return torch.log(known).sum(-1) - axes.shape[-1] * math.log(self.side)

    @in_single
    def log_evidence(self, r, v):
        v = torch.as_tensor(v, dtype=r.real.dtype, device=r.device)
        of_axis = raised(v)[..., None, None] / (2 if r.is_complex() else 1)
        near = gaussian_log_prob(_axes(r)[..., None] - self.levels(r), of_axis)
        return torch.where(v == 0, self.log_prob(r), (near.logsumexp(-1) - math.log(self.side)).sum(-1))

    @in_single
    def posterior(self, r, v, given=None):
        a = self.levels(r)
        share = self._weights(r, v)
        mean = (share * a).sum(-1)
        var = (share * (a - mean[..., None]).square()).sum(-1)
        return _join(mean, r.dtype), var.sum(-1)

    def nearest(self, r: Tensor) -> Tensor:
        """The point closest to each entry: the hard decision."""
        return _join(self.levels(r)[self._index(r)], r.dtype)

    def bits(self, r: Tensor) -> Tensor:
        """The Gray label of the point closest to each entry, `(..., bits)`: neighbours differ in one bit."""
        index = self._index(r)
        gray = index ^ (index >> 1)
        weights = torch.arange(BITS[self.kind] - 1, -1, -1, device=r.device)
        return ((gray[..., None] >> weights) & 1).bool().flatten(-2)

    def _weights(self, r: Tensor, v: Variance) -> Tensor:
        """The posterior probability of each level of each axis, `(..., axes, side)`.

        From `(a - b) (r - (a + b) / 2) / v` with b the level nearest to r: no difference of squares loses digits.
        """
        a, axes = self.levels(r), _axes(r)[..., None]
        v = raised(torch.as_tensor(v, dtype=a.dtype, device=r.device))[..., None, None]
        nearest = a[self._index(r)][..., None]
        ahead, most = (a - nearest) * (axes - (a + nearest) / 2), SATURATED * v  # positive where r rounds to a middle
        return torch.softmax(torch.minimum(torch.maximum(ahead, -most), most) / v * (2 if r.is_complex() else 1), -1)

    def _index(self, r: Tensor) -> Tensor:
        a = self.levels(r)
        return ((_axes(r) - a[0]) / (a[1] - a[0])).round().clamp(0, self.side - 1).long()


def _axes(x: Tensor) -> Tensor:
    """Real and imaginary parts `(..., 2)`, or `(..., 1)` for a real signal."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x[..., None]


def _join(axes: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `_axes`."""
    return torch.view_as_complex(axes) if dtype.is_complex else axes[..., 0]
