"""Coverage around random points, TARP. Lemos, Coogan, Hezaveh & Perreault-Levasseur (2023)."""

from dataclasses import dataclass

import torch
from scipy.stats import binom, kstest
from torch import Tensor

from fanfold.core.table import Table
from fanfold.evaluation.scores import NOMINAL_LEVELS


@dataclass(frozen=True)
class TARP:
    """How often balls around random points, that hold a share of the posterior's draws, hold the truth.

    Where the posterior is right on average over the prior, that share of the truths is within, at every level: all
    entries are judged at once, correlations with them. The prior in place of the posterior passes.

    Attributes:
        nearer: The share of draws that lie nearer to a random point than the truth does, `(samples,)`; uniform where
            the posterior is right.

    Example:
        >>> import fanfold as ff, torch
        >>> tarp = ff.guard.TARP((torch.arange(500) + 0.5) / 500)
        >>> tarp.expected_coverage(torch.tensor([0.5, 0.9])), tarp.p_value
        (tensor([0.5000, 0.9000], dtype=torch.float64), 1.0)
    """

    nearer: Tensor

    @property
    def p_value(self) -> float:
        """The p-value of the Kolmogorov-Smirnov test that `nearer` is uniform."""
        return float(kstest(self.nearer.numpy(), "uniform").pvalue)

    def expected_coverage(self, levels: Tensor) -> Tensor:
        """How often regions of each level hold the truth, `(levels,)`: the levels, if all is right."""
        return (self.nearer[:, None] <= levels).double().mean(0)

    @property
    def table(self) -> Table:
        """Rows with `nominal`, `measured`, and the binomial 95 % band `low … high` of each level by itself."""
        measured = self.expected_coverage(torch.tensor(NOMINAL_LEVELS, dtype=torch.float64)).tolist()
        count, rows = len(self.nearer), []
        for level, share in zip(NOMINAL_LEVELS, measured):
            low, high = binom.interval(0.95, count, level)
            rows.append({"nominal": level, "measured": share, "low": low / count, "high": high / count})
        return Table(rows)

    @property
    def sentence(self) -> str:
        """The verdict in words: regions are right, too small, too large, or off in another way."""
        p = self.p_value
        said = f"p = {p:.2g}, {len(self.nearer)} draws"
        if p >= 0.01:
            return f"Regions around random points hold the truth as often as they promise ({said})."
        row = min(self.table, key=lambda row: abs(row["nominal"] - 0.8))
        return (
            f"Regions around random points that promise {row['nominal']:.0%} hold the truth in {row['measured']:.0%} "
            f"of the draws; the posterior is wrong ({said})."
        )
