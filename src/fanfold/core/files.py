"""Files that are there whole or not at all, and folders that one process writes to and that hold one thing."""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"  # the file that a process locks while it writes to a folder
LOCK_WAIT_SECONDS = 1.0  # a program that a killed process was starting lets go of the lock a moment later


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, and an older one stays until then.

    Raises:
        OSError: If the disk is full, say; the older file is unharmed.
    """
    with whole(path) as file:
        file.write(content)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of an older one when the block ends, if it ends well.

    A link is followed, and what is no regular file, such as a pipe, is written to directly. Where several are written
    in one block, none is replaced unless all could be written.

    Raises:
        OSError: If it cannot be written; the older file is unharmed.

    Example:
        >>> import pathlib, tempfile
        >>> from fanfold.core.files import whole
        >>> path = pathlib.Path(tempfile.mkdtemp(), "x.txt")
        >>> with whole(path) as file:
        ...     _ = file.write(b"x"), path.exists()
        >>> path.exists()
        True
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        with path.open("wb") as stream:
            yield stream
        return
    target = path.resolve() if path.is_symlink() else path
    temporary = target.with_name(f".{_short(target.name)}.{os.getpid()}")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file")
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}; make it first")
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or "not all of it could be written; is the disk full?"  # numpy gives no reason
        raise OSError(error.errno, f"cannot write {path} ({reason}); what was there is unharmed") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _short(name: str) -> str:
    """As much of a name as leaves room for a process's number, where systems allow 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:230])


def file_hash(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and keep other processes from writing to it until the block ends.

    The operating system lets go of the lock of a process that is killed.

    Raises:
        ValueError: If another process writes to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        _take(lock, folder)
        yield


def _take(lock: IO[str], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without: two writers at once are the user's affair
        return
    end = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"another process draws into {folder}; wait for it, or choose another folder."
                ) from error
        time.sleep(0.05)


def check_same(folder: Path, held: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that holds something else than what is wanted.

    Args:
        folder: The folder.
        held: What the folder says of its content, as its JSON was read; None where it says nothing.
        wanted: What its content is to be, as data that JSON can hold.

    Raises:
        ValueError: If the two differ, by the name of the first field that does; or if the folder says nothing and has
            other files in it than hidden ones.
    """
    if held is None:
        others = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
        if others:
            raise ValueError(f"{folder} holds other things ({', '.join(others[:3])}); choose a folder of its own.")
        return
    old, new = _leaves(held), _leaves(json.loads(json.dumps(wanted)))  # JSON makes lists of tuples
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            raise ValueError(
                f"{folder} holds other draws: {name} is {old.get(name)!r} there and {new.get(name)!r} here; choose "
                "another folder, or the settings with which this one was made."
            )


def _leaves(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as flat ones, such as `problem.command`."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
