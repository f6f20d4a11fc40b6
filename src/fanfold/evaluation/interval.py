"""The answer of a calibrated estimator: an estimate with a region around it, and the promise of the region in words."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """An estimate x `(..., n)` with an interval, or for complex signals a disc, around each entry.

    Attributes:
        x: The estimate.
        radius: Half the width of each interval, or the radius of each disc; real, `(..., n)`.
        low: Lower ends `(..., n)`; None for complex signals.
        high: Upper ends `(..., n)`; None for complex signals.
        coverage: The promised probability.
        joint: Whether all entries of a sample are held at once with that probability, or each by itself.
        axes: How many trailing axes one sample has.
        promise: The promise in words.
        ellipsoid: Where the region is an ellipsoid, its half axes over `√n`; the intervals are then its bounding box.

    Example:
        >>> import fanfold as ff, torch
        >>> x, half = torch.zeros(2), torch.ones(2)
        >>> interval = ff.guard.Interval(x, half, -half, half, coverage=0.9, joint=True, axes=1, promise="90 % hold.")
        >>> interval.covers(torch.tensor([[0.5, -0.5], [0.5, 2.0]]))
        tensor([ True, False])
    """

    x: Tensor
    radius: Tensor
    low: Tensor | None
    high: Tensor | None
    coverage: float
    joint: bool
    axes: int
    promise: str
    ellipsoid: Tensor | None = None

    def covers(self, x: Tensor) -> Tensor:
        """Whether the region holds x `(..., n)`: `(..., n)`, or `(...)` where it is for all entries at once."""
        axes = tuple(range(-self.axes, 0))
        if self.ellipsoid is not None:
            error, half = (x - self.x).abs(), self.ellipsoid
            share = torch.where(half == 0, torch.where(error == 0, 0.0, math.inf), error / half)  # a point holds itself
            return share.square().mean(axes) <= 1
        inside = self.entries_cover(x)
        return inside.flatten(-self.axes).all(-1) if self.joint else inside

    def entries_cover(self, x: Tensor) -> Tensor:
        """Whether each interval or disc by itself holds its entry, `(..., n)`."""
        if self.low is None or self.high is None:
            return (x - self.x).abs() <= self.radius
        return (self.low <= x) & (x <= self.high)

    @property
    def width(self) -> Tensor:
        """The width of each interval, or the diameter of each disc, `(..., n)`."""
        return 2 * self.radius

    def __str__(self) -> str:
        return self.promise
