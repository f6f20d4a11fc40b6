"""What a page of a topic is made of: programs, arrays and facts, kept in `NAME.zip`; `made.py` makes it again."""

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
TOPICS = ("posterior", "intervals", "guard", "release")
FACTS, ARRAYS, WEIGHTS = "facts.json", "arrays.safetensors", "weights.safetensors"


class TopicParts(NamedTuple):
    """One topic as it is kept.

    Attributes:
        facts: Words, sliders and numbers, as the page's manifest has them.
        programs: What the page runs, by name.
        arrays: What the page gives to programs, by name, in single precision.
        weights: What was trained, by name, from which torch builds the same estimators.

    Example:
        >>> from fanfold.report.figure.topics import kept_topic
        >>> sorted(kept_topic("guard").programs)
        ['baseline', 'guarded', 'measured', 'network']
    """

    facts: Mapping[str, Any]
    programs: Mapping[str, BuiltProgram]
    arrays: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@lru_cache
def kept_topic(name: str) -> TopicParts:
    """A topic that `write_topic` kept.

    Raises:
        ValueError: If there is no such topic.
    """
    if name not in TOPICS:
        raise ValueError(f"the figure has no topic {name!r}; choose of {', '.join(TOPICS)}.")
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        facts = json.loads(archive.read(FACTS))
        programs = {
            key: BuiltProgram(archive.read(f"{key}.wasm"), *ports) for key, ports in facts.pop("programs").items()
        }
        return TopicParts(facts, programs, load(archive.read(ARRAYS)), load(archive.read(WEIGHTS)))


def write_topic(name: str, topic: TopicParts, folder: Path = FOLDER) -> Path:
    """Keep what `make_topic` gave."""
    ports = {key: one[1:] for key, one in topic.programs.items()}
    files = {
        FACTS: json.dumps({**topic.facts, "programs": ports}).encode(),
        ARRAYS: save({k: t.contiguous() for k, t in topic.arrays.items()}),
        WEIGHTS: save({k: t.contiguous() for k, t in topic.weights.items()}),
    }
    files |= {f"{key}.wasm": one.wasm for key, one in topic.programs.items()}
    write_whole(folder / f"{name}.zip", zipped(files))
    kept_topic.cache_clear()
    return folder / f"{name}.zip"
