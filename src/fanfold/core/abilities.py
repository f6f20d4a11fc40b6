"""Asking a guest what it can do: by a protocol, never by a name or a class."""

from typing import TypeVar

P = TypeVar("P")


def ability(thing: object, protocol: type[P]) -> P | None:
    """The thing, seen as what the protocol describes, or None where it lacks a member of it.

    Example:
        >>> from collections.abc import Sized
        >>> ability([1, 2], Sized) is not None, ability(3, Sized)
        (True, None)
    """
    return thing if isinstance(thing, protocol) else None
