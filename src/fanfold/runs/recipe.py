"""Problems, algorithms and networks as plain data, and back: what a run directory keeps instead of pickled objects.

Only what stands in the registries is built by name, so that nothing that is loaded can run code. A class or function of
the user's own is written down by its name alone, `{given = "MyProblem"}`, and must be handed in again.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fanfold import algorithms, estimators, likelihoods, penalties, priors, problems
from fanfold.core.abilities import ability
from fanfold.core.suggest import did_you_mean
from fanfold.estimators.base import Kept, Settings

GIVEN = "given"
Data = dict[str, Any]

# what settings are made of
PARTS: dict[str, type] = {
    **likelihoods.REGISTRY,
    **penalties.REGISTRY,
    **priors.REGISTRY,
    **problems.REGISTRY,
    **problems.PARTS,
    **algorithms.REGISTRY,
    **estimators.REGISTRY,
}
NAMES = {kind: name for name, kind in PARTS.items()}


def describe(thing: Any) -> Data:
    """A registered frozen dataclass as `{"name": ..., **fields}`; fields that are None are left out.

    What is not registered is `{"given": its type's name}`, to be handed in when it is built again.

    Raises:
        ValueError: If it cannot be told by a name.
    """
    name = NAMES.get(type(thing))
    if name is None:
        return {GIVEN: name_of(thing)}
    fields = {f.name: _plain(vars(thing)[f.name]) for f in dataclasses.fields(thing)}
    return {"name": name} | {k: v for k, v in fields.items() if v is not None}


def is_whole(data: Any) -> bool:
    """Whether a description says all: nothing of the user's own must be handed in."""
    if isinstance(data, Mapping):
        return GIVEN not in data and all(is_whole(value) for value in data.values())
    return all(is_whole(value) for value in data) if isinstance(data, list) else True


def name_of(thing: Any) -> str:
    """What a class of the user's own is called, of an instance or a function.

    Raises:
        ValueError: If it is a lambda.
    """
    name = thing.__qualname__ if isinstance(thing, type) or _is_function(thing) else type(thing).__qualname__
    if "<lambda>" in name:
        raise ValueError("a run directory cannot name a lambda; define it with def, so that it can be asked for again.")
    return name.rpartition("<locals>.")[2]


def build(data: Mapping[str, Any], registry: Mapping[str, type], handed_in: Mapping[str, Any] | None = None) -> Any:
    """What `describe` described.

    Args:
        data: The description.
        registry: What its name may stand for.
        handed_in: What a user gives for classes of their own, by the setting's name: `problem`, `algorithm`, `loss`.

    Raises:
        ValueError: If a name or a field is unknown, or something of the user's own is not handed in.
    """
    settings = dict(data)
    name = settings.pop("name", None)
    if name not in registry:
        raise ValueError(f"unknown name {name!r}; there are {', '.join(registry)}.{did_you_mean(str(name), registry)}")
    kind = registry[name]
    known = [f.name for f in dataclasses.fields(kind)]
    for field in settings:
        if field not in known:
            raise ValueError(f"{name} has no setting {field!r}; it has {', '.join(known)}.{did_you_mean(field, known)}")
    return kind(**{k: built(v, k, handed_in or {}) for k, v in settings.items()})


def built(value: Any, what: str, handed_in: Mapping[str, Any]) -> Any:
    """A setting from plain data; a list was a tuple.

    Raises:
        ValueError: If it was of the user's own and is not handed in.
    """
    if isinstance(value, dict):
        if GIVEN in value:
            return taken(value[GIVEN], what, handed_in)
        return (
            build(value, PARTS, handed_in) if "name" in value else {k: built(v, k, handed_in) for k, v in value.items()}
        )
    return tuple(built(v, what, handed_in) for v in value) if isinstance(value, list) else value


def taken(name: str, what: str, handed_in: Mapping[str, Any]) -> Any:
    """What the user hands in for a class or function of their own.

    Raises:
        ValueError: If it is missing or has another name.
    """
    if handed_in.get(what) is None:
        raise ValueError(
            f"the run was made with a {what} of the user's own, {name}: hand it in, ff.load(path, {what}=...)."
        )
    if name_of(handed_in[what]) != name:
        raise ValueError(f"the run was made with the {what} {name}, and {name_of(handed_in[what])} was handed in.")
    return handed_in[what]


def _plain(value: Any) -> Any:
    """A setting as plain data."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return describe(value)


def _is_function(thing: Any) -> bool:
    return isinstance(thing, Callable) and not isinstance(thing, nn.Module) and not dataclasses.is_dataclass(thing)


def describe_network(net: nn.Module) -> Data:
    """A network without its weights; one of a class of the user's own by its name alone."""
    kept = ability(net, Kept)
    settings = None if kept is None else kept.settings
    return {GIVEN: name_of(net)} if settings is None else describe(settings)


def build_settings(data: Mapping[str, Any], handed_in: Mapping[str, Any] | None = None) -> Settings:
    """The settings that `describe_network` described.

    Raises:
        ValueError: If they are unknown or something of the user's own is not handed in.
    """
    return build(data, estimators.REGISTRY, handed_in)


def describe_problem(problem: Any) -> Data:
    """A problem as plain data; one of a class of the user's own by its name alone."""
    return describe(problem)


def build_problem(data: Mapping[str, Any], handed_in: Mapping[str, Any] | None = None) -> Any:
    """The problem that `describe_problem` described, or the one of the user's own that is handed in.

    Raises:
        ValueError: If it is unknown or not handed in.
    """
    if GIVEN in data:
        return taken(data[GIVEN], "problem", handed_in or {})
    return build(data, problems.REGISTRY, handed_in)
