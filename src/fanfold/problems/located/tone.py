"""A complex tone in noise: `y_t = a e^{i (omega t + phi)} + w_t`. Rife & Boorstyn (1974), section II."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fanfold.problems.located.base import Located


@dataclass(frozen=True)
class Tone(Located):
    """`y_t = a e^{i (frequency t + phase)} + w_t`, `t = 0 … n - 1`, complex; the frequency is in radians a sample.

    The phase is that at t = 0. Frequencies lie within `±limit`, by default inside ±pi, where none is mistaken for its
    alias at the other end.

    Raises:
        ValueError: If there are fewer than two samples, or the limit is not in (0, pi].

    Example:
        >>> import fanfold as ff, torch
        >>> tone = ff.problems.Tone(n=25, snr_db=20.0)
        >>> x, obs = tone.sample(3, torch.Generator().manual_seed(0))
        >>> bool((tone.posterior(obs).x - x).abs().max() < 0.05)
        True
    """

    n: int = 25  # samples
    limit: float = 0.8 * math.pi  # frequencies lie within ± this

    place: ClassVar[str] = "frequency"

    def __post_init__(self):
        if self.n < 2 or not 0 < self.limit <= math.pi:
            raise ValueError(f"n is {self.n} and limit {self.limit}; pass at least 2 samples and a limit up to pi.")
        super().__post_init__()

    @property
    def window(self) -> tuple[float, float]:
        return -self.limit, self.limit

    @property
    def resolution(self) -> float:
        """To the first zero of the Dirichlet kernel, `2 pi / n`."""
        return 2 * math.pi / self.n

    @property
    def bend(self) -> float:
        """`√Σ t⁴`, t from the middle where the phase is free."""
        middle = 0.0 if self.gain == "known" else (self.n - 1) / 2
        return math.sqrt(sum((t - middle) ** 4 for t in range(self.n)))

    def waveform(self, place: Tensor) -> Tensor:
        """`e^{i frequency t}`, `(...)` -> `(..., n)`."""
        turn = place.unsqueeze(-1) * torch.arange(self.n, dtype=place.dtype, device=place.device)
        return torch.complex(turn.cos(), turn.sin())
