"""Sources by name: a shipped draw, a model with its settings, a dataset, a file of the user's, or several of them."""

import os.path
import re
from functools import lru_cache
from pathlib import Path

from fanfold.core.array_files import SUFFIXES
from fanfold.core.suggest import did_you_mean
from fanfold.propagation import tr38901
from fanfold.propagation.base import Source
from fanfold.propagation.dataset import MANIFEST, Dataset
from fanfold.propagation.mixed import Mixed
from fanfold.propagation.models import MODELS
from fanfold.propagation.settings import made
from fanfold.propagation.tr38901 import TR38901
from fanfold.propagation.user_files import UserFile

ON_DEMAND = "tr38901"  # channels of the standard, drawn as they are asked for
SHIPPED = {"umi": Path(__file__).parent / "data" / "umi"}  # 32 antennas and 24 subcarriers
JOINS = re.compile(r"(?<![0-9][eE])\+")  # not that of 1e+3


def source_of(name: str) -> Source:
    """The source that a name stands for.

    Args:
        name: `"umi"`, which is shipped; a model with settings, `"rician:k_db=10,array=2x4x8"`, or
            `"tr38901:model=cdl-c,array=2x4x8"`, which Sionna draws when it is asked; the path of a dataset; a file with
            settings, `"measured.mat:array=2x4x8,name=H"`; or several of these in equal parts, joined by `+`.

    Raises:
        ValueError: If there is none of that name, or a setting is unknown or wrong.

    Example:
        >>> import fanfold as ff
        >>> ff.propagation.source_of("rician:k_db=10,array=2x4x8").layout.shape
        (64, 1, 48)
    """
    if len(names := _parts(name)) > 1:
        return Mixed(tuple(source_of(part) for part in names), tuple(names))
    head, text = _split(name)
    if head in MODELS:
        return made(MODELS[head], head, text)
    if head == ON_DEMAND:
        return made(TR38901, head, text)
    if name in SHIPPED or os.path.isdir(name):
        folder = SHIPPED.get(name, Path(name)).resolve()
        return _dataset(str(folder), _changed(folder / MANIFEST))
    if Path(head).suffix.lower() in SUFFIXES:
        file = Path(head).resolve()
        return _user_file(head, text, str(file), _changed(file))
    raise ValueError(f"there is no source of channels {name!r}; {_hint(head)}")


def files_of_source(name: str) -> list[str]:
    """The parts of a source's name that stand for files or folders, without a look at the disk."""
    parts = [part.strip() for part in JOINS.split(name)]
    return [part for part in parts if part not in SHIPPED and not _is_model(_split(part)[0])]


def _parts(name: str) -> list[str]:
    """The sources that a name joins; a `+` within the name of a folder or file joins nothing."""
    joined, pending = [], ""
    for piece in JOINS.split(name):
        pending = f"{pending}+{piece}" if pending else piece
        if _is_source(pending.strip()):
            joined.append(pending.strip())
            pending = ""
    return [part.strip() for part in JOINS.split(name)] if pending else joined


def _is_source(name: str) -> bool:
    head, _ = _split(name)
    named = _is_model(head) or name in SHIPPED
    return named or os.path.isdir(name) or os.path.isfile(head)


@lru_cache(maxsize=32)
def _dataset(path: str, changed: int) -> Dataset:
    """A dataset, which is opened once until it changes."""
    return Dataset(path)


@lru_cache(maxsize=4)
def _user_file(name: str, settings: str, path: str, changed: int) -> UserFile:
    """A file of the user's, which is read once until it changes."""
    return made(UserFile, name, settings, path=path)


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


def _split(name: str) -> tuple[str, str]:
    """A name and its settings; the colon of a drive is no colon before settings."""
    head, _, text = name.rpartition(":")
    return (head, text) if head and ("=" in text or _is_model(head)) else (name, "")


def _is_model(head: str) -> bool:
    return head in MODELS or head == ON_DEMAND


def _hint(head: str) -> str:
    if head in tr38901.MODELS:
        return f"draw it first (fanfold channels draw {head} --n 10000 --out {head}) and pass that folder: ./{head}."
    known, suffixes = [*SHIPPED, *MODELS, ON_DEMAND], ", ".join(SUFFIXES)
    if "/" in head or "\\" in head:
        return f"there is no folder or file {Path(head).absolute()}."
    return f"pass {', '.join(known)}, the folder of a dataset, or a file ({suffixes}).{did_you_mean(head, known)}"
