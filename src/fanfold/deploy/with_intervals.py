"""An estimator together with the calibrated intervals around it, in operations that leave for other runtimes."""

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, offers, require
from fanfold.estimators.base import InWholeNumbers, Quantiled, Remembering, WithinLimits
from fanfold.guard import Conformal
from fanfold.guard.bands import not_too_small
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation

SCALES = ("constant", "variance")  # whose widths are a number times what an estimate holds


class WithIntervals(nn.Module):
    """The estimator of calibrated intervals, which says their ends too: `x ± q` or `x ± q √var`, within the limits.

    They are those of the `Conformal` to rounding, in the precision of the estimate.

    Args:
        intervals: Calibrated intervals of real unknowns.

    Raises:
        ValueError: If the estimator is no module, computes in whole numbers or remembers its calls, or the widths are
            of a kind that no program has: learned by magnitude, quantiles or groups, discs or ellipsoids.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
        >>> calibrated = ff.guard.conformal(net, problem, samples=200)
        >>> _, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> said = ff.deploy.WithIntervals(calibrated)
        >>> low, high = said.ends(said(obs))
        >>> torch.allclose(high, calibrated(obs).high)
        True
    """

    reach: Tensor

    def __init__(self, intervals: Conformal):
        super().__init__()
        estimator = intervals.estimator
        if not isinstance(estimator, nn.Module):
            raise ValueError(f"{type(estimator).__name__} is no module; its intervals cannot leave with it.")
        if offers(estimator, InWholeNumbers) or offers(estimator, Remembering):
            raise ValueError(
                f"a program of {type(estimator).__name__}, which computes in whole numbers or remembers its calls, "
                "says no intervals; export it without them, or the network in floating point that it was made of."
            )
        if intervals.groups > 1 or intervals.kind == "energy" or intervals.scale not in SCALES:
            raise ValueError(
                f"intervals of kind {intervals.kind!r}, scale {intervals.scale!r} and {intervals.groups} groups have "
                "no program; calibrate them of kind 'each' or 'joint', by 'variance' or 'constant', in one group."
            )
        self.estimator, self.by_variance = estimator, intervals.scale == "variance"
        unit = intervals.learned.get("unit", torch.ones((), dtype=intervals.thresholds.dtype))
        self.register_buffer("reach", intervals.thresholds[0] * unit)

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`.

        Raises:
            ValueError: If it is complex: a disc has no ends.
        """
        estimate = self.estimator(obs)
        if estimate.x.is_complex():
            raise ValueError("intervals of complex unknowns are discs and have no ends; export without them.")
        return estimate

    def ends(self, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """The lower and the upper ends around an estimate, `(..., n)` both."""
        x, half = estimate.x, self.reach.to(estimate.x)
        if self.by_variance:
            assert estimate.var is not None
            half = half * not_too_small(estimate.var.clamp_min(0).sqrt())
        half = half * (1 + 8 * torch.finfo(x.dtype).eps)  # outwards by what rounding may take
        low, high = x - half, x + half
        limited = ability(self.estimator, WithinLimits)
        if limited is None:
            return low, high
        least, largest = (end.to(x) for end in limited.support)
        return torch.minimum(torch.maximum(low, least), largest), torch.minimum(torch.maximum(high, least), largest)

    def quantiles(self, obs: Observation) -> Tensor:
        """The quantiles of the estimator, if it knows some.

        Raises:
            ValueError: If it does not.
        """
        return require(self.estimator, Quantiled, "quantiles").quantiles(obs)
