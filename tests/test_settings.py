"""Every setting is held against its annotation, in one place: law of all frozen dataclasses that users make."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.algorithms import ISTA, Algorithm
from fanfold.core.settings import Checked, kinds_of, made, within
from fanfold.training.settings import training_for

# what fanfold makes and users read: results, events, and what observations and estimates hold
RESULTS = [
    "Observation",
    "Estimate",
    "Certificate",
    "ErrorDecomposition",
    "ExactMMSE",
    "LearnedBound",
    "VanTrees",
    "ZivZakai",
    "Table",
    "World",
    "DrawingStarted",
    "DrawsKept",
    "DrawingFinished",
    "Started",
    "RoundStarted",
    "Stepped",
    "Validated",
    "Finished",
    "SlotsSent",
    "Interval",
    "Band",
    "SBC",
    "TARP",
    "LC2ST",
    "Predictive",
    "LearningCurve",
    "BudgetTrained",
    "View",
    "CalibratedVariance",
    "ChannelCovariance",
    "Mixture",
    "Geometry",
    "Statistics",
    "Trace",
    "WatchedAMP",
    "WatchedOAMP",
    "ImplicitGradient",
    "Ratio",
    "ShiftCell",
    "ShiftTable",
    "Section",
    "Series",
    "Unfolding",
    "UsualRange",
    "Monitor",
    "MartingaleWatch",
    "CusumWatch",
    "Seen",
    "IntegerProgram",
    "Operation",
    "OfTwo",
    "Const",
    "MatMul",
    "Rescale",
    "Clamp",
    "Lookup",
    "Bank",
    "Add",
    "Sub",
    "Mul",
    "Transpose",
    "Windows",
    "Join",
    "Moved",
]


def modules() -> list[Any]:
    names = [m.name for m in pkgutil.walk_packages(ff.__path__, "fanfold.")]
    return [importlib.import_module(n) for n in names if n != "fanfold.__main__" and ".experiments" not in n]


def dataclasses_of_users() -> list[type]:
    kinds = {kind for m in modules() for kind in vars(m).values() if isinstance(kind, type)}
    made_by_users = [
        kind
        for kind in kinds
        if dataclasses.is_dataclass(kind)
        and kind.__module__.startswith("fanfold.")
        and ".experiments" not in kind.__module__
        and not kind.__name__.startswith("_")
        and vars(kind)["__dataclass_params__"].frozen
        and kind.__name__ not in RESULTS
        and "_of" not in kind.__qualname__
    ]
    return sorted(made_by_users, key=lambda kind: (kind.__module__, kind.__name__))


CLASSES = dataclasses_of_users()
WHOLE = [kind for kind in CLASSES if not inspect.isabstract(kind)]


class Other:
    """Of no annotation's kind."""

    def __repr__(self) -> str:
        return "<other>"


def fitting(kind: Any) -> Any:
    """A value that an annotation takes; what a class asks beyond its annotations comes after the check."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType, Literal):
        return fitting(parts[0]) if origin is not Literal else parts[0]
    if origin is tuple:
        return () if Ellipsis in parts else tuple(map(fitting, parts))
    if origin is not None and issubclass(origin, Mapping):
        return {}
    if origin is not None and issubclass(origin, Sequence):
        return []
    if origin is Callable:
        return len
    plain = {int: 1, float: 0.5, str: "a", bool: True, type(None): None, Path: Path("a"), Any: 1}
    if kind in plain:
        return plain[kind]
    if vars(kind).get("_is_protocol"):
        return ff.problems.CompressedSensing() if kind.__name__ == "Problem" else ff.propagation.source_of("rayleigh")
    while inspect.isabstract(kind):
        kind = kind.__subclasses__()[0]
    return (
        torch.ones(1)
        if kind is torch.Tensor
        else object.__new__(kind)
        if not issubclass(kind, ff.algorithms.Domain)
        else ff.algorithms.FREE
    )


def wrong(kind: Any) -> list[Any]:
    """Values that an annotation does not take."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    values = [Other()]
    for option in options:
        values += {
            int: [True, 1.5, "1", float("nan"), 2**64, torch.ones(2)],
            float: [True, "1.0", float("nan"), 1j, 10**400, torch.ones((), requires_grad=True)],
            bool: ["yes", 2],
            str: [3, b"a"],
        }.get(option, [])
        if get_origin(option) is Literal:
            values += [True, f"{get_args(option)[0]}s"]
        if get_origin(option) is tuple:
            values += [[Other()], {}]
    texts = str in options
    return [v for v in values if not (texts and isinstance(v, str)) and not (bool in options and v is True)]


FIELDS = [(kind, name) for kind in WHOLE for name in kinds_of(kind) if kinds_of(kind)[name] is not Any]


def test_every_frozen_dataclass_of_users_is_checked():
    assert len(CLASSES) > 90
    assert [kind.__name__ for kind in CLASSES if not issubclass(kind, Checked)] == []


@pytest.mark.parametrize("kind", WHOLE, ids=lambda kind: kind.__name__)
def test_each_field_refuses_what_its_annotation_does_not_say(kind):
    kinds = kinds_of(kind)
    for name, annotation in kinds.items():
        if annotation in (Any, object):
            continue
        for value in wrong(annotation):
            settings = {other: fitting(kinds[other]) for other in kinds} | {name: value}
            with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} is .*; (pass|take) "):
                kind(**settings)


