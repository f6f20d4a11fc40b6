"""Where results go: looked at before the work begins, so that no work is lost and no file by mistake."""

import os
from collections.abc import Sequence
from pathlib import Path

from fanfold.core.commands import command

NAME_BYTES = 255  # of a file, on all common systems


def check_file(path: Path, *, overwrite: bool, suffixes: Sequence[str] = (), source: Path | None = None) -> None:
    """Refuse a file that could not, or should not, be written.

    Args:
        path: The file.
        overwrite: Whether an older file may go.
        suffixes: Endings that say how to write it; any if there are none.
        source: A file that is read, and not to be replaced by what is made of it.

    Raises:
        ValueError: Says why.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path} ends in {path.suffix or 'nothing'}; choose a name that ends in {' or '.join(suffixes)}."
        )
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise ValueError(f"{path.name[:30]}… is too long a name for a file; choose one of at most {NAME_BYTES} bytes.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file.")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"{path} is the file that is read; choose another one for what is made of it.")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for {path.name}; make it first.")
    if not path.exists():
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ValueError(f"the folder {path.parent} cannot be written to; choose another one.")
        return
    if path.is_file() and not overwrite:
        raise ValueError(f"{path} exists; choose another name, or replace it with --overwrite.")
    if not os.access(path, os.W_OK):
        raise ValueError(f"{path} is read-only; choose another name.")


def check_folder(path: Path) -> None:
    """Refuse a folder for results that is none, or that could not be made or written to.

    Raises:
        ValueError: Says why.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{there} is a file; choose a folder for the results.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"the folder {there} cannot be written to; choose another one.")


def goes_on(run: Path, widths: str | None = None) -> str:
    """What to do about a training that was interrupted, and that whole numbers of these widths were to follow."""
    if (run / "config.toml").is_file():
        return f"go on with: {command('resume', run, *([] if widths is None else ['--quantise', widths]))}"
    return "nothing was trained yet; begin anew with:"
