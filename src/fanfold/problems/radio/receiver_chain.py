"""A receiver whose analogue parts are not linear. Schenk (2008), chapters 4 to 6.

The amplifier is Rapp's (1991), the phase noise a random walk (Demir, Mehrotra & Roychowdhury, 2000).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.observation import Observation
from fanfold.problems.base import Described


@dataclass(frozen=True)
class ReceiverChain(Described):
    """A flat channel and a frequency offset, seen by known QPSK pilots through amplifier, oscillator and converter.

    `r_t = exp(j φ_t) (h s_t exp(j ω t) + w_t)`, `h ~ CN(0, 1)`, `ω ~ N(0, offset²)` in radians a sample,
    `E|w_t|² = 1 / snr`; φ_t is a random walk with steps of variance `linewidth`. The amplifier turns a into
    `a / (1 + (|a| / saturation)^4)^(1/4)` (Rapp, smoothness 2); the automatic gain is set for unit power, so that each
    axis is clipped at `full_scale`, and a converter of `bits` each gives the middle of one of its cells. x is
    `(Re h, Im h, ω / offset)`. Noise and phase walk pass through what is not linear: there is no likelihood to write
    down.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.ReceiverChain(bits=1).sample(3, torch.Generator().manual_seed(0))
        >>> tuple(x.shape), tuple(obs.y.shape), len(obs.y.real.unique())
        ((3, 3), (3, 32), 2)
    """

    pilots: int = 32  # number of pilots
    snr_db: float = 15.0  # E|h s|² / E|w|²; inf for none
    offset: float = 0.02  # standard deviation of ω, radians a sample
    linewidth: float = 1e-3  # variance of a step of the phase, radians²; 0 for a perfect oscillator
    saturation: float = 1.5  # saturation of the amplifier, over the root of the mean power; inf for a linear one
    full_scale: float = 1.5  # full scale of the converter, likewise; inf for no clipping and infinite resolution
    bits: int = 4  # resolution of the converter, for each axis
    seed: int = 0  # seed of the pilots
    dtype: Literal["complex64", "complex128"] = "complex64"  # data type of observations

    A = None
    kind = "vector"

    def __post_init__(self):
        if self.pilots < 2 or not 1 <= self.bits <= 24:
            raise ValueError(f"{self.pilots} pilots and {self.bits} bits; pass at least 2 pilots and 1 to 24 bits.")
        if not 0 < self.offset < math.pi or self.linewidth < 0:
            raise ValueError(
                f"offset is {self.offset} and linewidth {self.linewidth}; pass 0 < offset < π, linewidth >= 0."
            )
        if self.saturation <= 0 or self.full_scale <= 0:
            raise ValueError("saturation and full_scale are positive; inf takes the part out.")

    @property
    def noise_var(self) -> float:
        """The noise variance `E|w|²`, before everything that is not linear."""
        return 1 / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draw `n` blocks: x `(n, 3)`, real, and y `(n, pilots)`, complex."""
        dtype = torch.complex64 if self.dtype == "complex64" else torch.complex128
        h = circular((n, 1), generator, dtype)
        omega = circular((n, 1), generator, dtype.to_real())
        return self.sample_at(torch.cat([h.real, h.imag, omega], -1), generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given parameters and a block of each."""
        dtype = torch.complex64 if self.dtype == "complex64" else torch.complex128
        x = x.to(dtype.to_real())
        h, omega, n = torch.complex(x[:, :1], x[:, 1:2]), x[:, 2:], len(x)
        w = circular((n, self.pilots), generator, dtype, self.noise_var)
        walk = circular((n, self.pilots), generator, dtype.to_real(), self.linewidth).cumsum(-1)
        received = torch.polar(torch.ones_like(walk), walk) * (self.clean(h, omega) + w)
        return x, Observation(self.converted(self.amplified(received)))

    def clean(self, h: Tensor, omega: Tensor) -> Tensor:
        """The signal of a perfect receiver, `h s_t exp(j ω t)`; channel and offset `(..., 1)` -> `(..., pilots)`."""
        s = pilots(self.pilots, self.seed).to(h.dtype)
        t = torch.arange(self.pilots, dtype=omega.dtype, device=omega.device)
        angle = self.offset * omega * t
        return h * s * torch.polar(torch.ones_like(angle), angle)

    def amplified(self, a: Tensor) -> Tensor:
        """The output of Rapp's amplifier: linear below the saturation, which it never exceeds; the phase stays."""
        return a / (1 + (a.abs() / self.saturation) ** 4) ** 0.25

    def converted(self, a: Tensor) -> Tensor:
        """The signal with both axes clipped and quantised to `2^bits` cells from `-full_scale` to `full_scale`."""
        if math.isinf(self.full_scale):
            return a
        step = self.full_scale * 2.0 ** (1 - self.bits)
        top = self.full_scale - step / 2
        axes = torch.view_as_real(a)
        return torch.view_as_complex(((torch.floor(axes / step) + 0.5) * step).clamp(-top, top))


@lru_cache(maxsize=8)
def pilots(count: int, seed: int) -> Tensor:
    """The QPSK symbols of unit power that a seed stands for, `(count,)` complex128."""
    quarter = torch.randint(4, (count,), generator=torch.Generator().manual_seed(seed))
    return torch.polar(torch.ones(count, dtype=torch.float64), math.pi / 4 + math.pi / 2 * quarter.double())
