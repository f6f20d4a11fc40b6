"""Fallback: a network and a baseline beside it, weighed call by call without the truth."""

from fanfold.guard.fallback.calibrating import guarded
from fanfold.guard.fallback.guarded import Guarded
from fanfold.guard.fallback.hysteresis import Hysteresis, Standing
from fanfold.guard.fallback.limits import Calls, Condition, GuardLimits
from fanfold.guard.fallback.noise_split import Explained, Halves, NoiseSplit
from fanfold.guard.fallback.stepping import GuardStep
from fanfold.guard.fallback.trust import Trust, Trusting

__all__ = [
    "Calls",
    "Condition",
    "Explained",
    "GuardLimits",
    "GuardStep",
    "Guarded",
    "Halves",
    "Hysteresis",
    "NoiseSplit",
    "Standing",
    "Trust",
    "Trusting",
    "guarded",
]


def __dir__() -> list[str]:
    return __all__
