"""Draws of a problem that can be repeated: numbered streams, and a fixed budget of pairs drawn once."""

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.streams import Stream, generator_of
from fanfold.observation import Observation
from fanfold.problems.base import Problem
from fanfold.problems.protocols import Distinct, Stored

MOST_HELD_OUT = 10_000  # more of a fixed budget would tell no better which weights are the best


def draw(problem: Problem, count: int, seed: int, stream: int, index: int) -> tuple[Tensor, Observation]:
    """Draw number `index` of a stream of draws; the same numbers give the same draw, whatever was drawn before."""
    return problem.sample(count, generator_of(seed, stream, index))


def example_of(problem: Problem, count: int) -> Observation:
    """Measurements that were not trained on, `y` `(count, ...)`, to trace, time or replay an estimator with."""
    return draw(problem.held_out(), count, 0, Stream.VALIDATION, 0)[1]


class Pool:
    """So many pairs of a problem, drawn once: a tenth, or 10 000, held out, the others in a new order each epoch.

    Args:
        problem: Where the pairs come from; of stored ones none is taken twice.
        count: How many pairs.
        seed: Seed of the draws and of the order.
        all_train: Whether all pairs are trained on and all are held out: for what leaves some out itself.

    Raises:
        ValueError: If the count is below 20, or fewer pairs are stored.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.problems.draws import Pool
        >>> pool = Pool(ff.problems.Tone(), count=200, seed=0)
        >>> pool.batch(32, step=0)[0].shape, pool.part(held_out=True)[0].shape
        (torch.Size([32, 1]), torch.Size([20, 1]))
    """

    def __init__(self, problem: Problem, count: int, seed: int, *, all_train: bool = False):
        if count < 20:
            raise ValueError(f"simulations is {count}; pass at least 20, a tenth of them is held out.")
        self.x, self.obs = _pairs_of(problem, count, seed)
        held_out = min(max(2, count // 10), MOST_HELD_OUT)
        self.seed, self.train = seed, count if all_train else count - held_out
        self.first_held_out = max(0, count - MOST_HELD_OUT) if all_train else self.train
        self._order: tuple[int, Tensor] | None = None

    def batch(self, size: int, step: int) -> tuple[Tensor, Observation]:
        """Batch number `step`; every epoch goes once through all pairs, but for what is left of the last batch."""
        size = min(size, self.train)
        epoch, place = divmod(step, self.train // size)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(self.train, generator=generator_of(self.seed, Stream.TRAINING, 1 + epoch))
            self._order = epoch, order
        rows = self._order[1][place * size : (place + 1) * size]
        return self.x[rows], self.obs[rows]

    def part(self, *, held_out: bool) -> tuple[Tensor, Observation]:
        """All pairs to train on, or those held out."""
        rows = slice(self.first_held_out, None) if held_out else slice(0, self.train)
        return self.x[rows], self.obs[rows]


def _pairs_of(problem: Problem, count: int, seed: int) -> tuple[Tensor, Observation]:
    """So many pairs; of stored ones none twice, or those held out would not be new."""
    if offers(problem, Distinct):
        return problem.distinct(count, generator_of(seed, Stream.TRAINING, 0))
    if not offers(problem, Stored):
        return draw(problem, count, seed, Stream.TRAINING, 0)
    x, obs = problem.every()
    if count > len(x):
        raise ValueError(f"simulations is {count} and only {len(x)} pairs are stored to train on; simulate more.")
    rows = torch.randperm(len(x), generator=generator_of(seed, Stream.TRAINING, 0))[:count]
    return x[rows], obs[rows]
