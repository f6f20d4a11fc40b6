"""Channel estimators for OFDM: classical, mixtures and learned ones. A new one is a file here and a row below."""

from fanfold.estimators.ofdm.beam_mixer import BeamMixer
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.estimators.ofdm.delay_threshold import DelayThreshold
from fanfold.estimators.ofdm.full_gaussian import FullGaussian
from fanfold.estimators.ofdm.grid_cnn import GridCNN
from fanfold.estimators.ofdm.interpolation import Interpolation
from fanfold.estimators.ofdm.kronecker_gmm import KroneckerGMM
from fanfold.estimators.ofdm.learned_filters import LearnedFilters
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.pursuit import BeamDelayOAMP, BeamDelayOMP
from fanfold.estimators.ofdm.unfolded_admm import UnfoldedADMM
from fanfold.estimators.ofdm.unfolded_oamp import UnfoldedOAMP
from fanfold.estimators.ofdm.wiener import Wiener

__all__ = [
    "BeamDelayOAMP",
    "BeamDelayOMP",
    "BeamMixer",
    "ChannelCovariance",
    "DelayThreshold",
    "FullGaussian",
    "GridCNN",
    "Interpolation",
    "KroneckerGMM",
    "LearnedFilters",
    "NoiseVariance",
    "UnfoldedADMM",
    "UnfoldedOAMP",
    "Wiener",
]
