"""Guards: intervals with a promised coverage, calibrated variances, risk without the truth, and checks of each."""

from fanfold.guard.calibrated_variance import CalibratedVariance, calibrate_variance
from fanfold.guard.conformal import Conformal, conformal
from fanfold.guard.interval import Interval
from fanfold.guard.measures import (
    calibration_curve,
    coverage,
    coverage_by_size,
    error_by_variance,
    gaussian_crps,
    interval_score,
    normalised_square,
    pit,
    uniform_histogram,
)

__all__ = [
    "CalibratedVariance",
    "Conformal",
    "Interval",
    "calibrate_variance",
    "calibration_curve",
    "conformal",
    "coverage",
    "coverage_by_size",
    "error_by_variance",
    "gaussian_crps",
    "interval_score",
    "normalised_square",
    "pit",
    "uniform_histogram",
]
