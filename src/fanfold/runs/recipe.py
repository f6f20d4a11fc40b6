"""Problems, algorithms and networks as plain data, and back: what a run directory keeps instead of pickled objects.

Only what stands in the registries is built by name, so that nothing that is loaded can run code. A class or function of
the user's own is written down by its name alone, `{given = "MyProblem"}`, and must be handed in again.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from inspect import isroutine
from typing import Any

import numpy as np
from torch import Tensor, nn

from fanfold import algorithms, estimators, likelihoods, penalties, priors, problems
from fanfold.core.abilities import ability, offers
from fanfold.core.settings import check_names, check_table, within
from fanfold.core.suggest import did_you_mean
from fanfold.estimators.base import Kept, Settings
from fanfold.problems.protocols import MaybeHandedOver

GIVEN = "given"
Data = dict[str, Any]

MODELS: dict[str, type] = {**likelihoods.REGISTRY, **penalties.REGISTRY, **priors.REGISTRY}
# what the settings of problems, and those of networks, are made of; no network holds a problem, which may read files
OF_PROBLEMS: dict[str, type] = {**MODELS, **problems.REGISTRY, **problems.PARTS}
OF_NETWORKS: dict[str, type] = {**MODELS, **algorithms.REGISTRY, **estimators.REGISTRY}
NAMES = {kind: name for name, kind in (OF_PROBLEMS | OF_NETWORKS).items()}


def describe(thing: Any) -> Data:
    """A registered frozen dataclass as `{"name": ..., **fields}`; fields that are None are left out.

    What is not registered, or holds arrays, is `{"given": its type's name}`, to be handed in when it is built again.

    Raises:
        ValueError: If it cannot be told by a name.
    """
    name = NAMES.get(type(thing))
    if name is None or (offers(thing, MaybeHandedOver) and thing.handed_over):
        return {GIVEN: name_of(thing)} | _plain_fields(thing)
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
        ValueError: If it is a lambda, a partial function, or an array, which no name stands for.
    """
    if isinstance(thing, Tensor | np.ndarray | partial):
        raise ValueError(
            f"a run directory cannot name a {type(thing).__name__} among settings; put it into a class or a function "
            "of your own, which is handed in again."
        )
    name = thing.__qualname__ if isinstance(thing, type) or isroutine(thing) else type(thing).__qualname__
    if "<lambda>" in name:
        raise ValueError("a run directory cannot name a lambda; define it with def, so that it can be asked for again.")
    return name.rpartition("<locals>.")[2]


def build(
    data: Mapping[str, Any],
    registry: Mapping[str, type],
    parts: Mapping[str, type],
    handed_in: Mapping[str, Any] | None = None,
) -> Any:
    """What `describe` described.

    Args:
        data: The description.
        registry: What its name may stand for.
        parts: What names within its settings may stand for.
        handed_in: What a user gives for classes of their own, by the setting's name: `problem`, `algorithm`, `loss`.

    Raises:
        ValueError: If a name or a field is unknown, or something of the user's own is not handed in.
    """
    settings = check_table(data)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"unknown name {name!r}; there are {', '.join(registry)}.{did_you_mean(str(name), registry)}")
    check_names(registry[name], settings, name)
    return registry[name](**{k: built(v, k, parts, handed_in or {}) for k, v in settings.items()})


def built(value: Any, what: str, parts: Mapping[str, type], handed_in: Mapping[str, Any]) -> Any:
    """A setting from plain data; a list was a tuple.

    Raises:
        ValueError: If it was of the user's own and is not handed in.
    """
    if isinstance(value, dict):
        if GIVEN in value:
            return taken(value, what, handed_in)
        if "name" not in value:
            return {k: built(v, k, parts, handed_in) for k, v in value.items()}
        with within(what):
            return build(value, parts, parts, handed_in)
    return tuple(built(v, what, parts, handed_in) for v in value) if isinstance(value, list) else value


def taken(data: Mapping[str, Any], what: str, handed_in: Mapping[str, Any]) -> Any:
    """What the user hands in for a class or function of their own.

    Raises:
        ValueError: If it is missing, or has another name or other settings.
    """
    name, thing = data[GIVEN], handed_in.get(what)
    if not isinstance(name, str):
        raise ValueError(f"{GIVEN} is {name!r}; it is the name of a class of the user's own.")
    if thing is None:
        raise ValueError(
            f"the run was made with a {what} of the user's own, {name}: hand it in, ff.load(path, {what}=...)."
        )
    if isinstance(thing, type):
        raise ValueError(f"{what} is the class {name_of(thing)}; hand in an object of it.")
    if name_of(thing) != name:
        raise ValueError(f"the run was made with the {what} {name}, and {name_of(thing)} was handed in.")
    for field, value in _plain_fields(thing).items():
        if field in data and data[field] != value:
            raise ValueError(
                f"the run was made with {name}({field}={data[field]!r}) as its {what}, "
                f"and {field}={value!r} was handed in."
            )
    return thing


def _plain_fields(thing: Any) -> Data:
    """The fields of a user's dataclass that are plain, by which another one of its class is told."""
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        return {}
    fields = {}
    for field in dataclasses.fields(thing):
        try:
            fields[field.name] = _plain(vars(thing)[field.name])
        except (ValueError, KeyError):  # no plain data: an array, or no field of the object at all
            continue
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    """A setting as plain data."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return describe(value)


def describe_network(net: nn.Module) -> Data:
    """A network without its weights; one of a class of the user's own by its name alone."""
    kept, package = ability(net, Kept), __name__.partition(".")[0]
    settings = None if kept is None or type(net).__module__.partition(".")[0] != package else kept.settings
    return {GIVEN: name_of(net)} if type(settings) not in NAMES else describe(settings)


def build_settings(data: Mapping[str, Any], handed_in: Mapping[str, Any] | None = None) -> Settings:
    """The settings that `describe_network` described.

    Raises:
        ValueError: If they are unknown, of a class of the user's own, or something of the user's own is not handed in.
    """
    if GIVEN in check_table(data):
        raise ValueError(f"{data[GIVEN]} is a network of the user's own, without settings here: train it from Python.")
    return build(data, estimators.REGISTRY, OF_NETWORKS, handed_in)


def describe_problem(problem: Any) -> Data:
    """A problem as plain data; one of a class of the user's own by its name alone."""
    return describe(problem)


def build_problem(data: Mapping[str, Any], handed_in: Mapping[str, Any] | None = None) -> Any:
    """The problem that `describe_problem` described, or the one of the user's own that is handed in.

    Raises:
        ValueError: If it is unknown or not handed in.
    """
    if GIVEN in check_table(data):
        return taken(data, "problem", handed_in or {})
    return build(data, problems.REGISTRY, OF_PROBLEMS, handed_in)


def describe_training(training: Any) -> Data:
    """How to train, as plain data; a loss of the user's own by its name alone.

    Raises:
        ValueError: If the loss has no name.
    """
    settings = {field.name: _plain(vars(training)[field.name]) for field in dataclasses.fields(training)}
    return {name: value for name, value in settings.items() if value is not None}


def build_training(data: Mapping[str, Any], handed_in: Mapping[str, Any]) -> Data:
    """The settings that `describe_training` described.

    Raises:
        ValueError: If the loss was of the user's own and is not handed in.
    """
    return {name: built(value, name, {}, handed_in) for name, value in data.items()}
