"""Problems: draws of signals and their observations. A new one is a file here and a row in the registry."""

from fanfold.problems.base import Problem
from fanfold.problems.compressed_sensing import CompressedSensing
from fanfold.problems.exactly_sparse import ExactlySparse
from fanfold.problems.generalized_linear import GeneralizedLinear
from fanfold.problems.mimo_detection import MIMODetection
from fanfold.problems.pairs import Pairs
from fanfold.problems.photographs import Photographs
from fanfold.problems.varied import Varied

REGISTRY: dict[str, type] = {
    "compressed-sensing": CompressedSensing,
    "exactly-sparse": ExactlySparse,
    "generalized-linear": GeneralizedLinear,
    "mimo-detection": MIMODetection,
    "pairs": Pairs,
    "photographs": Photographs,
    "varied": Varied,
}

__all__ = [
    "REGISTRY",
    "CompressedSensing",
    "ExactlySparse",
    "GeneralizedLinear",
    "MIMODetection",
    "Pairs",
    "Photographs",
    "Problem",
    "Varied",
]
