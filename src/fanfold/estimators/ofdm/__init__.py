"""Channel estimators for OFDM: classical, mixtures and learned ones. A new one is a file here and a row below."""

from fanfold.estimators.ofdm.beam_mixer import BeamMixer, MixerSettings
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.estimators.ofdm.delay_threshold import DelayThreshold
from fanfold.estimators.ofdm.full_gaussian import FullGaussian
from fanfold.estimators.ofdm.grid_cnn import CNNSettings, GridCNN
from fanfold.estimators.ofdm.interpolation import Interpolation
from fanfold.estimators.ofdm.kronecker_gmm import KroneckerGMM
from fanfold.estimators.ofdm.learned_filters import FilterSettings, LearnedFilters
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.pursuit import BeamDelayOAMP, BeamDelayOMP
from fanfold.estimators.ofdm.resource_grid import GridEstimator
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings
from fanfold.estimators.ofdm.unfolded_admm import ADMMSettings, UnfoldedADMM
from fanfold.estimators.ofdm.unfolded_oamp import OAMPSettings, UnfoldedOAMP
from fanfold.estimators.ofdm.wiener import Wiener

# networks that a command or a run directory can name
REGISTRY: dict[str, type[ChannelNetworkSettings]] = {
    "beam-mixer": MixerSettings,
    "learned-filters": FilterSettings,
    "grid-cnn": CNNSettings,
    "beam-delay-admm": ADMMSettings,
    "beam-delay-oamp": OAMPSettings,
}

__all__ = [
    "REGISTRY",
    "ADMMSettings",
    "BeamDelayOAMP",
    "BeamDelayOMP",
    "BeamMixer",
    "CNNSettings",
    "ChannelCovariance",
    "ChannelNetworkSettings",
    "DelayThreshold",
    "FilterSettings",
    "FullGaussian",
    "GridCNN",
    "GridEstimator",
    "Interpolation",
    "KroneckerGMM",
    "LearnedFilters",
    "MixerSettings",
    "NoiseVariance",
    "OAMPSettings",
    "UnfoldedADMM",
    "UnfoldedOAMP",
    "Wiener",
]
