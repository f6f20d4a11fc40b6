"""Settings in a name: `rician:k_db=10,array=2x4x8` is the model rician with two of its fields given."""

import dataclasses
import math
import types
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from fanfold.core.suggest import did_you_mean


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar("T", bound=_Dataclass)


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
    types_of = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind) if f.name not in given]
    settings = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if name not in known:
            raise ValueError(f"{what} has no setting {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}")
        if not equals:
            raise ValueError(f"{what}: {name} has no value; write {name}=VALUE.")
        try:
            settings[name] = _value(types_of[name], value)
        except ValueError as error:
            raise ValueError(f"{what}: {name} is {value!r}; pass {_shown(types_of[name])}.") from error
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
