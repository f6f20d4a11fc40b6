"""Problems, algorithms and networks as plain data, and back: what a run directory keeps instead of pickled objects.

Only what stands in the registries can be named, so that nothing that is loaded can run code.
"""

import dataclasses
from typing import Any

from torch import nn

from fanfold import algorithms, estimators, likelihoods, penalties, priors, problems
from fanfold.algorithms import Algorithm
from fanfold.unfolding.equilibrium import Equilibrium, equilibrium
from fanfold.problems import Problem
from fanfold.core.suggest import did_you_mean
from fanfold.unfolding.unfold import Unfolded, unfold


def describe(thing: Any, registry: dict[str, type]) -> dict[str, Any]:
    """A registered frozen dataclass as `{"name": ..., **fields}`; fields that are None are left out.

    Raises:
        ValueError: If its type is not registered.
    """
    for name, kind in registry.items():
        if type(thing) is kind:
            fields = {f.name: _plain(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
            return {"name": name} | {k: v for k, v in fields.items() if v is not None}
    raise ValueError(
        f"{type(thing).__name__} is not registered, so a run directory cannot name it: "
        "add it to the REGISTRY of its package (algorithms, estimators, problems, priors, likelihoods, penalties) first."
    )


def build(data: dict[str, Any], registry: dict[str, type]) -> Any:
    """What `describe` described.

    Raises:
        ValueError: If the name or a field is unknown.
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
    return kind(**{k: _built(v) for k, v in settings.items()})


# settings that are made of others
PARTS: dict[str, type] = likelihoods.REGISTRY | penalties.REGISTRY | priors.REGISTRY | problems.REGISTRY | problems.PARTS
PARTS |= estimators.ofdm.REGISTRY


def _plain(value: Any) -> Any:
    """A setting as plain data."""
    if type(value) in PARTS.values():
        return describe(value, PARTS)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _built(value: Any) -> Any:
    """What `_plain` made plain; a list was a tuple."""
    if isinstance(value, dict):
        return build(value, PARTS) if "name" in value else {k: _built(v) for k, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def describe_network(net: nn.Module) -> dict[str, Any]:
    """A network without its weights.

    Raises:
        ValueError: If it was made with functions or classes of the user's own.
    """
    if not isinstance(net, Unfolded):
        settings = getattr(net, "settings", None)
        if settings is None:
            raise ValueError("a network of the user's own cannot be named in a run directory.")
        fields = describe(settings, estimators.REGISTRY)
        return {fields.pop("name"): fields}
    data = {"algorithm": describe(net.algorithm, algorithms.REGISTRY), "layers": net.layers, "learn": net.learn}
    if isinstance(net, Equilibrium):
        return data | {"equilibrium": {k: getattr(net, k) for k in ("tolerance", "max_iterations", "gradient")}}
    return data | ({"checkpoint": True} if net.checkpoint else {})


def build_network(data: dict[str, Any], problem: Problem) -> nn.Module:
    """The untrained network that `describe_network` described, bound to the problem's operator, if it has one."""
    if (settings := estimator_settings(data)) is not None:
        return settings.build(problem)
    algorithm: Algorithm = build(data["algorithm"], algorithms.REGISTRY)
    if "equilibrium" in data:
        return equilibrium(algorithm, problem, data["learn"], **data["equilibrium"])
    return unfold(algorithm, problem, data["layers"], data["learn"], checkpoint=data.get("checkpoint", False))


def estimator_settings(data: dict[str, Any]) -> Any:
    """Settings of the estimator that a network's description names, or None if it names an algorithm to unfold."""
    named = next((name for name in estimators.REGISTRY if name in data), None)
    return None if named is None else build({"name": named} | data[named], estimators.REGISTRY)


def describe_problem(problem: Problem) -> dict[str, Any]:
    """A registered problem as plain data."""
    return describe(problem, problems.REGISTRY)


def build_problem(data: dict[str, Any]) -> Problem:
    """The problem that `describe_problem` described."""
    return build(data, problems.REGISTRY)
