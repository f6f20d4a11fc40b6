"""Problems: draws of signals and their observations. A new one is a file here and a row in the registry."""

from fanfold.problems.base import Problem
from fanfold.problems.compressed_sensing import CompressedSensing
from fanfold.problems.pairs import Pairs
from fanfold.problems.photographs import Photographs

REGISTRY: dict[str, type] = {
    "compressed-sensing": CompressedSensing,
    "pairs": Pairs,
    "photographs": Photographs,
}

__all__ = ["REGISTRY", "CompressedSensing", "Pairs", "Photographs", "Problem"]
