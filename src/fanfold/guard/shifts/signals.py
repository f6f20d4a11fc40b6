"""Other signals through the same receiver: louder, with heavy tails, or alike from neighbour to neighbour."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.bounds.oracle import SparsePrior
from fanfold.core.abilities import require
from fanfold.core.noise import circular
from fanfold.guard.shifts.altered import OtherSignals
from fanfold.problems.protocols import prior_of
from fanfold.problems.radio.mimo_detection import root


@dataclass(frozen=True)
class Amplified(OtherSignals):
    """Signals that are `factor` times as large, in the same noise: `A (factor x) + w`.

    Raises:
        ValueError: If the factor is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> x = problem.sample(3, torch.Generator().manual_seed(0))[0]
        >>> louder = ff.guard.Amplified(problem, factor=3.0).sample(3, torch.Generator().manual_seed(0))[0]
        >>> torch.equal(louder, 3 * x)
        True
    """

    factor: float = 1.0  # of the amplitude

    def __post_init__(self):
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}; pass a positive one, of the amplitude.")

    @property
    def nil(self) -> bool:
        """Whether the factor is one."""
        return self.factor == 1

    def signals(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """`factor x`."""
        return self.factor * x


@dataclass(frozen=True)
class HeavyTailed(OtherSignals):
    """Signals with Student's law in place of the Gaussian: each entry is divided by `√(χ²_ν / ν)`.

    Gaussian entries become Student ones of ν degrees of freedom exactly, zeros stay. With ν = 2 the variance is
    infinite: a few entries make most of the power.

    Raises:
        ValueError: If the degrees are not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> tails = ff.guard.HeavyTailed(ff.problems.CompressedSensing(n=40, m=20), degrees=2)
        >>> tails.sample(500, torch.Generator().manual_seed(0))[0].abs().max() > 20
        tensor(True)
    """

    degrees: int | None = 2  # of freedom; None is the Gaussian

    def __post_init__(self):
        if self.degrees is not None and self.degrees < 1:
            raise ValueError(f"degrees is {self.degrees}; pass 1 (Cauchy) or more, or None.")

    @property
    def nil(self) -> bool:
        """Whether the law is the Gaussian."""
        return self.degrees is None

    def signals(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The entries with heavier tails."""
        assert self.degrees is not None
        normal = torch.randn(*x.shape, self.degrees, generator=generator, dtype=x.real.dtype)
        return x / normal.square().mean(-1).sqrt().clamp_min(torch.finfo(x.real.dtype).tiny ** 0.25)


@dataclass(frozen=True)
class Correlated(OtherSignals):
    """Signals alike from neighbour to neighbour: values with correlation `values^|i - j|`, supports in clusters.

    With probability `support` an entry is zero, or not, as its neighbour before it is, else by chance (a Markov chain).
    The share of entries that are not zero and their variance are those of the prior.

    Raises:
        ValueError: If a number is not from 0 to below 1, or the problem knows no prior.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.Correlated(ff.problems.CompressedSensing(n=40, m=20, sparsity=0.5), values=0.9)
        >>> x = problem.sample(4000, torch.Generator().manual_seed(0))[0]
        >>> both = (x[:, 1:] * x[:, :-1])[(x[:, 1:] != 0) & (x[:, :-1] != 0)]
        >>> 0.85 < both.mean() < 0.95
        tensor(True)
    """

    values: float = 0.0  # correlation of the values of neighbours that are not zero
    support: float = 0.0  # probability that an entry is zero, or not, as its neighbour is and not by chance

    def __post_init__(self):
        for name in ("values", "support"):
            if not 0 <= vars(self)[name] < 1:
                raise ValueError(f"{name} is {vars(self)[name]}; pass a number from 0 to below 1.")

    @property
    def nil(self) -> bool:
        """Whether neighbours know nothing of each other."""
        return self.values == self.support == 0

    def signals(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Fresh values, and supports where these are correlated, each entry by itself with the law of the prior."""
        who, instead = type(self).__name__, "Pass a problem whose prior is Bernoulli-Gaussian."
        prior = require(prior_of(self.problem), SparsePrior, who, instead)
        active = clusters(x.shape, prior.p, self.support, generator) if self.support else x != 0
        white = circular(tuple(x.shape), generator, x.dtype, prior.var)
        return torch.where(active, white @ root(x.shape[-1], self.values).to(x.dtype), 0.0)


def clusters(shape: tuple[int, ...], p: float, follows: float, generator: torch.Generator) -> Tensor:
    """Supports `(..., n)` with probability p each, whose entries are as their neighbours with a probability beyond."""
    fresh = torch.rand(shape, generator=generator) < p
    follow = torch.rand(shape, generator=generator) < follows
    entries = [fresh[..., 0]]
    for i in range(1, shape[-1]):
        entries.append(torch.where(follow[..., i], entries[-1], fresh[..., i]))
    return torch.stack(entries, -1)
