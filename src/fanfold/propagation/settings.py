"""Settings in a name: `rician:k_db=10,array=2x4x8` is the model rician with two of its fields given."""

import math
import types
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


def _value(kind: Any, text: str) -> Any:
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is tuple:
        return tuple(_value(arguments[0], part) for part in text.split("x"))
    if get_origin(kind) is Literal:
        if text not in arguments:
            raise ValueError(text)
        return text
    if isinstance(kind, types.UnionType):
        return _value(arguments[0], text)
    if kind is float and math.isnan(float(text)):
        raise ValueError(text)
    return kind(text)


def _shown(kind: Any) -> str:
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is tuple:
        return "numbers joined by x, such as 2x4x8"
    if get_origin(kind) is Literal:
        return " or ".join(arguments)
    if isinstance(kind, types.UnionType):
        return _shown(arguments[0])
    return {int: "a whole number", float: "a number"}.get(kind, "text")