def test_a_subclass_of_the_users_is_checked_before_its_own_check():
    @dataclass(frozen=True)
    class Mine(ISTA):
        layers: int = 3
        mode: Literal["fast", "slow"] = "fast"

        def __post_init__(self):
            super().__post_init__()
            assert self.layers + 1  # would fail on text

    assert Mine(lam=1, layers=np.int64(4)) == Mine(lam=1.0, layers=4)
    assert type(Mine(lam=1).lam) is float
    with pytest.raises(ValueError, match="Mine: layers is 'x'; pass a whole number"):
        Mine(layers="x")
    with pytest.raises(ValueError, match=r"Mine: mode is 'fas'; take fast or slow\. Did you mean 'fast'"):
        Mine(mode="fas")
    with pytest.raises(ValueError, match="Mine: lam is 'a'"):
        Mine(lam="a")


def test_fields_are_checked_once_and_first():
    seen = []

    @dataclass(frozen=True)
    class Base(Checked):
        n: int

        def __post_init__(self):
            seen.append(("base", self.n))

    @dataclass(frozen=True)
    class Derived(Base):
        sizes: tuple[int, ...] = ()

        def __post_init__(self):
            super().__post_init__()
            seen.append(("derived", self.sizes))

    Derived(2.0, [1, 2])
    assert seen == [("base", 2), ("derived", (1, 2))]
    with pytest.raises(ValueError, match="Derived: n is None"):
        Derived(None)
    assert len(seen) == 2


def test_lists_of_a_file_are_tuples_and_have_a_hash():
    mixture = ff.priors.GaussianMixture(weights=[0.5, 0.5], means=[0, 0], variances=[1, 2])
    assert hash(mixture) == hash(ff.priors.GaussianMixture((0.5, 0.5), (0.0, 0.0), (1.0, 2.0)))
    with pytest.raises(ValueError, match="pictures is 'camera'; pass a tuple of words"):
        ff.problems.Photographs(pictures="camera")


def functions_with_words() -> list[tuple[str, Any, str]]:
    """The public functions that take words, and constructors `of`."""
    cases = {}
    for module in modules():
        for name in vars(module).get("__all__", ()):
            thing = vars(module)[name]
            for function in (thing, vars(thing).get("of") and thing.of) if isinstance(thing, type) else (thing,):
                if not (inspect.isfunction(function) or inspect.ismethod(function)):
                    continue
                hints = typing.get_type_hints(getattr(function, "__func__", function))
                for argument, kind in hints.items():
                    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
                    if argument != "return" and any(get_origin(option) is Literal for option in options):
                        cases[f"{function.__qualname__}-{argument}"] = (function, argument)
    return [(name, *case) for name, case in sorted(cases.items())]


WORDY = functions_with_words()


@pytest.mark.parametrize(("name", "function", "argument"), WORDY, ids=[name for name, *_ in WORDY])
def test_misspelt_words_of_functions_are_refused_first(name, function, argument):
    with pytest.raises(ValueError, match=rf"{argument} is 'nosuch'; take "):
        function(**{argument: "nosuch"})


def test_functions_say_which_argument_is_wrong():
    problem = ff.problems.CompressedSensing(n=20, m=10)
    with pytest.raises(ValueError, match=r"unfold: layers is 2\.5; pass a whole number"):
        ff.unfold(ISTA(), problem, 2.5, {"step": "tied"})
    with pytest.raises(ValueError, match="iterate: iterations is True"):
        ff.iterate(ISTA(), True)
    with pytest.raises(ValueError, match="Did you mean 'gaussian'"):
        ff.neural(problem, loss="gausian")
    with pytest.raises(TypeError, match="unexpected keyword"):
        ff.neural(problem, los="gaussian")


def test_wrong_types_of_a_training_are_refused():
    for wrong_one in ({"steps": 20.5}, {"batch": 1.5}, {"steps": True}, {"lr": "1e-3"}, {"schedule": "lesson"}):
        ((name, value),) = wrong_one.items()
        with pytest.raises(ValueError, match=f"Training: {name} is {value!r}; "):
            training_for({}, wrong_one)
    assert training_for({}, {"steps": 20.0}).steps == 20


def test_settings_of_a_file_are_unknown_missing_or_no_table():
    with pytest.raises(ValueError, match=r"the layout has no setting 'symbol'; it has .*Did you mean 'symbols'"):
        made(ff.propagation.Layout, {"symbol": 1}, "the layout")
    with pytest.raises(ValueError, match="the layout lacks subcarriers; pass a whole number"):
        made(ff.propagation.Layout, {"array": [2], "symbols": 1}, "the layout")
    with pytest.raises(ValueError, match="the layout is 3 and no table"):
        made(ff.propagation.Layout, 3, "the layout")
    with (
        pytest.raises(ValueError, match=r"^a\.toml, \[training\]: Training: steps is 'a'; pass a whole number\.$"),
        within("a.toml, [training]"),
    ):
        made(ff.Training, {"steps": "a"}, "training")


def test_what_is_local_in_a_users_annotation_is_the_users_affair():
    @dataclass(frozen=True)
    class Loose(Algorithm):
        thing: "Unnamed" = 3
        lam: float = 0.1

        nominals: ClassVar[dict] = {}
        start = step = read = None

    assert Loose().thing == 3
    with pytest.raises(ValueError, match="Loose: lam is 'a'"):
        Loose(lam="a")
