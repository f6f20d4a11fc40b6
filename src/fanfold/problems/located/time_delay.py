"""Delay of a known pulse in noise: `y_t = a e^{i phi} s(t - delay) + w_t`. Kay (1993), section 3.11."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from fanfold.problems.located.base import Gain, Located


@dataclass(frozen=True)
class TimeDelay(Located):
    """`y_t = a e^{i phase} s(t - delay) + w_t`, `t = 0 … n - 1`; the delay is in samples, within the window.

    The pulse has period n, as one that a cyclic prefix or a repetition precedes, and is band-limited:
    `s(t) = Σ_k g_k cos(2 pi k t / n)`, where `g_k²` falls from one to zero along a raised cosine about the bandwidth.
    With a known gain y is real; otherwise it is complex.

    Raises:
        ValueError: If the pulse does not fit the sampling, or the delays do not fit the window.

    Example:
        >>> import fanfold as ff, torch
        >>> delay = ff.problems.TimeDelay(n=64, snr_db=20.0)
        >>> x, obs = delay.sample(3, torch.Generator().manual_seed(0))
        >>> obs.y.dtype, bool((delay.posterior(obs).x - x).abs().max() < 0.5)
        (torch.float32, True)
    """

    gain: Gain = "known"  # what of a e^{i phi} is unknown: nothing, phi, or both
    n: int = 64  # samples
    bandwidth: float = 0.25  # where `g_k²` is a half, in cycles a sample
    rolloff: float = 0.5  # share of the bandwidth, to either side, over which it falls
    first: float = 16.0  # least delay, in samples
    last: float = 48.0  # largest delay, in samples

    place: ClassVar[str] = "delay"

    def __post_init__(self):
        if not 0 <= self.rolloff <= 1 or not 1 / self.n <= self.bandwidth * (1 + self.rolloff) < 0.5:
            raise ValueError(
                f"bandwidth is {self.bandwidth} and rolloff {self.rolloff}; bandwidth (1 + rolloff) lies between 1 / n "
                "and half a cycle a sample, and rolloff between 0 and 1."
            )
        if not 0 < self.last - self.first < self.n:
            raise ValueError(
                f"delays from {self.first} to {self.last} of {self.n} samples; pass first < last < first + n."
            )
        super().__post_init__()

    @property
    def window(self) -> tuple[float, float]:
        return self.first, self.last

    @property
    def resolution(self) -> float:
        """`1 / (2 bandwidth)`, where the correlation of a pulse without roll-off is zero."""
        return 1 / (2 * self.bandwidth)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.gain == "known" else torch.complex64

    @cached_property
    def spectrum(self) -> tuple[float, ...]:
        """`g_k`, k = 0, 1, …, with `Σ_t s(t)² = n`."""
        if self.rolloff:
            share = [(abs(k) / self.n / self.bandwidth - 1) / self.rolloff for k in range(self.n // 2)]
        else:
            share = [math.copysign(1, k / self.n - self.bandwidth) for k in range(self.n // 2)]
        energy = [(1 - math.sin(math.pi / 2 * min(max(u, -1), 1))) / 2 for u in share]
        energy = [e for e in energy if e > 1e-12]
        total = energy[0] + sum(energy[1:]) / 2  # of cos²: a half, but for k = 0
        return tuple(math.sqrt(e / total) for e in energy)

    @property
    def mean_square_bandwidth(self) -> float:
        """`‖s'‖² / ‖s‖²`, in radians² a sample²; the CRB is `noise_var / n` over it, half that if y is complex."""
        return sum((2 * math.pi * k / self.n) ** 2 * g**2 / 2 for k, g in enumerate(self.spectrum))

    @property
    def bend(self) -> float:
        return math.sqrt(self.n * sum((2 * math.pi * k / self.n) ** 4 * g**2 / 2 for k, g in enumerate(self.spectrum)))

    def waveform(self, place: Tensor) -> Tensor:
        """`s(t - delay)`, `(...)` -> `(..., n)`, real or complex as y is."""
        g = place.new_tensor(self.spectrum)
        omega = 2 * math.pi / self.n * torch.arange(len(g), dtype=place.dtype, device=place.device)
        late, now = place.unsqueeze(-1) * omega, torch.outer(omega, torch.arange(self.n).to(omega))
        s = (g * late.cos()) @ now.cos() + (g * late.sin()) @ now.sin()
        return s if self.gain == "known" else torch.complex(s, torch.zeros_like(s))
