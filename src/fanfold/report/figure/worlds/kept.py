"""What a page of a world is made of: programs, unknowns and facts, kept in `NAME.zip`; `made.py` makes it again."""

import json
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from fanfold.core.files import write_whole
from fanfold.report.figure.built import BuiltProgram, zipped

FOLDER = Path(__file__).parent
PICTURED = ("photograph", "rf", "channel")  # the worlds whose estimates are pictures
FACTS, WEIGHTS, SIGNALS = "facts.json", "weights.safetensors", "signals"


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
        facts = json.loads(archive.read(FACTS))
        programs = {
            key: BuiltProgram(archive.read(f"{key}.wasm"), *ports) for key, ports in facts.pop("programs").items()
        }
        weights = load(archive.read(WEIGHTS))
    return WorldParts(facts, programs, weights.pop(SIGNALS), weights)


def write_world(name: str, world: WorldParts, folder: Path = FOLDER) -> Path:
    """Keep what `make_world` gave."""
    ports = {key: one[1:] for key, one in world.programs.items()}
    tensors = {**world.weights, SIGNALS: world.signals}
    files = {
        FACTS: json.dumps({**world.facts, "programs": ports}).encode(),
        WEIGHTS: save({k: t.contiguous() for k, t in tensors.items()}),
    }
    files |= {f"{key}.wasm": one.wasm for key, one in world.programs.items()}
    write_whole(folder / f"{name}.zip", zipped(files))
    kept_world.cache_clear()
    return folder / f"{name}.zip"
