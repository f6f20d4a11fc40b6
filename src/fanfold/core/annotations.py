"""Annotations: whether a value is what one says, what it then is, and how to say in words what it takes."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from torch import Tensor

from fanfold.core.abilities import offers

LARGEST = 2**63 - 1  # of the integers that torch takes


class MisfitError(Exception):
    """A value that is not what an annotation says.

    Example:
        >>> from fanfold.core.annotations import MisfitError, fitting
        >>> try:
        ...     fitting(True, int)
        ... except MisfitError:
        ...     print("True is no whole number here")
        True is no whole number here
    """


def options_of(kind: Any) -> tuple[Any, ...]:
    """The annotations that one is a union of, itself if it is none."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def words_of(kind: Any) -> tuple[Any, ...]:
    """The words, or numbers, that a literal annotation takes; none of another one."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def fitting(value: Any, kind: Any) -> Any:
    """The value as the annotation has it.

    Raises:
        MisfitError: If it is none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first_fitting(value, parts)
    if origin is Literal:
        return _one_of(value, parts)
    if origin is tuple:
        return _members(value, parts)
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(value, Mapping))
        return {fitting(k, parts[0]): fitting(v, parts[1]) for k, v in value.items()}
    if origin is not None and issubclass(origin, Sequence):
        return _members(value, (parts[0], Ellipsis))
    if origin is Callable or kind is Callable:
        _require(callable(value))
        return value
    if kind in PLAIN:
        return PLAIN[kind](value)
    _require(_is_a(value, kind))
    return value


def _require(condition: bool) -> None:
    if not condition:
        raise MisfitError


def _first_fitting(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return fitting(value, kind)
        except MisfitError:
            continue
    raise MisfitError


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if isinstance(value, type(choice)) and not isinstance(value, bool) and value == choice:
            return choice
    raise MisfitError


def _members(value: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, np.ndarray | Tensor):
        _require(value.ndim == 1)
        value = value.tolist()
    _require(isinstance(value, list | tuple | range))
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(fitting(v, parts[0]) for v in value)
    _require(len(value) == len(parts))
    return tuple(fitting(v, part) for v, part in zip(value, parts))


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Any or not isinstance(kind, type):  # or a type variable: nothing to hold it against
        return True
    # a protocol's members are looked up and not evaluated
    return offers(value, kind) if vars(kind).get("_is_protocol", False) else isinstance(value, kind)


def _real(value: Any) -> int | float:
    """A number of any library as one of Python's; one that gradients go through is none, as it would not learn."""
    if isinstance(value, np.generic | np.ndarray) or (isinstance(value, Tensor) and not value.requires_grad):
        _require(value.ndim == 0)
        value = value.item()
    _require(isinstance(value, int | float) and not isinstance(value, bool))
    return value


def _whole(value: Any) -> int:
    value = _real(value)
    _require(-LARGEST - 1 <= value <= LARGEST and value == int(value))  # no NaN either
    return int(value)


def _number(value: Any) -> float:
    try:
        number = float(_real(value))
    except OverflowError:  # of an integer
        raise MisfitError from None
    _require(not math.isnan(number))
    return number


def _text(value: Any) -> str:
    _require(isinstance(value, str | os.PathLike))
    text = os.fspath(value)
    _require(isinstance(text, str) and "\0" not in text)  # no system has such a path
    return text


def _switch(value: Any) -> bool:
    _require(isinstance(value, bool | np.bool_))
    return bool(value)


def _nothing(value: Any) -> None:
    _require(value is None)


PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    str: _text,
    bool: _switch,
    type(None): _nothing,
}
SHOWN = {int: "a whole number", float: "a number", str: "text", bool: "True or False", type(None): "None"}
MANY = {int: "whole numbers", float: "numbers", str: "words", bool: "True or False"}


def is_plain(kind: Any) -> bool:
    """Whether an annotation takes numbers and words, several of them, or one of those and a function."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in PLAIN or origin in (Literal, Callable):
        return True
    if origin in (Union, UnionType, tuple, Sequence):
        return all(part is Ellipsis or is_plain(part) for part in parts)
    return False


def wanted_by(kind: Any) -> str:
    """The end of a sentence that says what an annotation takes."""
    return ("take " if any(map(words_of, options_of(kind))) else "pass ") + shown(kind)


def shown(kind: Any) -> str:
    """What an annotation takes, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType, Literal):
        return listed(word for part in options_of(kind) for word in words_of(part) or [shown(part)])
    if origin is tuple and Ellipsis in parts:
        return f"a tuple of {MANY.get(parts[0], shown(parts[0]))}"
    if origin is tuple:
        same = MANY.get(parts[0]) if len(set(parts)) == 1 else None
        return f"a tuple of {len(parts)} {same or listed(map(shown, parts), 'and')}"
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping of {MANY.get(parts[0], shown(parts[0]))} to {MANY.get(parts[1], shown(parts[1]))}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list of {MANY.get(parts[0], shown(parts[0]))}"
    if origin is Callable or kind is Callable:
        return "a function"
    if kind in SHOWN:
        return SHOWN[kind]
    name = str(getattr(kind, "__name__", kind))
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def listed(words: Any, last: str = "or") -> str:
    """`a, b or c`."""
    *first, end = dict.fromkeys(map(str, words))
    return f"{', '.join(first)} {last} {end}" if first else end
