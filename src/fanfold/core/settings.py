"""Settings: each field of a frozen dataclass is held against its annotation, in this one place.

A class whose base is `Checked` has its fields checked before its `__post_init__`, which then asks only what an
annotation cannot say. A value that means the same is made what the annotation says: lists, of files, become tuples,
integers floats where a float is wanted, and whole floats integers.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar, get_type_hints

from fanfold.core.annotations import MisfitError, fitting, is_plain, options_of, wanted_by, words_of
from fanfold.core.suggest import did_you_mean

WANTED = "wanted"  # in the metadata of a field, what to pass: where its annotation, a function say, says it badly


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
        return fitting(value, kind)
    except MisfitError:
        shown = repr(value)
        shown = f"of class {type(value).__name__}" if len(shown) > 80 or "\n" in shown else shown
        words = [str(word) for choice in options_of(kind) for word in words_of(choice)]
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise ValueError(f"{who}: {name} is {shown}; {wanted or wanted_by(kind)}.{hint}") from None


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
        return {name: hints[name] for name in signature.parameters if name in hints and is_plain(hints[name])}

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
            raise ValueError(f"{what} lacks {field.name}; {wanted_by(kinds[field.name])}.")


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
