"""Settings: each field of a frozen dataclass is held against its annotation, in this one place.

A class whose base is `Checked` has its fields checked before its `__post_init__`, which then asks only what an
annotation cannot say. A value that means the same is made what the annotation says: lists, of files, become tuples,
integers floats where a float is wanted, and whole floats integers.
"""

import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Any, ClassVar, Literal, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.suggest import did_you_mean

WANTED = "wanted"  # in the metadata of a field, what to pass: where its annotation, a function say, says it badly
LARGEST = 2**63 - 1  # of the integers that torch takes


class Dataclass(Protocol):
    """A dataclass, of any kind.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.core.settings import kinds_of
        >>> kinds_of(ff.penalties.L1)
        {'lam': <class 'float'>}
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar("T", bound=Dataclass)
P = ParamSpec("P")
R = TypeVar("R")


class Checked:
    """The base of a frozen dataclass whose fields are checked when it is made, also where it has a `__post_init__`.

    Raises:
        ValueError: If a field is not what its annotation says; the error names the class, the field and the value.

    Example:
        >>> import fanfold as ff
        >>> ff.algorithms.EP(noise="estimate")
        Traceback (most recent call last):
        ValueError: EP: noise is 'estimate'; take given or estimated. Did you mean 'estimated'?
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if (further := vars(cls).get("__post_init__")) is not None:
            setattr(cls, "__post_init__", _checked_before(further))  # noqa: B010 - as a method, not a field

    def __post_init__(self):
        if type(self).__post_init__ is Checked.__post_init__:  # called by that of a subclass, they are checked already
            check_fields(self)


def _checked_before(further: Callable[[Any], None]) -> Callable[[Any], None]:
    """The `__post_init__` of a class, after a check of the fields."""

    @functools.wraps(further)
    def checked(self: Any) -> None:
        if type(self).__post_init__ is checked:  # called by that of a subclass, they are checked already
            check_fields(self)
        further(self)

    return checked


def check_fields(thing: Any) -> None:
    """Hold each field of a dataclass against its annotation.

    Raises:
        ValueError: Names the first field that is not what its annotation says.
    """
    for name, kind in kinds_of(type(thing)).items():
        wanted = type(thing).__dataclass_fields__[name].metadata.get(WANTED, "")
        value = checked_value(type(thing).__name__, name, vars(thing)[name], kind, wanted)
        object.__setattr__(thing, name, value)


@functools.cache
def kinds_of(cls: Any) -> dict[str, Any]:
    """What each field of a dataclass takes, by name: its annotation, resolved."""
    fields = [field for field in dataclasses.fields(cls) if field.init]
    try:
        hints = get_type_hints(cls)
    except NameError:  # a user's class that names a local one in text: those fields are the user's affair
        hints = {field.name: Any if isinstance(field.type, str) else field.type for field in fields}
    return {field.name: hints[field.name] for field in fields}


def checked_value(who: str, name: str, value: Any, kind: Any, wanted: str = "") -> Any:
    """A value as its annotation has it.

    Args:
        who: Whose setting it is: a class, or a function.
        name: The name of the setting.
        value: What was given.
        kind: The annotation, resolved.
        wanted: What to pass, where its annotation does not say that well.

    Raises:
        ValueError: If it is none of what the annotation says.
    """
    try:
        return _fitting(value, kind)
    except _MisfitError:
        shown = repr(value)
        shown = f"of class {type(value).__name__}" if len(shown) > 80 or "\n" in shown else shown
        words = [str(word) for choice in _options(kind) for word in _words(choice)]
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise ValueError(f"{who}: {name} is {shown}; {wanted or _wanted(kind)}.{hint}") from None


