"""Is this observation still one of those that the estimator was made for? Scores, p-values and alarms over time."""

from fanfold.guard.monitoring.answered import Answered
from fanfold.guard.monitoring.calibrating import bearable, monitor
from fanfold.guard.monitoring.conditional import band, check_level, draws_needed, lifted, rate_given
from fanfold.guard.monitoring.keeping import keep_monitor, kept_monitor, load_monitor, save_monitor
from fanfold.guard.monitoring.monitor import Monitor
from fanfold.guard.monitoring.registry import COMBINED, COSTLY, SCORES
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
from fanfold.guard.monitoring.stepping import MonitorStep
from fanfold.guard.monitoring.streams import CusumWatch, MartingaleWatch, cusum_threshold, share_in_windows
from fanfold.guard.monitoring.unexplained import Unexplained

__all__ = [
    "COMBINED",
    "COSTLY",
    "SCORES",
    "Answered",
    "CarriedVariance",
    "Course",
    "CusumWatch",
    "Disagreement",
    "Energy",
    "HeldOutLoss",
    "MartingaleWatch",
    "Monitor",
    "MonitorStep",
    "Residual",
    "Strangeness",
    "Summary",
    "Unexplained",
    "band",
    "bearable",
    "check_level",
    "cusum_threshold",
    "draws_needed",
    "keep_monitor",
    "kept_monitor",
    "lifted",
    "load_monitor",
    "monitor",
    "rate_given",
    "save_monitor",
    "share_in_windows",
]
