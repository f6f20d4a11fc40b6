"""Making a topic again: train what it shows, write each part as C, compile that to WebAssembly."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor

from fanfold.report.figure.built import BuiltProgram, compiled_program
from fanfold.report.figure.topics import guard, intervals, posterior, release
from fanfold.report.figure.topics.kept import TopicParts

MADE: dict[str, ModuleType] = {"posterior": posterior, "intervals": intervals, "guard": guard, "release": release}


def make_topic(name: str, weights: Mapping[str, Tensor] | None = None) -> TopicParts:
    """Train and compile one topic, in a minute or two of one core.

    Args:
        name: The topic.
        weights: What was trained, to compile it alone; trained anew if None.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    topic = MADE[name]
    weights = topic.train() if weights is None else weights
    return TopicParts(topic.facts(weights), programs_of_topic(name, weights), topic.arrays(weights), weights)


def programs_of_topic(name: str, weights: Mapping[str, Tensor]) -> dict[str, BuiltProgram]:
    """Every program of a topic, by name.

    Args:
        name: The topic.
        weights: What was trained.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        return {files.name: compiled_program(files) for files in MADE[name].c_of(weights, Path(folder))}
