"""What a guarded estimator holds to, and what it counts."""

from typing import Literal, NamedTuple

from fanfold.guard.fallback.hysteresis import Hysteresis

Condition = Literal["active", "monitoring", "fallback"]


class Calls(NamedTuple):
    """What has happened so far, in calls, each of which is one sample.

    Example:
        >>> from fanfold.guard.fallback import Calls
        >>> Calls().all
        0
    """

    all: int = 0
    judged: int = 0  # of these, the losses were compared
    capped: int = 0  # the network was too far from the baseline
    unfit: int = 0  # y was not finite, silent or saturated, or the network's estimate, or its variance, not finite
    in_fallback: int = 0  # the baseline had the larger weight
    changes: int = 0  # the larger weight went over to the other path
    alarms: int = 0  # the alarm was raised


class GuardLimits(NamedTuple):
    """What a guarded estimator holds to; made by `guarded`.

    Example:
        >>> from fanfold.guard.fallback import GuardLimits
        >>> GuardLimits(radius=1.0, saturated=0.1, every=1, alarm=0.001, latch=False).radius
        1.0
    """

    radius: float  # of the ball around the baseline, in its claimed deviations; in units of x where it claims none
    saturated: float  # share of the entries of y at its largest magnitude, above which y counts as saturated
    every: int  # at which of the calls that are fit losses are compared
    alarm: float  # chance of a false alarm, ever
    latch: bool  # whether the alarm leaves the baseline alone
    axes: int = 1  # of the measurements of one sample
    hysteresis: Hysteresis | None = None  # which keeps to one path at a time; else both are weighed
    further: float = 1.0  # times the radius, at calls whose own losses do not speak loudly against the network
    loud: float = 0.0  # difference of losses, beyond which they do
