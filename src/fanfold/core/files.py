"""Files that are there whole or not at all, and folders that one process writes to and that hold one thing."""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fanfold.core.strict_json import spelled, strict_json

LOCK = ".lock"  # the file that a process locks while it writes to a folder
LOCK_WAIT_SECONDS = 1.0  # a program that a killed process was starting lets go of the lock a moment later


def write_whole(path: Path, content: bytes, *, follow: bool = True) -> None:
    """Write a file so that it is there whole or not at all, and an older one stays until then.

    Args:
        path: The file.
        content: What it is to hold.
        follow: Whether to write to what a link leads to; if not, as in a folder that may come from elsewhere, the file
            takes the link's place.

    Raises:
        OSError: If the disk is full, say; the older file is unharmed.
    """
    with whole(path, follow=follow) as file:
        file.write(content)


@contextmanager
def whole(path: Path, *, follow: bool = True) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of an older one when the block ends, if it ends well.

    A link is followed if wished, and what is no regular file then, such as a pipe, is written to directly. Where
    several are written in one block, none is replaced unless all could be written.

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
    if follow and path.exists() and not (path.is_file() or path.is_dir()):
        with path.open("wb") as stream:
            yield stream
        return
    target = path.resolve() if follow and path.is_symlink() else path
    # a name that nobody guesses, and that `remove_fragments` knows
    temporary = target.with_name(f".{_short(target.name)}.{secrets.token_hex(4)}.{os.getpid()}")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file")
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}; make it first")
        with temporary.open("xb") as file:
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
    return os.fsdecode(os.fsencode(name)[:220])


def remove_fragments(folder: Path) -> None:
    """Remove the temporary files of `write_whole` whose writers were killed; those of processes that live stay."""
    for file in folder.iterdir():
        writer = writer_of(file)
        if writer is not None and not _lives(writer):
            file.unlink(missing_ok=True)


def writer_of(file: Path) -> int | None:
    """The process whose temporary file of `write_whole` this is, by its name; None of other files."""
    name = re.fullmatch(r"\..+\.(\d+)", file.name)
    return None if name is None else int(name[1])


def _lives(process: int) -> bool:
    if os.name != "posix":  # where the signal 0 is one that is heard
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


def is_regular(file: Path) -> bool:
    """Whether there is a plain file: no link, folder, pipe or device, which a folder from elsewhere may hold."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except (OSError, ValueError):
        return False


def check_plain(file: Path) -> None:
    """Refuse what is no plain file.

    Raises:
        ValueError: If it is a link, a pipe, a device or a folder, or there is none.
    """
    if not is_regular(file):
        what = "no plain file, but a link, a folder, a pipe or a device" if os.path.lexists(file) else "not there"
        raise ValueError(f"{file} is {what}; it is not read.")


def read_regular(file: Path) -> bytes:
    """The bytes of a plain file.

    Raises:
        ValueError: If it is a link, a pipe, a device or a folder, or there is none.
        OSError: If it cannot be read.
    """
    check_plain(file)
    return file.read_bytes()


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

    The operating system lets go of the lock of a process that is killed; what it was writing is removed.

    Raises:
        ValueError: If another process writes to the folder, or its lock is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder / LOCK) and not is_regular(folder / LOCK):
        raise ValueError(f"{folder / LOCK} is no plain file; remove it, and do not trust the folder.")
    with (folder / LOCK).open("a") as lock:
        _take(lock, folder)
        remove_fragments(folder)
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
                    f"another process writes to {folder}; wait for it, or choose another folder."
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
    old, new = _leaves(spelled(held)), _leaves(json.loads(strict_json(wanted)))  # JSON makes lists of tuples
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
