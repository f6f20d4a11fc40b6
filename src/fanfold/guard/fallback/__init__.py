"""Fallback: a network and a baseline beside it, weighed call by call without the truth."""

from fanfold.guard.fallback.calibrating import guarded
from fanfold.guard.fallback.guarded import Guarded
from fanfold.guard.fallback.hysteresis import Hysteresis, Standing
from fanfold.guard.fallback.limits import Calls, Condition, GuardLimits
from fanfold.guard.fallback.noise_levels import NoiseLevels
from fanfold.guard.fallback.noise_split import Halves, NoiseSplit
from fanfold.guard.fallback.stepping import GuardStep
from fanfold.guard.fallback.trust import Trust, Trusting

__all__ = [
    "Calls",
    "Condition",
    "GuardLimits",
    "GuardStep",
    "Guarded",
    "Halves",
    "Hysteresis",
    "NoiseLevels",
    "NoiseSplit",
    "Standing",
    "Trust",
    "Trusting",
    "guarded",
]


def __dir__() -> list[str]:
    return __all__
