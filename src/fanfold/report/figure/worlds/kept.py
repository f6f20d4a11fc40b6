"""What a page of a world is made of: programs, unknowns and facts, kept in `NAME.zip`; `made.py` makes it again."""

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from fanfold.core.files import write_whole
from fanfold.report.figure.built import BuiltProgram, kept_programs, with_programs, zipped

FOLDER = Path(__file__).parent
PICTURED = ("photograph", "rf", "channel")  # the worlds whose estimates are pictures
WEIGHTS, SIGNALS = "weights.safetensors", "signals"


class WorldParts(NamedTuple):
    """One world as it is kept.

    Attributes:
        facts: Sizes, words and what was measured, as the page's manifest has them.
        programs: Those that measure, estimate and draw pictures, by name.
        signals: The unknowns that the page measures, `(count, n)` in single precision, complex ones as pairs.
        weights: What was trained and tuned, by name, from which torch builds the same estimators.

    Example:
        >>> from fanfold.report.figure.worlds import kept_world
        >>> kept_world("rf").facts["title"]
        'An RF scene behind two apertures of random codes'
    """

    facts: Mapping[str, Any]
    programs: Mapping[str, BuiltProgram]
    signals: Tensor
    weights: Mapping[str, Tensor]


@lru_cache
def kept_world(name: str) -> WorldParts:
    """A world that `write_world` kept.

    Raises:
        ValueError: If there is no such world.
    """
    if name not in PICTURED:
        raise ValueError(f"the figure has no pictures of {name!r}; choose of {', '.join(PICTURED)}.")
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        facts, programs = kept_programs(archive)
        weights = load(archive.read(WEIGHTS))
    return WorldParts(facts, programs, weights.pop(SIGNALS), weights)


def write_world(name: str, world: WorldParts, folder: Path = FOLDER) -> Path:
    """Keep what `make_world` gave."""
    tensors = {**world.weights, SIGNALS: world.signals}
    files = with_programs(world.facts, world.programs) | {
        WEIGHTS: save({k: t.contiguous() for k, t in tensors.items()}),
    }
    write_whole(folder / f"{name}.zip", zipped(files))
    kept_world.cache_clear()
    return folder / f"{name}.zip"
