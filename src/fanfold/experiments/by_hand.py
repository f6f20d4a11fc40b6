"""What studies hold the costs of fanfold against: loops by hand in plain PyTorch, timed in turn in the same run.

A busy machine slows both alike, so that their ratio is a goal that it cannot break. All times are of the processor, on
one thread; they are shown beside the ratio and not judged.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.core.machine import threads

SHARE = 10  # of a training by hand one part in so many is run before ours, and one after it


@dataclass(frozen=True)
class Cost:
    """What something takes, in seconds of processor time, and what its yardstick takes.

    Example:
        >>> from fanfold.experiments.by_hand import Cost
        >>> Cost(ours=6.0, by_hand=2.0).ratio
        3.0
    """

    ours: float
    by_hand: float

    @property
    def ratio(self) -> float:
        """How many times as long as the loop by hand."""
        return self.ours / self.by_hand


def in_turn(ours: Callable[[], object], by_hand: Callable[[], object], rounds: int) -> Cost:
    """Medians of so many calls of each, in turn, after three rounds to warm up."""
    spent: tuple[list[float], list[float]] = ([], [])
    with threads(1), torch.no_grad():
        for _ in range(rounds + 3):
            for call, seconds in zip((ours, by_hand), spent, strict=True):
                seconds.append(processor_seconds(call))
    return Cost(*(statistics.median(seconds[3:]) for seconds in spent))


def around(ours: Callable[[], object], by_hand: Callable[[int], object], steps: int) -> Cost:
    """The cost of a training, and of one by hand of so many steps, of which a share is run before and after it."""
    share = -(-steps // SHARE)
    with threads(1):
        by_hand(2)  # what is imported and allocated but once
        before = processor_seconds(lambda: by_hand(share))
        spent = processor_seconds(ours)
        after = processor_seconds(lambda: by_hand(share))
    return Cost(spent, (before + after) / 2 * steps / share)


def processor_seconds(call: Callable[[], object]) -> float:
    """The processor time of one call, of all threads of this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


class UnfoldedISTA(nn.Module):
    """Unfolded ISTA by hand: `x ← soft(x + μ_t (y - x Aᵀ) A, θ_t)`, two products with a dense matrix a layer.

    Args:
        A: The real matrix `(m, n)`.
        layers: How many steps it takes.

    Example:
        >>> import torch
        >>> from fanfold.experiments.by_hand import UnfoldedISTA
        >>> UnfoldedISTA(torch.eye(3), 2)(torch.tensor([1.0, 0.0, 0.0])).shape
        torch.Size([3])
    """

    def __init__(self, A: Tensor, layers: int):
        super().__init__()
        self.A = A
        self.step = nn.Parameter(torch.full((layers,), 1.0))
        self.threshold = nn.Parameter(torch.full((layers,), 0.1))

    def forward(self, y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:-1], self.A.shape[-1])
        for step, threshold in zip(self.step, self.threshold):
            r = x + step * (y - x @ self.A.mT) @ self.A
            x = r.sign() * torch.relu(r.abs() - threshold)
        return x


def ista_training(A: Tensor, layers: int, batch: int = 64) -> Callable[[int], None]:
    """A function of the number of steps that trains unfolded ISTA by hand on fresh sparse signals."""

    def train(steps: int) -> None:
        net, chance = UnfoldedISTA(A, layers), torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(steps):
            shape = batch, A.shape[-1]
            x = torch.randn(shape, generator=chance) * (torch.rand(shape, generator=chance) < 0.1)
            y = x @ A.mT + 0.01 * torch.randn(batch, len(A), generator=chance)
            loss = (net(y) - x).square().sum() / x.square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return train


def perceptron_training(width: int = 256, batch: int = 512) -> Callable[[int], None]:
    """A function of the number of steps that trains a perceptron by hand: four layers, all of one width."""

    def train(steps: int) -> None:
        layers = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
        net, chance = nn.Sequential(*layers, nn.Linear(width, width)), torch.Generator().manual_seed(0)
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(steps):
            y = torch.randn(batch, width, generator=chance)
            loss = (net(y) - y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return train


def kronecker_products(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """`Aᴴ A x` by hand for `A = A_1 ⊗ … ⊗ A_K` and x of shape `(samples, n)`: a product for each axis and direction.

    Args:
        factors: The matrices `A_k`, `(m_k, n_k)`.
        x: The signals.
    """
    maps = [*factors, *(factor.mH for factor in factors)]
    tensor = x.reshape(len(x), *(factor.shape[-1] for factor in factors))
    for matrix in maps:  # the first axis is taken and becomes the last: after all factors they are in order again
        tensor = torch.tensordot(tensor, matrix, dims=([1], [1]))
    return tensor.reshape(len(x), -1)


def dense_product(side: int) -> Callable[[], Tensor]:
    """One product of two square matrices of that side: side³ multiply-accumulates."""
    left, right = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0))
    return lambda: left @ right
