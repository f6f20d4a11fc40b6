"""Flags of the command line made from the library's own dataclasses: one row of a registry is one subcommand."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from fanfold import algorithms, estimators, problems
from fanfold.algorithms import Algorithm
from fanfold.cli.rules import Words
from fanfold.estimators import QuantisedSettings, RecalibratedSettings
from fanfold.training.settings import Training
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

Result = dict[str, Any]
Flat = tyro.conf.arg(name="")
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def _option(kind: Any, text: str, hint: str, name: str | None = None) -> Any:
    """The annotation of a flag that need not be given: None is "not given"."""
    metavar = "|".join(get_args(kind)) if get_args(kind) else {int: "INT", float: "FLOAT"}.get(kind, "TEXT")
    return Annotated[kind | None, tyro.conf.arg(help=text, help_behavior_hint=hint, metavar=metavar, name=name)]


def _training_flags() -> Any:
    """The fields of `Training`, each None where it is not given; `--seed` belongs to the problem, which fixes A."""
    texts = {p.arg_name: p.description or "" for p in docstring_parser.parse(Training.__doc__ or "").params}
    kinds = get_type_hints(Training)
    fields = []
    for field in dataclasses.fields(Training):
        if any(get_origin(kind) is Callable for kind in get_args(kinds[field.name])):  # no flag can say a function
            continue
        hint, name = f"(default: the network's own, else {field.default})", "draw-seed" * (field.name == "seed")
        option = _option(kinds[field.name], texts[field.name], hint, name or None)
        fields.append((field.name, option, dataclasses.field(default=None)))
    return dataclasses.make_dataclass("TrainingFlags", fields, frozen=True, namespace={"__doc__": "How to train."})


TrainingFlags = _training_flags()


def training_of(given: Mapping[str, Any]) -> Training:
    """The training that flags say, those that were not given as they usually are.

    Raises:
        ValueError: If one is out of range.
    """
    return Training(**{name: value for name, value in given.items() if value is not None})


@dataclasses.dataclass(frozen=True)
class Unfolding:
    """How an algorithm becomes a network."""

    algorithm: Algorithm
    layers: int = 16  # Iterations to unfold.
    learn: Words | None = None  # What may move; every quantity that is one number, per layer, if not given.
    checkpoint: bool = False  # Train in the memory of a few layers, taking every step two more times.
    equilibrium: bool = False  # Train the fixed point of one step instead of so many layers.


def _unfolding(kind: type[Algorithm]) -> type[Unfolding]:
    """The subcommand of one algorithm: its own flags beside those of unfolding it."""
    fields = [("algorithm", Annotated[kind, Flat])]
    return dataclasses.make_dataclass(
        kind.__name__, fields, bases=(Unfolding,), frozen=True, namespace={"__doc__": kind.__doc__}
    )


def _choice_of(rows: Mapping[str, Any]) -> Any:
    """One subcommand for each row; what no flag can say is not listed."""
    hidden = tyro.conf.SuppressFixed
    named = (Annotated[kind, tyro.conf.subcommand(name, prefix_name=False), hidden] for name, kind in rows.items())
    return functools.reduce(operator.or_, named)


UNFOLDINGS = {name: _unfolding(kind) for name, kind in algorithms.REGISTRY.items()}
OTHERS = {name: kind for name, kind in estimators.REGISTRY.items() if kind not in estimators.FROM_OTHERS}
NETWORKS = UNFOLDINGS | OTHERS

CHOICES = frozenset({*problems.REGISTRY, *NETWORKS, "draw", "info"})  # the words that choose what a verb works on

ProblemChoice, NetworkChoice = _choice_of(problems.REGISTRY), _choice_of(NETWORKS)


@functools.singledispatch
def chosen_for(settings: Any) -> Any:
    """The subcommand's value that stands for settings, such as those of a config."""
    return settings


@chosen_for.register
def _(settings: UnfoldedSettings) -> Unfolding:
    kind = UNFOLDINGS[_name_of(settings.algorithm)]
    return kind(settings.algorithm, settings.layers, settings.learn, settings.checkpoint)


@chosen_for.register
def _(settings: EquilibriumSettings) -> Unfolding:
    return UNFOLDINGS[_name_of(settings.algorithm)](settings.algorithm, learn=settings.learn, equilibrium=True)


@chosen_for.register
def _(settings: QuantisedSettings) -> Any:
    raise ValueError(
        f"the network is a quantised one, which is trained from another: take the config of that, and --quantise "
        f"{settings.widths}."
    )


@chosen_for.register
def _(settings: RecalibratedSettings) -> Any:
    raise ValueError(
        "the network is a recalibrated one, which `fanfold adapt` made of another: take the config of that."
    )


def _name_of(algorithm: Algorithm) -> str:
    return next(name for name, kind in algorithms.REGISTRY.items() if type(algorithm) is kind)
