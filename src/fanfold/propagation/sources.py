"""Sources by name: a shipped draw, the folder of a dataset, or several of them joined by +."""

from functools import lru_cache
from pathlib import Path

from fanfold.propagation.base import Source
from fanfold.propagation.dataset import Dataset
from fanfold.propagation.mixed import Mixed

SHIPPED = {"umi": Path(__file__).parent / "data" / "umi"}  # 32 antennas and 24 subcarriers


@lru_cache(maxsize=32)
def source_of(name: str) -> Source:
    """The source that a name stands for.

    Args:
        name: `"umi"`, which is shipped, or the path of a dataset; `"A+B"` is both in equal parts.

    Raises:
        ValueError: If there is none of that name.
    """
    if name in SHIPPED:
        return Dataset(str(SHIPPED[name]))
    if Path(name).is_dir():
        return Dataset(name)
    if "+" in name:
        names = tuple(part.strip() for part in name.split("+"))
        return Mixed(tuple(source_of(part) for part in names), names)
    raise ValueError(f"there is no source of channels {name!r}; pass umi or the path of a dataset.")
