"""Whether posterior draws are draws of the posterior: ranks of the truth, and coverage around random points.

Talts, Betancourt, Simpson, Vehtari & Gelman (2018), theorem 1; Lemos, Coogan, Hezaveh & Perreault-Levasseur (2023).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.stats import binom, chisquare
from torch import Tensor

from fanfold.core.streams import Stream, generator_of
from fanfold.evaluation.scores import Histogram
from fanfold.guard.answers import Pairs, calibration_draws
from fanfold.guard.tarp import TARP
from fanfold.observation import Observation, check_finite
from fanfold.problems import Problem


class Sampler(Protocol):
    """A sampler of a posterior, such as a `FlowPosterior`.

    Example:
        >>> import fanfold as ff, torch
        >>> class StandardGaussian:  # where y says nothing, the posterior is the prior
        ...     def sample(self, obs, count, generator):
        ...         return torch.randn(count, len(obs.y), 1, generator=generator)
        >>> x, obs = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)), ff.Observation(torch.ones(500, 1))
        >>> ff.guard.sbc(StandardGaussian(), (x, obs)).p_value > 0.01
        True
    """

    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Draws `(count, samples, n)` from the posteriors of `samples` observations."""
        ...


@dataclass(frozen=True)
class SBC:
    """Ranks of true parameters among draws from their posteriors, which are uniform where the posterior is right.

    Attributes:
        ranks: How many draws lie below the truth, `(samples, n)`, from 0 to `draws`.
        nearer: The share of draws that lie nearer to a random point than the truth does, `(samples,)`: all entries at
            once.
        draws: The number of draws from each posterior.

    Example:
        >>> import fanfold as ff, torch
        >>> ranks = torch.arange(1000)[:, None] % 100
        >>> ff.guard.SBC(ranks, nearer=torch.rand(1000), draws=99).p_value
        1.0
    """

    ranks: Tensor
    nearer: Tensor
    draws: int

    @property
    def p_values(self) -> Tensor:
        """The p-value of Pearson's test of each entry's ranks, `(n,)`."""
        return torch.tensor([self.histogram(i).p_value for i in range(self.ranks.shape[-1])], dtype=torch.float64)

    @property
    def p_value(self) -> float:
        """The least p-value of all entries, times their number: below 0.01 a posterior is wrong (Bonferroni)."""
        return min(1.0, self.p_values.min().item() * len(self.p_values))

    @property
    def joint_p_value(self) -> float:
        """The p-value of the Kolmogorov-Smirnov test that `nearer` is uniform."""
        return self.tarp.p_value

    @property
    def tarp(self) -> TARP:
        """The coverage of regions around random points, from the same draws."""
        return TARP(self.nearer)

    def histogram(self, entry: int, bins: int = 20) -> Histogram:
        """The ranks of one entry, in bins of as equal a width as whole ranks allow.

        A bulge in the middle says that the posterior is too wide, one at the ends too narrow, a slope that it is off.
        """
        values = self.draws + 1
        bins = min(bins, values)
        edge = torch.arange(values) * bins // values  # the bin of each rank
        widths = torch.bincount(edge, minlength=bins).double() / values
        counts = torch.bincount(edge[self.ranks[:, entry]], minlength=bins)
        low, high = binom.interval(0.95, len(self.ranks), 1 / bins)
        p = chisquare(counts.numpy(), (widths * len(self.ranks)).numpy()).pvalue
        return Histogram(counts, float(low), float(high), float(p))

    def expected_coverage(self, levels: Tensor) -> Tensor:
        """How often regions of each level around random points hold the truth (TARP): the levels, if all is right."""
        return self.tarp.expected_coverage(levels)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        p, said = self.p_value, f"p = {self.p_value:.2g}, {len(self.ranks)} draws"
        if p >= 0.01:
            return f"The ranks of the truth among draws of the posterior are uniform ({said})."
        worst = int(self.p_values.argmin())
        return f"The ranks of the truth are not uniform, least of all those of entry {worst}: it is wrong ({said})."


def tarp(
    sampler: Sampler,
    problem: Problem | Pairs,
    *,
    samples: int = 1000,
    draws: int = 99,
    batch: int = 1000,
    seed: int = 0,
) -> TARP:
    """Coverage of regions around random points, of all entries of the parameters at once.

    The points are other draws of the prior. Arguments and errors are those of `sbc`, which gives the same as its
    `tarp`.

    Example:
        >>> import fanfold as ff, torch
        >>> class StandardGaussian:  # where y says nothing, the posterior is the prior
        ...     def sample(self, obs, count, generator):
        ...         return torch.randn(count, len(obs.y), 2, generator=generator)
        >>> x, obs = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)), ff.Observation(torch.ones(500, 1))
        >>> ff.guard.tarp(StandardGaussian(), (x, obs)).p_value > 0.01
        True
    """
    return sbc(sampler, problem, samples=samples, draws=draws, batch=batch, seed=seed).tarp


def sbc(
    sampler: Sampler,
    problem: Problem | Pairs,
    *,
    samples: int = 1000,
    draws: int = 99,
    batch: int = 1000,
    seed: int = 0,
) -> SBC:
    """Simulation-based calibration of a posterior.

    Passing says that the posterior is right on average over the prior, not for each observation: the prior itself
    passes. Complex parameters are judged by real and imaginary parts.

    Args:
        sampler: The sampler of the posterior.
        problem: A problem, whose draws are true parameters and observations, or pairs of them.
        samples: The number of true parameters, of a problem.
        draws: The number of independent draws from each posterior.
        batch: How many observations the sampler sees at a time.
        seed: The seed of all draws.

    Raises:
        ValueError: If there are fewer than 100 true parameters, or the draws are none, not finite or of another shape.
    """
    x, obs = calibration_draws(problem, samples, seed)
    if draws < 1:
        raise ValueError(f"draws is {draws}; pass the number of draws from each posterior, such as 99.")
    if len(x) < 100:
        raise ValueError(f"samples is {len(x)}; pass at least 100, fewer say nothing of a histogram.")
    reference = real(x)[torch.randperm(len(x), generator=generator_of(seed, Stream.POSTERIOR, 0))]
    unit = real(x).std(0).clamp_min(torch.finfo(reference.dtype).tiny)
    ranks, nearer = [], []
    for i in range(0, len(x), batch):
        rows, generator = slice(i, i + batch), generator_of(seed, Stream.POSTERIOR, 1 + i)
        z, truth = real(sampler.sample(obs[rows], draws, generator)), real(x[rows])
        if z.shape != (draws, *truth.shape):
            raise ValueError(f"the sampler gives {tuple(z.shape)}; pass draws of shape {(draws, *truth.shape)}.")
        check_finite("a draw of the sampler", z)
        ties = ((z == truth).sum(0) + 1) * torch.rand(truth.shape, generator=generator)  # atoms: any rank among equals
        ranks.append((z < truth).sum(0) + ties.long())
        near, far = (((t - reference[rows]) / unit).square().sum(-1) for t in (z, truth))
        dither = torch.rand(far.shape, generator=generator, dtype=torch.float64)  # of a rank, to a number in [0, 1]
        nearer.append(((near < far).sum(0) + ((near == far).sum(0) + 1) * dither) / (draws + 1))
    return SBC(torch.cat(ranks), torch.cat(nearer), draws)


def real(x: Tensor) -> Tensor:
    """The entries, complex ones as real parts and then imaginary parts."""
    return torch.cat([x.real, x.imag], -1) if x.is_complex() else x
