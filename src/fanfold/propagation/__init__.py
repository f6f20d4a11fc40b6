"""Channels of a radio link: models, stored draws and pilots. A new source is a file here and a row in the registry."""

from fanfold.propagation.base import Layout, Part, Source, StoredSource
from fanfold.propagation.dataset import Dataset
from fanfold.propagation.drawing import cached_channels, draw_channels
from fanfold.propagation.mixed import distinct, stored_fingerprint
from fanfold.propagation.pilots import pilot_mask
from fanfold.propagation.sources import source_of
from fanfold.propagation.tr38901 import TR38901

__all__ = [
    "TR38901",
    "Dataset",
    "Layout",
    "Part",
    "Source",
    "StoredSource",
    "cached_channels",
    "distinct",
    "draw_channels",
    "pilot_mask",
    "source_of",
    "stored_fingerprint",
]
