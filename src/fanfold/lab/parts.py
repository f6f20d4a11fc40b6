"""What the lab's page needs of the package: choices, the live figure, and whether a file holds pairs to train on.

`python -m fanfold.lab.parts page` and `... pairs FILE` print one JSON object each; it is a program because it imports
torch and the server does not.
"""

import dataclasses
import inspect
import json
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import docstring_parser

from fanfold import algorithms, estimators, problems
from fanfold.core.annotations import options_of, words_of
from fanfold.core.array_files import held_arrays
from fanfold.core.settings import kinds_of
from fanfold.core.table import plain
from fanfold.deploy.codegen import host_functions
from fanfold.lab.words import PAIRS, SHARINGS
from fanfold.problems import Pairs, Problem
from fanfold.report.figure.manifest import pack
from fanfold.report.figure.trained import PROBLEMS, SNRS_DB, SPARSITIES, kept
from fanfold.training.settings import Training

TEXTS = "200x100"  # the text's figure, which the page begins with
END_TO_END = ("neural",)  # rows of the estimators' registry that fit any problem
MOST_BYTES = 2**29  # that the arrays of a file may have, unpacked
FLAGS = {"seed": "draw-seed"}  # of a training, where the command line calls it otherwise: `--seed` is the problem's
KINDS = {int: "number", float: "number", bool: "switch"}
Row = dict[str, Any]


def choices() -> Row:
    """Problems, networks and settings that the page offers, as plain data.

    Problems are those that are drawn from settings alone, and pairs that are handed over. Algorithms are for problems
    with an operator, and a network that learns end to end is for all. What the command line offers beyond that, files,
    programs and text, is left out.
    """
    rows = [row for name, kind in problems.REGISTRY.items() if (row := _problem_row(name, kind)) is not None]
    iterative = [_algorithm_row(name, kind) for name, kind in algorithms.REGISTRY.items()]
    end_to_end = [_row(name, estimators.REGISTRY[name](), operator=False) for name in END_TO_END]
    levels = kept()[TEXTS]
    limit = levels.limits_db[SPARSITIES.index(0.1)][SNRS_DB.index(20)]
    return {
        "problems": rows,
        "networks": [row | {"quantities": row.get("quantities", [])} for row in iterative + end_to_end],
        "sharings": SHARINGS,
        "training": [row | {"flag": FLAGS.get(row["name"], row["flag"])} for row in fields_of(Training())],
        "text": {
            "problem": plain(dataclasses.asdict(PROBLEMS[TEXTS])),
            "levels": levels.nmse_db,
            "limit": limit,
        },
    }


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
    return {"file": path.name, "reading": reading, "operator": problem.A is not None, "doubts": doubts}


def _problem_row(name: str, kind: type) -> Row | None:
    if name == PAIRS:
        fields = [_field("held_out_share", float, 0.2, "share of the pairs that is kept for tests")]
        return {"name": name, "about": _about(kind), "operator": True, "fields": fields}
    with suppress(TypeError, ValueError):  # it needs files, a program or a prior, which the page does not hand over
        problem: Problem = kind()
        return _row(name, problem, operator=problem.A is not None)
    return None


def _algorithm_row(name: str, kind: type) -> Row:
    algorithm = kind()
    layers = _field("layers", int, 16, "iterations to unfold")
    row = _row(name, algorithm, operator=True)
    return row | {"fields": [*row["fields"], layers], "quantities": list(algorithm.nominals)}


def _row(name: str, thing: Any, *, operator: bool) -> Row:
    return {"name": name, "about": _about(type(thing)), "operator": operator, "fields": fields_of(thing)}


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
