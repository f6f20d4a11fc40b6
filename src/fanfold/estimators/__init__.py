"""Estimators: everything that maps an observation to an estimate."""

from fanfold.estimators import ofdm
from fanfold.estimators.back_projection_unet import BackProjectionUNet
from fanfold.estimators.calibration import fit_factors, fit_responses
from fanfold.estimators.flow_posterior import FlowPosterior
from fanfold.estimators.hybrid import HybridOAMP
from fanfold.estimators.hybrid_ep import HybridEP
from fanfold.estimators.learned_responses import LearnedResponses
from fanfold.estimators.linear import UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.estimators.lmmse import LMMSE
from fanfold.estimators.locator import Locator
from fanfold.estimators.maximum_likelihood import MaximumAPosteriori, MaximumLikelihood
from fanfold.estimators.modl import MoDL
from fanfold.estimators.neural import Neural, NeuralSettings, neural
from fanfold.estimators.one_phase import OnePhase
from fanfold.estimators.sphere import SphereDecoder
from fanfold.estimators.subspace import ESPRIT, MUSIC, RootMUSIC
from fanfold.estimators.threshold_maps import ThresholdMapFISTA

# settings of estimators that learn end to end; each builds its network for a problem
REGISTRY: dict[str, type] = {"neural": NeuralSettings} | ofdm.REGISTRY

__all__ = [
    "ESPRIT",
    "LMMSE",
    "MUSIC",
    "REGISTRY",
    "BackProjectionUNet",
    "FlowPosterior",
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
