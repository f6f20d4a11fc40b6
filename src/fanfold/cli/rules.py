"""How words of the command line are read, each kind of value by one rule; the rules need no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

Words = Mapping[str, str]
registry = ConstructorRegistry()


@registry.primitive_rule
def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Numbers, refused in words of the shell."""
    if info.type not in (int, float):
        return None
    read = _whole if info.type is int else _real
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=info.type.__name__.upper(),
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: type(value) is info.type or ("~" if type(value) is int else False),
        str_from_instance=lambda value: [str(value)],
    )


def _whole(word: str) -> int:
    try:
        number = int(word)
    except ValueError:
        value = _float(word)
        hint = f": write {value:.0f}" if value is not None and value.is_integer() and abs(value) < 2**63 else ""
        raise ValueError(f"{_short(word)} is no whole number{hint}") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{_short(word)} is beyond what 64 bits hold")
    return number


def _real(word: str) -> float:
    value = _float(word)
    if value is None or value != value:
        raise ValueError(f"{_short(word)} is no number")
    return value


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _short(word: str) -> str:
    return repr(word if len(word) < 40 else f"{word[:30]}…")


@registry.primitive_rule
def path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Paths; an empty one, as of an unset variable of the shell, is not taken for the folder where one is."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _path(word: str) -> Path:
    if not word:
        raise ValueError("an empty path is none; is a variable of the shell unset?")
    return Path(word)


@registry.primitive_rule
def learn_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Words] | None:
    """A mapping of text to text as words `QUANTITY=SHARING`."""
    if get_origin(info.type) is not Mapping or get_args(info.type) != (str, str):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="QUANTITY=SHARING",
        instance_from_str=lambda words: dict(_shared(word) for word in words),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={words}" for name, words in value.items()],
    )


@registry.primitive_rule
def name_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str] | None:
    """One of some names, where Python takes a function too, which no flag can say."""
    kinds = get_args(info.type)
    if not any(get_origin(kind) is Callable for kind in kinds):
        return None
    names = tuple(name for kind in kinds if get_origin(kind) is Literal for name in get_args(kind))
    return (
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(names) + "}",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: value in names,
            str_from_instance=lambda value: [value],
            choices=names,
        )
        if names
        else None
    )


def _shared(word: str) -> tuple[str, str]:
    quantity, _, sharing = word.partition("=")
    if not sharing:
        raise ValueError(f"cannot read {word!r}; say QUANTITY=SHARING, such as step=per-layer")
    return quantity, sharing
