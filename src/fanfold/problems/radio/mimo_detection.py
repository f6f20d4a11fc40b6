"""MIMO detection: y = H x + w, x points of a QAM constellation, H known and fading. Tse & Viswanath (2005), ch. 8."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.linops import Batched
from fanfold.observation import Observation
from fanfold.priors import Constellation
from fanfold.priors.constellation import Name
from fanfold.problems.base import Described


@dataclass(frozen=True)
class MIMODetection(Described):
    """`y = H x + w`: a symbol of each of n users, received by m antennas; H is known and fades from use to use.

    `H = R_m^½ G R_n^½` with `G` of iid entries `CN(0, 1 / m)` (Rayleigh) and exponential correlation
    `R_ij = rho^|i - j|` at both ends (Kronecker model), so that a user brings unit power to the array on average. The
    SNR is Es/N0 at a receive antenna, `E|(H x)_i|² / E|w_i|² = (n / m) / noise_var`, over all users together.

    Raises:
        ValueError: If a number is out of range or the constellation is unknown.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.MIMODetection(users=4, antennas=8)
        >>> float(problem.noise_var) == 4 / 8 / ff.units.from_db(12.0)
        True
    """

    users: int = 16  # n, transmit antennas
    antennas: int = 16  # m, receive antennas
    constellation: Name = "qpsk"  # that every user sends
    snr_db: float = 12.0  # at each receive antenna: power of H x over power of the noise
    correlation: float = 0.0  # rho, between neighbours at both ends; 0: iid Rayleigh
    dtype: Literal["complex64", "complex128"] = "complex64"  # data type of signals and channels

    def __post_init__(self):
        if self.users < 1 or self.antennas < 1:
            raise ValueError(f"{self.users} users and {self.antennas} antennas; pass at least one of each.")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation is {self.correlation}; pass a number from 0 (iid) to below 1.")
        Constellation(self.constellation)  # refuses names that it does not know

    @property
    def A(self) -> Batched:  # noqa: N802
        """One channel, an example of those that are drawn: a network unfolded for it belongs to them all."""
        return _example(self)

    @property
    def prior(self) -> Constellation:  # type: ignore[override]
        """The prior of each symbol: all points are equally likely."""
        return Constellation(self.constellation)

    @property
    def noise_var(self) -> float:
        """The noise variance `E|w|²` at an antenna."""
        return self.users / self.antennas / from_db(self.snr_db)

    def channels(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` channels, `(n, antennas, users)`."""
        precision = torch.complex64 if self.dtype == "complex64" else torch.complex128
        G = circular((n, self.antennas, self.users), generator, precision, 1 / self.antennas)
        if self.correlation == 0:
            return G
        at_array, at_users = (root(size, self.correlation).to(precision) for size in (self.antennas, self.users))
        return at_array @ G @ at_users

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draw `n` channel uses: symbols `(n, users)` and their observation, each with a channel of its own."""
        A = Batched(self.channels(n, generator))
        x = self.prior.sample((n, self.users), generator, A.dtype)
        y = A @ x + circular((n, self.antennas), generator, A.dtype, self.noise_var)
        return x, Observation(y, A, torch.tensor(self.noise_var, dtype=A.dtype.to_real()))


@lru_cache(maxsize=32)
def root(size: int, rho: float) -> Tensor:
    """The symmetric square root of `R_ij = rho^|i - j|`, `(size, size)` in double precision."""
    i = torch.arange(size, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(rho ** (i[:, None] - i).abs())
    return (vectors * values.sqrt()) @ vectors.mT


@lru_cache(maxsize=32)
def _example(problem: MIMODetection) -> Batched:
    return Batched(problem.channels(1, torch.Generator().manual_seed(0)))
