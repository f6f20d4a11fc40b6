"""Observations beyond what a simulator draws: parameters outside its prior, and measurements with gross errors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.abilities import offers, require
from fanfold.guard.shifts.altered import Altered
from fanfold.guard.shifts.noise import size_of
from fanfold.observation import Observation
from fanfold.problems.protocols import DrawsAt, limits_of


@dataclass(frozen=True)
class BeyondPrior(Altered):
    """Parameters beyond the limits of the prior: one of each draw, by `share` of the width of its limits.

    Which one, and at which end, is drawn; the others stay as they are. Parameters without finite limits do not move.

    Raises:
        ValueError: If the share is negative, the problem does not draw at given parameters, or none has limits.

    Example:
        >>> import fanfold as ff, torch
        >>> box = ff.problems.Box((0.0, 0.0), (1.0, 2.0))
        >>> simulator = ff.problems.BatchSimulator(box, lambda x, generator: x)
        >>> x, _ = ff.guard.BeyondPrior(simulator, share=0.5).sample(50, torch.Generator().manual_seed(0))
        >>> ((x < 0) | (x > torch.tensor([1.0, 2.0]))).sum(-1).unique()
        tensor([1])
    """

    share: float = 0.0  # of the width of its limits, by which a parameter is outside

    def __post_init__(self):
        if not 0 <= self.share < math.inf:
            raise ValueError(f"share is {self.share}; pass how far beyond its limits, not negative.")

    @property
    def nil(self) -> bool:
        """Whether no parameter is moved."""
        return self.share == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Draws at the moved parameters, those whose runs succeed."""
        at = require(self.nominal, DrawsAt, type(self).__name__, "Pass a simulator.")
        limits = torch.tensor(limits_of(self.nominal, x), dtype=torch.float64)
        finite = torch.isfinite(limits).all(-1).nonzero()[:, 0]
        if not len(finite):
            raise ValueError(f"{type(self.problem).__name__} has no parameter with limits to go beyond.")
        which = finite[torch.randint(len(finite), (len(x),), generator=generator)]
        upper = torch.randint(2, (len(x),), generator=generator)
        low, high = limits[which].T
        place = torch.where(upper == 1, high + self.share * (high - low), low - self.share * (high - low))
        return at.sample_at(x.scatter(-1, which[:, None], place[:, None].to(x.dtype)), generator)


def has_limits(problem: object, x: Tensor) -> bool:
    """Whether `BeyondPrior` can draw: parameters can be given, and one has finite limits."""
    return offers(problem, DrawsAt) and any(math.isfinite(a) and math.isfinite(b) for a, b in limits_of(problem, x))


@dataclass(frozen=True)
class Contaminated(Altered):
    """Measurements of which a share has gross errors: Gaussian, `size` times as large as the sample's own.

    Each number of y is hit, or not, by itself.

    Raises:
        ValueError: If the share is no probability, or the size is negative.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.Contaminated(ff.problems.Tone(), share=0.1)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([3, 25])
    """

    share: float = 0.0  # of the measurements, that have errors
    size: float = 5.0  # standard deviation of an error over the root mean square of the sample's measurements

    def __post_init__(self):
        if not 0 <= self.share <= 1 or not 0 <= self.size < math.inf:
            raise ValueError(f"share is {self.share} and size {self.size}; pass a probability and a positive size.")

    @property
    def nil(self) -> bool:
        """Whether nothing has errors."""
        return self.share * self.size == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with errors."""
        y = obs.y
        hit = torch.rand(y.shape, generator=generator) < self.share
        errors = torch.randn(y.shape, generator=generator, dtype=y.dtype) * (self.size * size_of(y))
        return x, Observation(torch.where(hit, y + errors, y), obs.A, obs.noise_var)
