"""What the lab's page needs of the package: choices, the live figure, and whether a file holds pairs to train on.

`python -m fanfold.lab.parts page` and `... pairs FILE` print one JSON object each; it is a program because it imports
torch and the server does not.
"""

import dataclasses
import inspect
import json
import math
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

import docstring_parser

from fanfold import algorithms, estimators, problems
from fanfold.core.abilities import ability
from fanfold.core.annotations import options_of, words_of
from fanfold.core.array_files import held_arrays
from fanfold.core.settings import kinds_of
from fanfold.core.table import plain
from fanfold.deploy.codegen import host_functions
from fanfold.estimators.base import Settings, WithTrainingDefaults
from fanfold.estimators.fixed_point import Widths
from fanfold.lab.words import PAIRS, SHARINGS
from fanfold.problems import Pairs, Problem
from fanfold.report.figure.manifest import pack
from fanfold.report.figure.trained import PROBLEMS, SNRS_DB, SPARSITIES, kept
from fanfold.training.settings import Training

# rows of the estimators' registry that fit any problem, and are not built to find that out: a flow takes seconds
END_TO_END = ("neural", "flow-posterior")
TEXTS = "200x100"  # the text's figure, which the page begins with
MOST_BYTES = 2**29  # that the arrays of a file may have, unpacked
SCENE = "voxels"  # the setting by which a network is told how unknowns make a scene
FLAGS = {"seed": "draw-seed"}  # of a training, where the command line calls it otherwise: `--seed` is the problem's
KINDS = {int: "number", float: "number", bool: "switch"}
Row = dict[str, Any]


def choices() -> Row:
    """Problems, networks and settings that the page offers, as plain data.

    Problems are those that are drawn from settings alone, and pairs that are handed over. Networks are algorithms to
    unfold and the estimators of the registry, each with how it is usually trained and, by problem, why it cannot be.
    What the command line offers beyond that, files and programs, is left out; text is said in lines of its own, which
    `words.more_words` reads.
    """
    offered = {name: one for name, kind in problems.REGISTRY.items() if (one := _made(kind)) is not None}
    rows = [_row(name, one) for name, one in offered.items()]
    rows.insert(sorted([*offered, PAIRS]).index(PAIRS), _pairs_row())
    without = {name: _unfit(one) for name, one in offered.items() if one.A is None}
    networks = [_algorithm_row(name, kind) | {"refused": without} for name, kind in algorithms.REGISTRY.items()]
    networks += [_estimator_row(name, settings, offered) for name, settings in trainable().items()]
    levels = kept()[TEXTS]
    limit = levels.limits_db[SPARSITIES.index(0.1)][SNRS_DB.index(20)]
    return {
        "problems": rows,
        "networks": networks,
        "sharings": SHARINGS,
        "widths": get_args(Widths),
        "training": [row | {"flag": FLAGS.get(row["name"], row["flag"])} for row in fields_of(Training())],
        "text": {
            "problem": plain(dataclasses.asdict(PROBLEMS[TEXTS])),
            "levels": levels.nmse_db,
            "limit": limit,
        },
    }


def trainable() -> dict[str, Settings]:
    """The estimators of the registry that the command line trains, with their default settings."""
    rows = {name: kind for name, kind in estimators.REGISTRY.items() if kind not in estimators.FROM_OTHERS}
    return {name: settings for name, kind in rows.items() if (settings := _made(kind)) is not None}


def refusals(problem: Problem) -> dict[str, str]:
    """Why networks cannot be trained on a problem, by their names, in the words of those that refuse it.

    Args:
        problem: What they would be trained on; those that do not fit any are built for it, with default settings.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.lab.parts import refusals
        >>> refusals(ff.problems.Tone())["ista"]
        'an iterative algorithm needs the operator A, and Tone has none.'
    """
    return _judged(problem)[0]


def _judged(problem: Problem) -> tuple[dict[str, str], dict[str, str]]:
    """Why networks cannot be trained on a problem, and what others ask for first, by their names."""
    reasons = dict.fromkeys(algorithms.REGISTRY, _unfit(problem)) if problem.A is None else {}
    asks = dict[str, str]()
    for name, settings in trainable().items():
        if name in END_TO_END:
            continue
        built = _built(settings, problem)
        if built.refusal:
            reasons[name] = built.refusal
        elif built.asks:
            asks[name] = built.asks
    return reasons, asks


def _unfit(problem: Problem) -> str:
    return f"an iterative algorithm needs the operator A, and {type(problem).__name__} has none."


class _Built(NamedTuple):
    """A network, or in words why there is none; or one of a scene as might be given, and what it asks for."""

    network: Any = None
    refusal: str = ""
    asks: str = ""


def _built(settings: Settings, problem: Problem) -> _Built:
    try:
        return _Built(settings.build(problem))
    except ValueError as error:
        refused = _Built(refusal=str(error))
    if problem.A is None or vars(settings).get(SCENE, "") is not None:
        return refused
    n = problem.A.n
    height = max(divisor for divisor in range(1, math.isqrt(n) + 1) if n % divisor == 0)
    scene = height, n // height
    told = _built(type(settings)(**{**vars(settings), SCENE: scene}), problem)
    asks = f"It asks how unknowns make a scene: set {SCENE} to height and width, such as {height} {scene[1]} of {n}."
    return refused if told.refusal else told._replace(asks=asks)


