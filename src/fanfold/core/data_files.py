"""Files that a user names, or that another file names: regular ones, read without running or following anything.

Each reader of data goes through `regular_file`, or through what is made of it: TOML and JSON here, arrays in
`array_files`. Devices, pipes and folders are refused by name; a file that is named inside another lies beside it.
"""

import json
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEEPEST = 50  # tables within tables, of which no file of settings has ten


def regular_file(path: str | Path, missing: str = "") -> Path:
    """The path of a regular file; links that the user has made are followed to one.

    Args:
        path: The path.
        missing: What to say where there is none.

    Raises:
        ValueError: If there is nothing, or a folder, a pipe or a device.

    Example:
        >>> from fanfold.core.data_files import regular_file
        >>> regular_file("/dev/null")
        Traceback (most recent call last):
        ValueError: /dev/null is a device: data are read from regular files alone.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(missing or f"there is no file {path}.") from error
    except OSError as error:  # a name too long, a loop of links, a folder that may not be read
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
        kind = next((name for is_one, name in kinds if is_one(mode)), "device")
        raise ValueError(f"{path} is a {kind}: data are read from regular files alone.")
    return path


def beside(folder: Path, name: Any) -> Path:
    """The path of a file that another file names: in the same folder or below, also after links are followed.

    Raises:
        ValueError: If the name is no text, is absolute, or leads out of the folder.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file.")
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name} leads out of {folder}, and only files there may be named: put it beside them.")
    return path


@contextmanager
def understanding(path: Path, what: str, advice: str = "is it whole?") -> Iterator[None]:
    """Make one sentence of whatever a reader raises on a file that is not what it should be.

    Args:
        path: The file.
        what: What it should be.
        advice: What to do.

    Raises:
        ValueError: Names the file, and what the reader said.
        ImportError: As it was raised.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # of many kinds, from many libraries
        said = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as {what} ({said}); {advice}") from error


def toml_table(path: str | Path, missing: str = "") -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ValueError: If there is no regular file, or it is not TOML.
    """
    return _tables(regular_file(path, missing), "TOML", lambda text: tomllib.loads(text))


def json_object(path: str | Path, missing: str = "") -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        ValueError: If there is no regular file, or it holds no JSON object.
    """
    return _tables(regular_file(path, missing), "JSON", json.loads)


def _tables(path: Path, what: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    with understanding(path, what):
        data = parse(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"it holds {type(data).__name__} and no table")
        check_depth(data)
    return data


def check_depth(data: Any) -> None:
    """Refuse tables and lists that are nested as no settings are, before anything goes down into them.

    Raises:
        ValueError: If there are too many, one in the other.
    """
    level, depth = [data], 0
    while level := [v for part in level if isinstance(part, dict | list) for v in _parts(part)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} tables or lists lie in each other")


def _parts(data: dict[str, Any] | list[Any]) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else data
