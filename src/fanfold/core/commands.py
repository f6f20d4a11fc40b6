"""Words for a terminal: commands to propose, which a shell reads as they are meant, and text that it does not obey."""

import os
import shlex
from contextvars import ContextVar
from pathlib import Path

TYPED: ContextVar[str | None] = ContextVar("typed", default=None)  # the command that runs; None in Python


def command(*words: str | Path) -> str:
    """`fanfold` with these words, quoted where a shell would take them apart.

    Args:
        *words: The verb, flags and paths; a path that begins with a dash is written so that it is no flag.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.core.commands import command
        >>> command("resume", Path("runs/my first"))
        "fanfold resume 'runs/my first'"
    """
    return " ".join(["fanfold", *map(_word, words)])


def path_word(path: Path) -> str:
    """A path as a word of a command, which does not begin with a dash, so that it is no flag.

    Example:
        >>> from pathlib import Path
        >>> from fanfold.core.commands import path_word
        >>> path_word(Path("-runs/first"))
        './-runs/first'
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def _word(word: str | Path) -> str:
    text = path_word(word) if isinstance(word, Path) else str(word)
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, text))}'"


def _escaped(character: str) -> str:
    """A character between the quotes of bash that know escapes, so that it stays on its line."""
    if character.isprintable() and character not in "'\\":
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def printable(text: str) -> str:
    r"""The text, with escapes for what a terminal would obey or UTF-8 cannot hold.

    Example:
        >>> from fanfold.core.commands import printable
        >>> print(printable("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
