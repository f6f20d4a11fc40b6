"""What a benchmark of end-to-end estimators is."""

from typing import Protocol

from fanfold.problems.base import Problem
from fanfold.problems.protocols import KnownPosterior


class Benchmark(Problem, KnownPosterior, Protocol):
    """A problem that draws and knows its posterior; NaN where it could not be computed, which studies count.

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import BENCHMARKS
        >>> x, obs = BENCHMARKS["linear Gaussian"].sample(3, torch.Generator().manual_seed(0))
        >>> BENCHMARKS["linear Gaussian"].posterior(obs).x.shape
        torch.Size([3, 10])
    """
