"""Channels of a radio link: models, stored draws and pilots. A new source is a file here and a row in the registry."""

from fanfold.propagation.base import Layout, Part, Source
from fanfold.propagation.dataset import Dataset
from fanfold.propagation.pilots import pilot_mask
from fanfold.propagation.sources import source_of

__all__ = ["Dataset", "Layout", "Part", "Source", "pilot_mask", "source_of"]
