"""Channels of a radio link: models, stored draws and pilots. A new source is a file here and a row in the registry.

A Part is the name of a share of stored draws: "train", "validation" or "test".
"""

from fanfold.propagation.base import Layout, Part, Source, StoredSource, stored_fingerprint
from fanfold.propagation.dataset import Dataset
from fanfold.propagation.drawing import Recipe, cached_channels, draw_channels, drawing_events
from fanfold.propagation.mixed import Mixed, distinct
from fanfold.propagation.models import Jakes, Kronecker, Rayleigh, Rician
from fanfold.propagation.pilots import pilot_mask
from fanfold.propagation.sources import files_of_source, source_of
from fanfold.propagation.statistics import Statistics
from fanfold.propagation.tr38901 import TR38901
from fanfold.propagation.user_files import UserFile

__all__ = [
    "TR38901",
    "Dataset",
    "Jakes",
    "Kronecker",
    "Layout",
    "Mixed",
    "Part",
    "Rayleigh",
    "Recipe",
    "Rician",
    "Source",
    "Statistics",
    "StoredSource",
    "UserFile",
    "cached_channels",
    "distinct",
    "draw_channels",
    "drawing_events",
    "files_of_source",
    "pilot_mask",
    "source_of",
    "stored_fingerprint",
]


def __dir__() -> list[str]:
    return __all__
