"""The scores by name; a new one is one class and one row."""

from fanfold.guard.monitoring.scores import (
    CarriedVariance,
    Course,
    Disagreement,
    Energy,
    HeldOutLoss,
    Residual,
    Strangeness,
    Summary,
)
from fanfold.guard.monitoring.unexplained import Unexplained

COMBINED = "combined"  # what all scores together are called
SCORES: dict[str, Strangeness] = {
    "energy": Energy(),
    "residual": Residual(),
    "variance": CarriedVariance(),
    "course": Course(),
    "spread": Disagreement(),
    "held-out": HeldOutLoss(),
    "summary": Summary(),
    "unexplained": Unexplained(),
}
COSTLY = ("held-out",)  # that ask the estimator once more
