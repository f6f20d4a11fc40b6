"""What a page of a topic is made of: programs, arrays and facts, kept in `NAME.zip`; `made.py` makes it again."""

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
TOPICS = ("posterior", "intervals", "guard", "release")
ARRAYS, WEIGHTS = "arrays.safetensors", "weights.safetensors"


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
        facts, programs = kept_programs(archive)
        return TopicParts(facts, programs, load(archive.read(ARRAYS)), load(archive.read(WEIGHTS)))


def write_topic(name: str, topic: TopicParts, folder: Path = FOLDER) -> Path:
    """Keep what `make_topic` gave."""
    files = with_programs(topic.facts, topic.programs) | {
        ARRAYS: save({k: t.contiguous() for k, t in topic.arrays.items()}),
        WEIGHTS: save({k: t.contiguous() for k, t in topic.weights.items()}),
    }
    write_whole(folder / f"{name}.zip", zipped(files))
    kept_topic.cache_clear()
    return folder / f"{name}.zip"
