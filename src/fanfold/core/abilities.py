"""Abilities: what a thing can do is a protocol, and generic code asks here whether a guest has its members.

A guest needs no base class and no registration: it has an ability by having the members. They are looked up and not
evaluated, as `isinstance` does from Python 3.12 on, so that asking draws no operator and raises nothing.
"""

import inspect
from functools import lru_cache
from typing import Protocol, TypeVar

from typing_extensions import TypeIs

T = TypeVar("T")


def offers(thing: object, ability: type[T]) -> TypeIs[T]:
    """Whether a thing has every member of a protocol; a method that is None counts as missing.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.core.abilities import offers
        >>> from fanfold.problems.protocols import KnownPosterior
        >>> offers(ff.problems.Tone(), KnownPosterior), offers(ff.problems.CompressedSensing(), KnownPosterior)
        (True, False)
    """
    return not missing(thing, ability)


def ability(thing: object, protocol: type[T]) -> T | None:
    """The thing, seen as what the protocol describes, or None where it lacks a member of it.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.core.abilities import ability
        >>> from fanfold.problems.protocols import Stored
        >>> ability(ff.problems.CompressedSensing(), Stored) is None
        True
    """
    return thing if offers(thing, protocol) else None


def require(thing: object, ability: type[T], who: str, instead: str = "") -> T:
    """The thing itself, once it is known to have an ability.

    Args:
        thing: A guest.
        ability: The protocol that it has to meet.
        who: Who asks for it: a class, or a function.
        instead: A sentence that says what else to do.

    Raises:
        ValueError: If the thing lacks a member: the error names the missing methods, or attributes if no method is.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.core.abilities import require
        >>> from fanfold.problems.protocols import KnownLikelihood
        >>> require(ff.problems.CompressedSensing(), KnownLikelihood, "MaximumLikelihood")
        Traceback (most recent call last):
        ValueError: MaximumLikelihood needs `log_likelihood`; CompressedSensing has none.
    """
    if offers(thing, ability):
        return thing
    names, methods = missing(thing, ability), _methods(ability)
    # attributes go without saying where the methods that use them are not there either
    names = [name for name in names if name in methods] or names
    listed = " and ".join(", ".join(f"`{name}`" for name in part) for part in (names[:-1], names[-1:]) if part)
    sentence = f"{who} needs {listed}; {type(thing).__name__} has none{' of them' * (len(names) > 1)}."
    raise ValueError(f"{sentence} {instead}".rstrip())


def missing(thing: object, ability: type) -> list[str]:
    """The members of a protocol that a thing lacks."""
    methods = _methods(ability)
    return [name for name in _members(ability) if not _has(thing, name, is_method=name in methods)]


def _has(thing: object, name: str, *, is_method: bool) -> bool:
    try:
        value = inspect.getattr_static(thing, name)
    except AttributeError:
        # a module's buffers, and what a wrapper passes on, are found by asking alone
        return hasattr(type(thing), "__getattr__") and hasattr(thing, name)
    return not (is_method and value is None)


@lru_cache(maxsize=256)
def _members(ability: type) -> tuple[str, ...]:
    """The public names that a protocol and those beneath it declare, in the order of their declaration."""
    floors = [c for c in reversed(ability.__mro__) if c is not Protocol and issubclass(type(c), type(Protocol))]
    declared = (name for c in floors for name in (*vars(c).get("__annotations__", {}), *vars(c)))
    return tuple(dict.fromkeys(name for name in declared if not name.startswith("_")))


@lru_cache(maxsize=256)
def _methods(ability: type) -> frozenset[str]:
    return frozenset(name for name in _members(ability) if inspect.isfunction(getattr(ability, name, None)))
