"""Channel estimators for OFDM: classical, mixtures and learned ones. A new one is a file and a row in `REGISTRY`."""

from fanfold.estimators.base import Settings
from fanfold.estimators.ofdm.adaptation import Adapted, AdaptedSettings
from fanfold.estimators.ofdm.beam_mixer import BeamMixer, MixerSettings
from fanfold.estimators.ofdm.covariance import ChannelCovariance
from fanfold.estimators.ofdm.delay_threshold import DelayThreshold
from fanfold.estimators.ofdm.full_gaussian import FullGaussian
from fanfold.estimators.ofdm.grid_cnn import CNNSettings, GridCNN
from fanfold.estimators.ofdm.interpolation import Interpolation
from fanfold.estimators.ofdm.kronecker_gmm import KroneckerGMM
from fanfold.estimators.ofdm.learned_filters import FilterSettings, LearnedFilters
from fanfold.estimators.ofdm.mixture import Mixture
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.path_oamp import BeamDelayOAMP
from fanfold.estimators.ofdm.path_omp import BeamDelayOMP
from fanfold.estimators.ofdm.peers import channel_peers
from fanfold.estimators.ofdm.resource_grid import GridEstimator
from fanfold.estimators.ofdm.settings import ChannelNetworkSettings
from fanfold.estimators.ofdm.unfolded_admm import ADMMSettings, UnfoldedADMM
from fanfold.estimators.ofdm.unfolded_oamp import OAMPSettings, UnfoldedOAMP
from fanfold.estimators.ofdm.wiener import Wiener

# networks that a command or a run directory can name
REGISTRY: dict[str, type[Settings]] = {
    "beam-mixer": MixerSettings,
    "learned-filters": FilterSettings,
    "grid-cnn": CNNSettings,
    "beam-delay-admm": ADMMSettings,
    "beam-delay-oamp": OAMPSettings,
    "adapted": AdaptedSettings,
}

__all__ = [
    "REGISTRY",
    "ADMMSettings",
    "Adapted",
    "AdaptedSettings",
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
    "Mixture",
    "NoiseVariance",
    "OAMPSettings",
    "UnfoldedADMM",
    "UnfoldedOAMP",
    "Wiener",
    "channel_peers",
]


def __dir__() -> list[str]:
    return __all__
