"""Files of pairs that are dropped onto the page: written as they come, up to a size, and named by what they hold."""

import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

MOST_BYTES = 64 * 2**20
TOO_LARGE = (
    f"the file has more than {MOST_BYTES // 2**20} MB, which is what the page takes; train on it in the shell: "
    "fanfold train pairs NETWORK --path FILE."
)


class TooLargeError(ValueError):
    """A file that is larger than the page takes.

    Example:
        >>> from fanfold.lab.uploads import TooLargeError
        >>> issubclass(TooLargeError, ValueError)
        True
    """


def checked_name(name: str) -> str:
    """What a file is called here: letters, digits, dots and dashes of its own name, without its ending.

    Raises:
        ValueError: If it is no `.npz`.

    Example:
        >>> from fanfold.lab.uploads import checked_name
        >>> checked_name("../my pairs.npz")
        'my-pairs'
    """
    if not name.lower().endswith(".npz"):
        raise ValueError(
            f"{name[:60]!r} is no .npz file; drop one with arrays x (samples, n) and y (samples, m), and A (m, n) "
            "where it is known: numpy.savez('pairs.npz', x=x, y=y, A=A)."
        )
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name[:-4]).strip("-.")[:60] or "pairs"


def handed_over(name: object, folder: Path) -> Path:
    """A file that was handed over, by its name: no path leads elsewhere.

    Raises:
        ValueError: If there is none of that name.
    """
    there = [file.name for file in folder.glob("*.npz")] if folder.is_dir() else []
    if name not in there:
        raise ValueError(f"there is no file {str(name)[:60]!r} of pairs; drop it onto the page again.")
    return folder / there[there.index(name)]


async def taken(name: str, declared: int, blocks: AsyncIterator[bytes], folder: Path) -> Path:
    """Write a file of pairs into a folder, whole or not at all.

    Args:
        name: What the user calls it.
        declared: How many bytes are said to come, or 0.
        blocks: Its bytes.
        folder: Where it goes, as `NAME-HASH.npz`; the same file again is the same.

    Raises:
        ValueError: If it is no `.npz`, empty or too large.
    """
    stem = checked_name(name)
    if declared > MOST_BYTES:
        raise TooLargeError(TOO_LARGE)
    folder.mkdir(parents=True, exist_ok=True)
    draft, digest, size = folder / f".{secrets.token_hex(8)}.part", hashlib.sha256(), 0
    try:
        with draft.open("xb") as file:
            async for block in blocks:
                size += len(block)
                if size > MOST_BYTES:
                    raise TooLargeError(TOO_LARGE)
                digest.update(block)
                file.write(block)
        if not size:
            raise ValueError(f"{name[:60]!r} is empty; drop a file with arrays x and y.")
        path = folder / f"{stem}-{digest.hexdigest()[:12]}.npz"
        draft.replace(path)
        return path
    finally:
        draft.unlink(missing_ok=True)
