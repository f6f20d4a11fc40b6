"""Estimators: everything that maps an observation to an estimate."""

from fanfold.estimators import ofdm
from fanfold.estimators.arrays.calibration import fit_factors, fit_responses
from fanfold.estimators.arrays.learned_responses import LearnedResponses
from fanfold.estimators.arrays.locator import Locator
from fanfold.estimators.arrays.subspace import ESPRIT, MUSIC, RootMUSIC
from fanfold.estimators.detection.linear import UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.estimators.detection.sphere import SphereDecoder
from fanfold.estimators.imaging.back_projection_unet import BackProjectionUNet
from fanfold.estimators.imaging.hybrid import HybridOAMP
from fanfold.estimators.imaging.hybrid_ep import HybridEP
from fanfold.estimators.imaging.modl import MoDL
from fanfold.estimators.imaging.one_phase import OnePhase
from fanfold.estimators.imaging.threshold_maps import ThresholdMapFISTA
from fanfold.estimators.linear.lmmse import LMMSE
from fanfold.estimators.ofdm.resource_grid import GridEstimator
from fanfold.estimators.posterior.flow_posterior import FlowPosterior
from fanfold.estimators.posterior.maximum_likelihood import MaximumAPosteriori, MaximumLikelihood
from fanfold.estimators.posterior.neural import Neural, NeuralSettings, neural
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

# settings of estimators that learn end to end; each builds its network for a problem
REGISTRY: dict[str, type] = {
    "equilibrium": EquilibriumSettings,
    "neural": NeuralSettings,
    "unfolded": UnfoldedSettings,
} | ofdm.REGISTRY

__all__ = [
    "ESPRIT",
    "LMMSE",
    "MUSIC",
    "REGISTRY",
    "BackProjectionUNet",
    "FlowPosterior",
    "GridEstimator",
    "HybridEP",
    "HybridOAMP",
    "LearnedResponses",
    "Locator",
    "MaximumAPosteriori",
    "MaximumLikelihood",
    "MoDL",
    "Neural",
    "NeuralSettings",
    "OnePhase",
    "RootMUSIC",
    "SphereDecoder",
    "ThresholdMapFISTA",
    "UnbiasedLMMSE",
    "ZeroForcing",
    "fit_factors",
    "fit_responses",
    "matched_filter_bound",
    "neural",
]