def checks_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose plain arguments, numbers and words, are checked as the fields of a `Checked` class are.

    Raises:
        ValueError: Says the function, the argument, what arrived and what it takes.

    Example:
        >>> import fanfold as ff
        >>> ff.unfold(ff.algorithms.ISTA(), ff.problems.CompressedSensing(), 2.5, {"step": "tied"})
        Traceback (most recent call last):
        ValueError: unfold: layers is 2.5; pass a whole number.
    """
    signature = inspect.signature(function)
    who = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]

    @functools.cache
    def kinds() -> dict[str, Any]:
        hints = get_type_hints(function)
        return {name: hints[name] for name in signature.parameters if name in hints and _is_plain(hints[name])}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind_partial(*args, **kwargs)
        except TypeError:  # Python says better what is one too many
            return function(*args, **kwargs)
        for name, kind in kinds().items():
            if name in given.arguments:
                given.arguments[name] = checked_value(who, name, given.arguments[name], kind)
        return function(*given.args, **given.kwargs)

    return checked


def made(kind: type[T], settings: Any, what: str) -> T:
    """A dataclass from the settings of a file.

    Args:
        kind: The dataclass.
        settings: Its fields by name.
        what: What it is called in errors.

    Raises:
        ValueError: If a setting is unknown, missing, or not what its field takes.
    """
    check_names(kind, check_table(settings, what), what)
    return kind(**settings)


def check_table(data: Any, what: str = "this") -> dict[str, Any]:
    """A table of a file, as a copy.

    Raises:
        ValueError: If it is something else, such as a number.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} is {data!r} and no table of settings.")
    return dict(data)


def check_names(kind: type[Dataclass], settings: Mapping[str, Any], what: str) -> None:
    """Refuse settings of which a dataclass has no field, or that lack one which it needs.

    Raises:
        ValueError: Names the setting.
    """
    kinds = kinds_of(kind)
    check_known(settings, list(kinds), f"{what} has no setting {{!r}}; it has {{}}.")
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name in kinds and field.name not in settings:
            raise ValueError(f"{what} lacks {field.name}; {_wanted(kinds[field.name])}.")


def check_known(names: Iterable[str], known: Sequence[str], sentence: str) -> None:
    """Refuse names that are unknown, in a sentence that takes the name and the known ones.

    Raises:
        ValueError: Names the first one.
    """
    for name in names:
        if name not in known:
            raise ValueError(sentence.format(name, ", ".join(known)) + did_you_mean(name, known))


@contextmanager
def within(place: str) -> Iterator[None]:
    """Say in which place of a file something is wrong: `config.toml, [problem]: ...`.

    Raises:
        ValueError: What is raised inside, with the place before it.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


class _MisfitError(Exception):
    """A value that is not what an annotation says."""


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _words(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _fitting(value: Any, kind: Any) -> Any:
    """The value as the annotation has it.

    Raises:
        _MisfitError: If it is none.
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
        return {_fitting(k, parts[0]): _fitting(v, parts[1]) for k, v in value.items()}
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
        raise _MisfitError


def _first_fitting(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return _fitting(value, kind)
        except _MisfitError:
            continue
    raise _MisfitError


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if isinstance(value, type(choice)) and not isinstance(value, bool) and value == choice:
            return choice
    raise _MisfitError


def _members(value: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, np.ndarray | Tensor):
        _require(value.ndim == 1)
        value = value.tolist()
    _require(isinstance(value, list | tuple | range))
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_fitting(v, parts[0]) for v in value)
    _require(len(value) == len(parts))
    return tuple(_fitting(v, part) for v, part in zip(value, parts))


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
        raise _MisfitError from None
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


def _is_plain(kind: Any) -> bool:
    """Whether an annotation takes numbers and words, several of them, or one of those and a function."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in PLAIN or origin in (Literal, Callable):
        return True
    if origin in (Union, UnionType, tuple, Sequence):
        return all(part is Ellipsis or _is_plain(part) for part in parts)
    return False


def _wanted(kind: Any) -> str:
    """The end of a sentence that says what an annotation takes."""
    return ("take " if any(map(_words, _options(kind))) else "pass ") + shown(kind)


def shown(kind: Any) -> str:
    """What an annotation takes, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType, Literal):
        return listed(word for part in _options(kind) for word in _words(part) or [shown(part)])
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
