"""Fallback: a network and a baseline beside it, weighed call by call without the truth."""

from fanfold.guard.fallback.calibrating import guarded
from fanfold.guard.fallback.guarded import Calls, Condition, Guarded, GuardLimits
from fanfold.guard.fallback.noise_split import Halves, NoiseSplit
from fanfold.guard.fallback.trust import Trust, Trusting

__all__ = ["Calls", "Condition", "GuardLimits", "Guarded", "Halves", "NoiseSplit", "Trust", "Trusting", "guarded"]


def __dir__() -> list[str]:
    return __all__
