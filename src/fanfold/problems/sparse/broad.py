"""A problem under several conditions, each with its importance: what one network for all of them trains on."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from fanfold.core.streams import Stream, generator_of
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Nested
from fanfold.problems.sparse.compressed_sensing import CompressedSensing

GAIN = "gain"  # of the amplitude of signals, in the noise of before: the one condition that is no field


@dataclass(frozen=True)
class Broad(Nested):
    """Draws of a problem under several conditions, the k-th of which takes the k-th value of each field.

    Of a call's draws each condition has its share, by its importance, at places that depend on the number of draws
    alone. Train with `nmse_over="condition"`, which weighs conditions by their importance, or those with the largest
    errors decide alone.

    Raises:
        ValueError: If conditions have not all as many values, a field that differs would change A, or an importance is
            not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> sensing = ff.problems.CompressedSensing(n=40, m=20)
        >>> problem = ff.problems.Broad(sensing, {"snr_db": (10.0, 30.0), "gain": (1.0, 3.0)}, importance=(3.0, 1.0))
        >>> problem.condition_of(8).bincount()
        tensor([6, 2])
        >>> problem.condition(1).sample(5, torch.Generator().manual_seed(0))[0].shape
        torch.Size([5, 40])
    """

    problem: CompressedSensing = field(default_factory=CompressedSensing)
    conditions: dict[str, tuple[float, ...]] = field(  # values of fields of the problem, and of "gain", an amplitude
        default_factory=lambda: {"snr_db": (10.0, 20.0, 40.0)}
    )
    importance: tuple[float, ...] = ()  # of each condition, relative; all alike if empty

    def __post_init__(self):
        counts = {len(values) for values in self.conditions.values()}
        if len(counts) != 1 or 0 in counts:
            said = ", ".join(f"{len(values)} of {name}" for name, values in self.conditions.items())
            raise ValueError(f"conditions have {said or 'no fields'}; pass as many values of each field, one or more.")
        if len(self.importance) not in (0, self.count) or not all(0 < w < math.inf for w in self.importance):
            raise ValueError(
                f"importance is {self.importance} of {self.count} conditions; pass a positive one of each."
            )
        for k in range(self.count):
            at = self._at(k)
            if not 0 < at.pop(GAIN, 1.0) < math.inf:
                raise ValueError(f"gain is {self.conditions[GAIN]}; pass positive ones, of the amplitude.")
            if self.problem.shifted(**at).A is not self.problem.A:
                raise ValueError(
                    f"condition {k} ({at}) changes the operator A, which all draws share; take what leaves A as it is."
                )

    @property
    def count(self) -> int:
        """How many conditions there are."""
        return len(next(iter(self.conditions.values())))

    @property
    def weights(self) -> Tensor:
        """The importance of each condition, `(count,)`, of sum one."""
        given = torch.tensor(self.importance or (1.0,) * self.count, dtype=torch.float64)
        return given / given.sum()

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator, which all conditions share."""
        return self.problem.A

    def shifted(self, **changes: Any) -> Self:
        """The same problem with some fields changed, but for those of which each condition has its own.

        Raises:
            ValueError: If there is no such field, or conditions have their own.
        """
        for name in changes:
            if name in self.conditions:
                raise ValueError(
                    f"each condition has its own {name}; shift problem.problem, or pass shifted(conditions=...)."
                )
        return super().shifted(**changes)

    def condition(self, k: int) -> "Broad":
        """The problem under one condition alone, for a specialist.

        Args:
            k: Its number, from 0.
        """
        return Broad(self.problem, {name: (values[k],) for name, values in self.conditions.items()})

    def condition_of(self, n: int) -> Tensor:
        """The number of the condition of each of n draws of a call, `(n,)`."""
        ends = (n * self.weights.cumsum(0)).round().long()
        ends[-1] = n
        return torch.repeat_interleave(torch.arange(self.count), ends.diff(prepend=ends.new_zeros(1)))[_order(n)]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals `(n, unknowns)` and their observation, with the noise variance of each."""
        numbers = self.condition_of(n)
        draws = [self._drawn(k, int((numbers == k).sum()), generator) for k in numbers.unique().tolist()]
        place = numbers.argsort(stable=True).argsort()
        x, y, noise_var = (torch.cat(parts)[place] for parts in zip(*draws))
        return x, Observation(y, self.A, noise_var)

    def _at(self, k: int) -> dict[str, float]:
        return {name: values[k] for name, values in self.conditions.items()}

    def _drawn(self, k: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        at = self._at(k)
        gain = at.pop(GAIN, 1.0)
        x, obs = self.problem.shifted(**at).sample(n, generator)
        more = (gain - 1) * x
        assert obs.noise_var is not None
        return x + more, obs.y + self.A @ more, obs.noise_var.expand(n, 1)


@lru_cache(maxsize=64)
def _order(n: int) -> Tensor:
    """An order of n draws that is always the same, so that no part of a call has one condition alone."""
    return torch.randperm(n, generator=generator_of(n, Stream.SHIFTED))
