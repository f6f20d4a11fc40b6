"""Settings of every network that images scenes: what another estimator may hand its measurements to."""

from fanfold.estimators.imaging.back_projection_unet import BackProjectionUNetSettings
from fanfold.estimators.imaging.hybrid import HybridOAMPSettings
from fanfold.estimators.imaging.hybrid_ep import HybridEPSettings
from fanfold.estimators.imaging.modl import MoDLSettings
from fanfold.estimators.imaging.threshold_maps import ThresholdMapFISTASettings
from fanfold.unfolding.unfold import UnfoldedSettings

Imaging = (
    UnfoldedSettings
    | HybridOAMPSettings
    | HybridEPSettings
    | ThresholdMapFISTASettings
    | MoDLSettings
    | BackProjectionUNetSettings
)
