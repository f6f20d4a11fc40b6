"""Estimators: everything that maps an observation to an estimate."""

from fanfold.estimators.linear import UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.estimators.lmmse import LMMSE
from fanfold.estimators.sphere import SphereDecoder

__all__ = ["LMMSE", "SphereDecoder", "UnbiasedLMMSE", "ZeroForcing", "matched_filter_bound"]
