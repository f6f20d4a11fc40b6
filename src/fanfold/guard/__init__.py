"""Guards: intervals that cover, calibrated variances, risk without the truth, checks, monitors, fallback, shifts."""

from fanfold.evaluation.interval import Interval
from fanfold.evaluation.scores import (
    Histogram,
    Share,
    calibration_curve,
    coverage,
    coverage_by_size,
    error_by_variance,
    gaussian_crps,
    interval_score,
    mean_normalised_square,
    normalised_square,
    pit,
    uniform_histogram,
)
from fanfold.guard.adaptation import Adaptation, adapt
from fanfold.guard.calibrated_variance import CalibratedVariance, calibrate_variance
from fanfold.guard.conformal import Conformal, conformal
from fanfold.guard.fallback import Guarded, Hysteresis, NoiseSplit, Trusting, guarded
from fanfold.guard.lc2st import LC2ST, lc2st
from fanfold.guard.learn_then_test import LearnThenTest, Switched, TriedSetting, learn_then_test
from fanfold.guard.monitoring import (
    CusumWatch,
    MartingaleWatch,
    Monitor,
    draws_needed,
    load_monitor,
    monitor,
    save_monitor,
)
from fanfold.guard.predictive import Predictive, predictive
from fanfold.guard.sbc import SBC, Sampler, sbc, tarp
from fanfold.guard.shifts import (
    Added,
    Amplified,
    BeyondPrior,
    Boosted,
    CalibrationDrift,
    Contaminated,
    Correlated,
    Dead,
    ExtraDirection,
    HeavyTailed,
    Interfered,
    Misbelieved,
    NoiseClaimed,
    Noisier,
    PhaseTurned,
    RadioInterfered,
    SecondUser,
    Shift,
    ShiftTable,
    shift_table,
    shifts,
)
from fanfold.guard.sure import Risk, sure
from fanfold.guard.tarp import TARP
from fanfold.guard.unlike import TrainingGuard, UsualRange

__all__ = [
    "LC2ST",
    "SBC",
    "TARP",
    "Adaptation",
    "Added",
    "Amplified",
    "BeyondPrior",
    "Boosted",
    "CalibratedVariance",
    "CalibrationDrift",
    "Conformal",
    "Contaminated",
    "Correlated",
    "CusumWatch",
    "Dead",
    "ExtraDirection",
    "Guarded",
    "HeavyTailed",
    "Histogram",
    "Hysteresis",
    "Interfered",
    "Interval",
    "LearnThenTest",
    "MartingaleWatch",
    "Misbelieved",
    "Monitor",
    "NoiseClaimed",
    "NoiseSplit",
    "Noisier",
    "PhaseTurned",
    "Predictive",
    "RadioInterfered",
    "Risk",
    "Sampler",
    "SecondUser",
    "Share",
    "Shift",
    "ShiftTable",
    "Switched",
    "TrainingGuard",
    "TriedSetting",
    "Trusting",
    "UsualRange",
    "adapt",
    "calibrate_variance",
    "calibration_curve",
    "conformal",
    "coverage",
    "coverage_by_size",
    "draws_needed",
    "error_by_variance",
    "gaussian_crps",
    "guarded",
    "interval_score",
    "lc2st",
    "learn_then_test",
    "load_monitor",
    "mean_normalised_square",
    "monitor",
    "normalised_square",
    "pit",
    "predictive",
    "save_monitor",
    "sbc",
    "shift_table",
    "shifts",
    "sure",
    "tarp",
    "uniform_histogram",
]


def __dir__() -> list[str]:
    return __all__
