"""Sources by name: a model with its settings, or a stored set of channels."""

from functools import lru_cache
from pathlib import Path

from fanfold.propagation.base import Source
from fanfold.propagation.dataset import Dataset


@lru_cache(maxsize=32)
def source_of(name: str) -> Source:
    """The source that a name stands for.

    Args:
        name: The path of a dataset.

    Raises:
        ValueError: If there is none of that name.
    """
    if Path(name).is_dir():
        return Dataset(name)
    raise ValueError(f"there is no source of channels {name!r}; pass the path of a dataset.")
