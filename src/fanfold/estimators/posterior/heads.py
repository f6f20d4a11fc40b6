"""What a neural estimator's last numbers mean, and the loss that makes them so.

Each head turns `raw` numbers, zero before training, into an estimate in units in which the linear estimator has zero
mean and unit error: `x = base + scale * estimate`. Losses are for each sample, summed over parameters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from fanfold.core.settings import Checked, checks_arguments

LossName = Literal["squared-error", "absolute", "pinball", "gaussian", "cross-entropy"]
Loss = Callable[[Tensor, Tensor], Tensor]  # (x_hat, x) -> (batch,)
LEAST_LOG_VAR = -12.0  # of the linear estimator's: an error 60 dB below it is no better for being believed
LARGEST_LOG_VAR = 40.0  # of what is said, 170 dB above: the exponential of more is no number in single precision


class Head(Protocol):
    """How many raw numbers a parameter takes, what they say, and what they are trained with."""

    @property
    def size(self) -> int: ...

    def estimate(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        """`(..., size, d)` -> mean and variance `(..., d)`."""
        ...

    def losses(self, raw: Tensor, x: Tensor) -> Tensor:
        """`(..., size, d)` and `(..., d)` -> `(...)`."""
        ...

    def held_out(self, raw: Tensor, x: Tensor) -> Tensor:
        """The loss of what members say together, `(members, batch, size, d)` and `(batch, d)` -> `(batch,)`."""
        ...


@dataclass(frozen=True)
class PointHead(Checked):
    """One number a parameter: squared error gives the posterior mean, absolute error the posterior median."""

    loss: Loss
    size: int = 1

    def estimate(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        return raw[..., 0, :], None

    def losses(self, raw: Tensor, x: Tensor) -> Tensor:
        return self.loss(raw[..., 0, :], x)

    def held_out(self, raw: Tensor, x: Tensor) -> Tensor:
        return self.losses(raw.mean(0), x)


@dataclass(frozen=True)
class GaussianHead(Checked):
    """Mean and log variance, by the Gaussian likelihood. Nix & Weigend (1994), eq. 1."""

    size: int = 2

    def estimate(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        return raw[..., 0, :], self._log_var(raw).clamp_max(LARGEST_LOG_VAR).exp()

    def losses(self, raw: Tensor, x: Tensor) -> Tensor:
        log_var = self._log_var(raw)
        square = (x - raw[..., 0, :]).square() * torch.exp(-log_var)
        return 0.5 * (square + log_var + math.log(2 * math.pi)).sum(-1)

    def held_out(self, raw: Tensor, x: Tensor) -> Tensor:  # of the members' mixture
        return math.log(len(raw)) - torch.logsumexp(-self.losses(raw, x.expand(len(raw), *x.shape)), 0)

    @staticmethod
    def raw(mean: Tensor, var: Tensor) -> Tensor:
        """The raw numbers `(..., 2, d)` that say a mean and a variance `(..., d)`, no less than can be said."""
        over = (var.log() - LEAST_LOG_VAR).clamp_min(1e-3)
        return torch.stack([mean, over + torch.log(-torch.expm1(-over)) + LEAST_LOG_VAR], -2)

    @staticmethod
    def _log_var(raw: Tensor) -> Tensor:
        return functional.softplus(raw[..., 1, :] - LEAST_LOG_VAR) + LEAST_LOG_VAR


@dataclass(frozen=True)
class QuantileHead(Checked):
    """One number for each level, by the pinball loss. Koenker & Bassett (1978); started at Gaussian quantiles.

    The estimate is the level nearest to the median, or the mean of two that are as near.
    """

    levels: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.levels)

    def quantiles(self, raw: Tensor) -> Tensor:
        """`(..., size, d)`, in rising order: sorting only lowers the loss (Chernozhukov et al., 2010)."""
        return self._unsorted(raw).sort(-2).values

    def estimate(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        least = min(abs(level - 0.5) for level in self.levels)
        middle = [i for i, level in enumerate(self.levels) if abs(level - 0.5) < least + 1e-9]
        return self.quantiles(raw)[..., middle, :].mean(-2), None

    def losses(self, raw: Tensor, x: Tensor) -> Tensor:
        over = x.unsqueeze(-2) - self._unsorted(raw)
        levels = raw.new_tensor(self.levels).unsqueeze(-1)
        return torch.maximum(levels * over, (levels - 1) * over).sum((-2, -1))

    def held_out(self, raw: Tensor, x: Tensor) -> Tensor:
        return self.losses(raw.mean(0), x)

    def _unsorted(self, raw: Tensor) -> Tensor:
        start = [NormalDist().inv_cdf(level) for level in self.levels]
        return raw + raw.new_tensor(start).unsqueeze(-1)


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """`Σ (x_hat - x)²`; its minimiser is the posterior mean."""
    return (x_hat - x).square().sum(-1)


def absolute_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """`Σ |x_hat - x|`; its minimiser is the posterior median."""
    return (x_hat - x).abs().sum(-1)


@checks_arguments
def head_for(loss: LossName | Loss, levels: Sequence[float]) -> Head:
    """The head whose training minimises a loss.

    Raises:
        ValueError: If the loss is unknown, or levels are no probabilities.
    """
    if not isinstance(loss, str):
        return PointHead(loss)
    if loss == "pinball":
        levels = tuple(sorted(levels))
        if not levels or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels are {levels}; pass some between 0 and 1.")
        return QuantileHead(levels)
    heads: dict[str, Head] = {
        "squared-error": PointHead(squared_error),
        "absolute": PointHead(absolute_error),
        "gaussian": GaussianHead(),
    }
    return heads[loss]