def figure() -> Row:
    """What `<fanfold-figure>` finds in a page, for one that fetches it."""
    packed = pack()
    host = f"{host_functions()}\nexport {{env}};\n"
    return {"host": host, "manifest": packed.manifest_text, "payload": packed.payload}


def pairs(path: Path) -> Row:
    """What a file of pairs holds, in words, and what the page must know of it.

    Raises:
        ValueError: If it holds no pairs, or more than the lab reads.
    """
    held = held_arrays(path)
    for name, array in held.items():
        size = 16  # bytes of the widest number
        for length in array.shape:
            size *= length
        if size > MOST_BYTES:
            raise ValueError(f"{name} is {array}: more than the lab reads; train with fanfold train pairs --path FILE.")
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        problem = Pairs(str(path))
    reading = problem.reading.replace(f"{path}: ", "", 1)
    doubts = [str(remark.message).replace(str(path), path.name) for remark in remarks]
    refused, asks = _judged(problem)
    return {"file": path.name, "reading": reading, "refused": refused, "asks": asks, "doubts": doubts}


def _made(kind: type) -> Any:
    """One with its default settings; None where it needs files, a program or a prior, which no page hands over."""
    with suppress(TypeError, ValueError):
        return kind()
    return None


def _pairs_row() -> Row:
    fields = [_field("held_out_share", float, 0.2, "share of the pairs that is kept for tests")]
    return {"name": PAIRS, "about": _about(Pairs), "fields": fields}


def _algorithm_row(name: str, kind: type) -> Row:
    algorithm = kind()
    unfolding = [
        _field("layers", int, 16, "iterations to unfold"),
        _field("equilibrium", bool, False, "train the fixed point of one step instead of layers"),
        _field("checkpoint", bool, False, "train in the memory of a few layers"),
    ]
    row = _row(name, algorithm)
    return row | {"fields": [*row["fields"], *unfolding], "quantities": list(algorithm.nominals), "usual": {}}


def _estimator_row(name: str, settings: Settings, offered: Mapping[str, Problem]) -> Row:
    refused, asks, usual = dict[str, str](), dict[str, str](), None
    for problem, one in offered.items():
        if usual is not None and name in END_TO_END:
            break
        built = _built(settings, one)
        if built.refusal:
            refused[problem] = built.refusal
            continue
        if built.asks:
            asks[problem] = built.asks
        if usual is None:
            informed = ability(built.network, WithTrainingDefaults)
            usual = {} if informed is None else dict(informed.training_defaults)
    return _row(name, settings) | {"quantities": [], "refused": refused, "asks": asks, "usual": usual or {}}


def _row(name: str, thing: Any) -> Row:
    return {"name": name, "about": _about(type(thing)), "fields": fields_of(thing)}


def _about(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")


def fields_of(thing: Any, prefix: str = "") -> list[Row]:
    """The settings of a dataclass that numbers, switches and words say, with those of its parts.

    Args:
        thing: One with its default settings.
        prefix: The name of the part that it is, with a point.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.lab.parts import fields_of
        >>> [(row["name"], row["kind"]) for row in fields_of(ff.algorithms.GAMP())]
        [('prior.p', 'number'), ('prior.var', 'number'), ('damping', 'number')]
    """
    rows, texts = list[Row](), _texts_of(type(thing))
    for name, kind in kinds_of(type(thing)).items():
        value = vars(thing)[name]
        if dataclasses.is_dataclass(value):
            rows += fields_of(value, f"{prefix}{name}.")
        elif (row := _field(prefix + name, kind, value, texts.get(name, ""))) is not None:
            rows.append(row)
    return rows


def _field(name: str, kind: Any, default: Any, about: str) -> Row | None:
    """One setting; None where the page has no way to say it."""
    (option, *more) = [one for one in options_of(kind) if one is not NoneType] or [None]
    words = list(words_of(option))
    row = {"name": name, "flag": name.replace("_", "-"), "default": plain(default), "about": about.rstrip(".")}
    if words and not more:
        return row | {"kind": "choice", "choices": words}
    if get_origin(option) is tuple and set(get_args(option)) <= {int, float, Ellipsis} and not more:
        return row | {"kind": "numbers"}
    return row | {"kind": KINDS[option]} if option in KINDS and not more else None


def _texts_of(kind: type) -> Mapping[str, str]:
    """What a class says of its fields, beside them or in its docstring."""
    said = {p.arg_name: p.description or "" for p in docstring_parser.parse(inspect.getdoc(kind) or "").params}
    beside = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE)
    return said | dict(beside)


def main(words: list[str]) -> int:
    """Print one of the parts as JSON; the exit code."""
    try:
        part = pairs(Path(words[1])) if words[0] == "pairs" else {"choices": choices(), "figure": figure()}
    except (ValueError, ImportError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(json.dumps(plain(part), allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
