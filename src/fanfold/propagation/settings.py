"""Settings in a name: `rician:k_db=10,array=2x4x8` is the model rician with two of its fields given."""

import math
import types
from contextlib import suppress
from typing import Any, Literal, TypeVar, get_args, get_origin

from fanfold.core.settings import Dataclass, check_known, kinds_of

T = TypeVar("T", bound=Dataclass)


def made(kind: type[T], what: str, text: str, **given: Any) -> T:
    """A frozen dataclass from `field=value,field=value`; tuples are written `2x4x8`.

    Args:
        kind: The dataclass.
        what: What it is called in errors.
        text: The settings.
        **given: Fields that are given already and that no setting may change.

    Raises:
        ValueError: If a setting is unknown or is not of its field's type.
    """
    kinds = {name: kind for name, kind in kinds_of(kind).items() if name not in given}
    settings = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        check_known([name], list(kinds), f"{what} has no setting {{!r}}; it has {{}}.")
        if not equals:
            raise ValueError(f"{what}: {name} has no value; write {name}=VALUE.")
        try:
            settings[name] = _value(kinds[name], value)
        except ValueError as error:
            raise ValueError(f"{what}: {name} is {value!r}; pass {_shown(kinds[name])}.") from error
    return kind(**given, **settings)


def said(thing: Dataclass) -> str:
    """The settings that make a frozen dataclass again, as `made` reads them; those that are None are left out.

    Args:
        thing: The dataclass; numbers, words and tuples of numbers are its fields.
    """
    given = {name: vars(thing)[name] for name in kinds_of(type(thing))}
    return ",".join(f"{name}={_words(value)}" for name, value in given.items() if value is not None)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(_words, value))
    return repr(value) if isinstance(value, float) else str(value)


def _value(kind: Any, text: str) -> Any:
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is tuple:
        return tuple(_value(arguments[0], part) for part in text.split("x"))
    if get_origin(kind) is Literal:
        named = {str(argument): argument for argument in arguments}
        if text not in named:
            raise ValueError(text)
        return named[text]
    if isinstance(kind, types.UnionType):
        with suppress(ValueError):
            return _value(arguments[0], text)
        return _value(arguments[-1], text)
    if kind is float and math.isnan(float(text)):
        raise ValueError(text)
    return kind(text)


def _shown(kind: Any) -> str:
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is tuple:
        return "numbers joined by x, such as 2x4x8"
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if isinstance(kind, types.UnionType):
        return _shown(arguments[0])
    return {int: "a whole number", float: "a number"}.get(kind, "text")
