"""Estimators: everything that maps an observation to an estimate."""

from fanfold.estimators.back_projection_unet import BackProjectionUNet
from fanfold.estimators.hybrid import HybridOAMP
from fanfold.estimators.linear import UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.estimators.lmmse import LMMSE
from fanfold.estimators.sphere import SphereDecoder

__all__ = [
    "LMMSE",
    "BackProjectionUNet",
    "HybridOAMP",
    "SphereDecoder",
    "UnbiasedLMMSE",
    "ZeroForcing",
    "matched_filter_bound",
]
