"""Folders of runs and their files of text: new ones that are free, and what is in old ones, which may be damaged."""

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.core.annotations import MisfitError, fitting, shown
from fanfold.core.commands import command
from fanfold.core.data_files import toml_table
from fanfold.core.files import LOCK, check_plain, is_regular, writer_of
from fanfold.runs import operators, origin

SCHEMA = 6  # of config.toml; 1 had no number, and sections of other names; 2 no outline; 3 to 5 other neural weights
CONFIG, ENVIRONMENT = "config.toml", "environment.json"
BEFORE_CONFIG = (ENVIRONMENT, operators.FILE, origin.FILE)  # what a run that was killed while it was made consists of


def check_free(path: Path) -> None:
    """Refuse a directory for a new run that holds anything but what a run killed while it was made leaves behind.

    Raises:
        ValueError: If something is there already.
    """
    if not os.path.lexists(path):
        return
    known = (*BEFORE_CONFIG, LOCK)
    if not path.is_dir() or any(file.name not in known and writer_of(file) is None for file in path.iterdir()):
        raise ValueError(f"{path} exists; choose another run directory, or go on with it: {command('resume', path)}")


def claimed(parent: Path, name: str) -> Path:
    """A new directory `name-1`, `name-2`, … that no other process has, whichever starts at the same moment."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        with suppress(FileExistsError):
            (parent / f"{name}-{number}").mkdir()
            return parent / f"{name}-{number}"
    raise AssertionError("numbers do not end")


def discard_unused(path: Path) -> None:
    """Remove a directory that became no run."""
    if is_regular(path / CONFIG):
        return
    for name in (*BEFORE_CONFIG, LOCK):
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        path.rmdir()


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file of a run.

    Raises:
        ValueError: If it is a link or no plain file, or not TOML.
    """
    check_plain(file)
    return toml_table(file)


def read_json(file: Path, content: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: If it is none.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file} is damaged: {str(data)[:40]} is no object.")
    return data


def checked(file: Path, data: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a JSON object, each as its annotation has it; one that is absent is None.

    Raises:
        ValueError: Names the first field that is something else.
    """
    fields = dict(data)
    for name, kind in kinds.items():
        try:
            fields[name] = fitting(data.get(name), kind)
        except MisfitError:
            said = f"{name} is {str(data[name])[:40]!r}" if name in data else f"it says no {name}"
            raise ValueError(f"{file} is damaged: {said}, which is {shown(kind)}; restore it from a copy.") from None
    return fields


def check_schema(config: Mapping[str, Any], source: Path) -> None:
    """Refuse a config of another schema.

    Raises:
        ValueError: Says which fanfold wrote it.
    """
    schema = config.get("schema", 1)
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise ValueError(f"{source} is damaged: its schema is {schema!r}; this fanfold reads {SCHEMA}.")
    if schema != SCHEMA:
        age = "an older" if schema < SCHEMA else "a newer"
        raise ValueError(
            f"{source} was written by {age} fanfold (schema {schema}; this one reads {SCHEMA}): train anew."
        )
