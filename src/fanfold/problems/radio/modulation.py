"""Which constellation was sent, from blocks of noisy symbols. Wei & Mendel (2000), section II."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

CONSTELLATIONS = ("bpsk", "qpsk", "8-psk", "16-qam", "64-qam")


@dataclass(frozen=True)
class Modulation(Described):
    """`symbols` symbols of unit mean power in circular noise, each block of one constellation; all equally likely.

    x is one-hot `(n, classes)`, so that its posterior mean is the class posterior; y is a set, real and imaginary part
    of each symbol `(n, symbols, 2)`. With `unknown_phase` each block is turned by one uniform angle.

    Raises:
        ValueError: If there are fewer than two classes, one is unknown, or a block has no symbol.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.Modulation(symbols=16).sample(3, torch.Generator().manual_seed(0))
        >>> tuple(x.shape), tuple(obs.y.shape)
        ((3, 4), (3, 16, 2))
    """

    symbols: int = 16  # symbols of a block
    snr_db: float = 5.0  # 1 / noise_var
    classes: tuple[str, ...] = ("bpsk", "qpsk", "8-psk", "16-qam")  # constellations, all equally likely
    unknown_phase: bool = False  # whether a block is turned by an angle that the receiver does not know

    A = None
    kind = "set"

    def __post_init__(self):
        unknown = [name for name in self.classes if name not in CONSTELLATIONS]
        if unknown or len(self.classes) < 2 or self.symbols < 1:
            raise ValueError(f"classes are {self.classes}; take two or more of {', '.join(CONSTELLATIONS)}.")

    @property
    def noise_var(self) -> float:
        """The noise variance `E|w|²` of a symbol."""
        return 1 / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draw `n` blocks: one-hot x `(n, classes)` and y `(n, symbols, 2)`."""
        which = torch.randint(len(self.classes), (n,), generator=generator)
        pick = torch.rand(n, self.symbols, generator=generator)
        points = [constellation(name).to(torch.complex64) for name in self.classes]
        sent = torch.stack([p[(pick * len(p)).long()] for p in points])[which, torch.arange(n)]
        angle = 2 * math.pi * torch.rand(n, 1, generator=generator) * self.unknown_phase
        y = sent * torch.polar(torch.ones_like(angle), angle)
        y = y + circular((n, self.symbols), generator, torch.complex64, self.noise_var)
        x = torch.nn.functional.one_hot(which, len(self.classes)).to(torch.float32)
        return x, Observation(torch.view_as_real(y))

    def posterior(self, obs: Observation) -> Estimate:
        """The probability of each class `(..., classes)`; an unknown phase is integrated by the trapezoid rule.

        On a circle that rule errs by `exp(-2 π² (width / spacing)²)`, about 1e-9 with points as close as the width of
        the likelihood, `1 / sqrt(2 symbols / noise_var)`.
        """
        y = torch.view_as_complex(obs.y.double().contiguous())
        log_p = torch.stack([self._log_likelihood(y, constellation(name)) for name in self.classes], -1)
        p = torch.softmax(log_p, -1)
        return Estimate(p.to(obs.y.dtype), (p * (1 - p)).to(obs.y.dtype))

    def _log_likelihood(self, y: Tensor, points: Tensor) -> Tensor:
        """The log-likelihood `(...)` of blocks `(..., symbols)`, up to what all classes share."""
        if not self.unknown_phase:
            return self._of_symbols(y, points).sum(-1)
        # every constellation looks the same after half a turn
        count = max(16, math.ceil(math.pi * math.sqrt(2 * self.symbols / self.noise_var)))
        angles = torch.arange(count, dtype=torch.float64) * (math.pi / count)
        turned = [self._of_symbols(y * torch.polar(torch.ones_like(a), -a), points).sum(-1) for a in angles]
        return torch.stack(turned, -1).logsumexp(-1) - math.log(count)

    def _of_symbols(self, y: Tensor, points: Tensor) -> Tensor:
        distance = (y.unsqueeze(-1) - points).abs().square()
        return (-distance / self.noise_var).logsumexp(-1) - math.log(len(points))


@lru_cache(maxsize=8)
def constellation(name: str) -> Tensor:
    """The points of a constellation, of unit mean power, in double precision."""
    if name.endswith("psk"):
        count = {"bpsk": 2, "qpsk": 4, "8-psk": 8}[name]
        start = math.pi / 4 if count == 4 else 0.0
        angles = start + torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
        return torch.polar(torch.ones_like(angles), angles)
    side = int(name.split("-")[0]) ** 0.5
    levels = 2 * torch.arange(side, dtype=torch.float64) - (side - 1)
    points = torch.complex(*torch.meshgrid(levels, levels, indexing="ij")).flatten()
    return points / points.abs().square().mean().sqrt()
