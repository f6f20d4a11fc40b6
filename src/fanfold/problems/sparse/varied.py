"""A problem under conditions that differ from draw to draw: what one network for all of them trains on."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Nested
from fanfold.problems.sparse.compressed_sensing import CompressedSensing


@dataclass(frozen=True)
class Varied(Nested):
    """Draws of a problem, each with conditions drawn uniformly from their ranges.

    Train with `nmse_over="sample"`, or the conditions with the largest errors decide alone.

    Raises:
        ValueError: If a range is empty, or a field that is varied would change A.

    Example:
        >>> import fanfold as ff, torch
        >>> ranges = {"sparsity": (0.05, 0.15), "snr_db": (10.0, 40.0)}
        >>> problem = ff.problems.Varied(ff.problems.CompressedSensing(n=40, m=20), ranges)
        >>> problem.sample(8, torch.Generator().manual_seed(0))[1].noise_var.shape
        torch.Size([8, 1])
    """

    problem: CompressedSensing = field(default_factory=CompressedSensing)
    ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"snr_db": (10.0, 40.0)})
    groups: int = 32  # conditions in a batch: its draws are shared out among so many

    def __post_init__(self):
        if self.groups < 1:
            raise ValueError(f"groups is {self.groups}; pass at least 1.")
        for name, (low, high) in self.ranges.items():
            if not low <= high:
                raise ValueError(f"the range of {name} is {low} … {high}; pass the lower end first.")
            for end in (low, high):
                if self.problem.shifted(**{name: end}).A is not self.problem.A:
                    raise ValueError(
                        f"{name} changes the operator A, which all draws share; vary what leaves A as it is."
                    )

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator, which all conditions share."""
        return self.problem.A

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals and their observation, with the noise variance of each."""
        groups = min(self.groups, n)
        sizes = [n // groups + (i < n % groups) for i in range(groups)]
        draws = [self._condition(generator).sample(size, generator) for size in sizes]
        x, y = torch.cat([x for x, _ in draws]), torch.cat([obs.y for _, obs in draws])
        noise_var = [obs.noise_var.expand(len(x), 1) for x, obs in draws if obs.noise_var is not None]
        return x, Observation(y, self.A, torch.cat(noise_var))

    def _condition(self, generator: torch.Generator) -> CompressedSensing:
        shares = torch.rand(len(self.ranges), generator=generator, dtype=torch.float64).tolist()
        changes = {k: low + share * (high - low) for (k, (low, high)), share in zip(self.ranges.items(), shares)}
        return self.problem.shifted(**changes)
