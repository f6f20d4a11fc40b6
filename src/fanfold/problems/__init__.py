"""Problems: draws of signals and their observations. A new one is a file here and a row in the registry."""

from fanfold.problems.base import Problem
from fanfold.problems.clustered import Clustered
from fanfold.problems.compressed_sensing import CompressedSensing
from fanfold.problems.exactly_sparse import ExactlySparse
from fanfold.problems.generalized_linear import GeneralizedLinear
from fanfold.problems.mimo_detection import MIMODetection
from fanfold.problems.mismatched import Mismatched
from fanfold.problems.pairs import Pairs
from fanfold.problems.photographs import Photographs
from fanfold.problems.rf_geometry import RFGeometry
from fanfold.problems.rf_imaging import RFImaging
from fanfold.problems.varied import Varied

REGISTRY: dict[str, type] = {
    "clustered": Clustered,
    "compressed-sensing": CompressedSensing,
    "exactly-sparse": ExactlySparse,
    "generalized-linear": GeneralizedLinear,
    "mimo-detection": MIMODetection,
    "mismatched": Mismatched,
    "pairs": Pairs,
    "photographs": Photographs,
    "rf": RFGeometry,
    "rf-imaging": RFImaging,
    "varied": Varied,
}

__all__ = [
    "REGISTRY",
    "Clustered",
    "CompressedSensing",
    "ExactlySparse",
    "GeneralizedLinear",
    "MIMODetection",
    "Mismatched",
    "Pairs",
    "Photographs",
    "Problem",
    "RFGeometry",
    "RFImaging",
    "Varied",
]
