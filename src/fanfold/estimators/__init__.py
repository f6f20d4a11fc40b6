"""Estimators: everything that maps an observation to an estimate. Those of OFDM channels are in the package `ofdm`.

What can be trained has a row in `REGISTRY`: frozen settings, which build the untrained network for a problem. A run
directory keeps them, and the command line makes flags of their fields, but for those in `FROM_OTHERS`.
"""

from fanfold.estimators import ofdm
from fanfold.estimators.arrays.calibration import fit_factors, fit_responses
from fanfold.estimators.arrays.learned_responses import LearnedResponses, LearnedResponsesSettings
from fanfold.estimators.arrays.locator import Locator, LocatorSettings
from fanfold.estimators.arrays.subspace import ESPRIT, MUSIC, RootMUSIC
from fanfold.estimators.detection.linear import UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.estimators.detection.sphere import SphereDecoder
from fanfold.estimators.fixed_point import QuantisedNetwork, QuantisedSettings, quantised
from fanfold.estimators.imaging.back_projection_unet import BackProjectionUNet, BackProjectionUNetSettings
from fanfold.estimators.imaging.hybrid import HybridOAMP, HybridOAMPSettings
from fanfold.estimators.imaging.hybrid_ep import HybridEP, HybridEPSettings
from fanfold.estimators.imaging.modl import MoDL, MoDLSettings
from fanfold.estimators.imaging.one_phase import OnePhase, OnePhaseSettings
from fanfold.estimators.imaging.threshold_maps import ThresholdMapFISTA, ThresholdMapFISTASettings
from fanfold.estimators.linear.image import WhiteLMMSE, back_projection
from fanfold.estimators.linear.lmmse import LMMSE
from fanfold.estimators.ofdm.resource_grid import GridEstimator
from fanfold.estimators.posterior.ensemble import Ensemble
from fanfold.estimators.posterior.flow_posterior import FlowPosterior, FlowPosteriorSettings
from fanfold.estimators.posterior.lone import Neural
from fanfold.estimators.posterior.maximum_likelihood import MaximumAPosteriori, MaximumLikelihood
from fanfold.estimators.posterior.neural import NeuralSettings, neural
from fanfold.estimators.recalibrated import ErrorLeft, Recalibrated, RecalibratedSettings, ReceiverModel
from fanfold.estimators.sparse import MCP, OMP, DebiasedLasso, Lasso
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

# settings of everything that can be trained; each builds its network for a problem
REGISTRY: dict[str, type] = {
    "unfolded": UnfoldedSettings,
    "equilibrium": EquilibriumSettings,
    "hybrid-oamp": HybridOAMPSettings,
    "hybrid-ep": HybridEPSettings,
    "threshold-map-fista": ThresholdMapFISTASettings,
    "modl": MoDLSettings,
    "back-projection-unet": BackProjectionUNetSettings,
    "one-phase": OnePhaseSettings,
    "learned-responses": LearnedResponsesSettings,
    "locator": LocatorSettings,
    "neural": NeuralSettings,
    "flow-posterior": FlowPosteriorSettings,
    "whole-numbers": QuantisedSettings,
    "recalibrated": RecalibratedSettings,
    **ofdm.REGISTRY,
}
# that no choice of a network names: what an algorithm is unfolded into, and what is made of a trained network
FROM_OTHERS = (UnfoldedSettings, EquilibriumSettings, QuantisedSettings, RecalibratedSettings)

__all__ = [
    "ESPRIT",
    "FROM_OTHERS",
    "LMMSE",
    "MCP",
    "MUSIC",
    "OMP",
    "REGISTRY",
    "BackProjectionUNet",
    "BackProjectionUNetSettings",
    "DebiasedLasso",
    "Ensemble",
    "EquilibriumSettings",
    "ErrorLeft",
    "FlowPosterior",
    "FlowPosteriorSettings",
    "GridEstimator",
    "HybridEP",
    "HybridEPSettings",
    "HybridOAMP",
    "HybridOAMPSettings",
    "Lasso",
    "LearnedResponses",
    "LearnedResponsesSettings",
    "Locator",
    "LocatorSettings",
    "MaximumAPosteriori",
    "MaximumLikelihood",
    "MoDL",
    "MoDLSettings",
    "Neural",
    "NeuralSettings",
    "OnePhase",
    "OnePhaseSettings",
    "QuantisedNetwork",
    "QuantisedSettings",
    "Recalibrated",
    "RecalibratedSettings",
    "ReceiverModel",
    "RootMUSIC",
    "SphereDecoder",
    "ThresholdMapFISTA",
    "ThresholdMapFISTASettings",
    "UnbiasedLMMSE",
    "UnfoldedSettings",
    "WhiteLMMSE",
    "ZeroForcing",
    "back_projection",
    "fit_factors",
    "fit_responses",
    "matched_filter_bound",
    "neural",
    "quantised",
]


def __dir__() -> list[str]:
    return __all__
