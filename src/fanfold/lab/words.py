"""What the page asks for as words of the command line: only choices that the page offers, each value of its kind."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanfold.core.commands import path_word
from fanfold.core.suggest import did_you_mean
from fanfold.lab.uploads import handed_over

PARTS = ("problem", "network", "of_problem", "of_network", "learn", "training", "data", "quantise", "more")
SHARINGS = ("tied", "per-layer", "tied vector", "per-layer vector")
FLAG = re.compile(r"--|-[a-z]", re.IGNORECASE)  # and no number below zero
KEY = re.compile(r"[a-z][a-z0-9_.-]*", re.IGNORECASE)
SWITCHES = {"true": "", "false": "no-"}
LABS = (
    "run-dir",
    "config",
    "allow-program",
    "device",
    "check",
    "path",
    "help",
    "json",
)  # flags that the lab says itself
PAIRS = "pairs"  # the problem of the user's own pairs


def words_of(request: Any, choices: Mapping[str, Any], data: Path) -> list[str]:
    """The words after `fanfold` of the training that a request asks for, but for its run directory.

    Args:
        request: An object with `problem` and `network`, names; `of_problem`, `of_network` and `training`, settings by
            name; `learn`, sharings by quantity; `data`, the name of a file that was handed over; `quantise`, widths, or
            nothing; `more`, lines `key = value`, whose keys and values the command line judges.
        choices: What `parts.choices` gives.
        data: The folder of files that were handed over.

    Raises:
        ValueError: If it asks for what the page does not offer, the network refuses the problem, or a value is not of
            its kind.
    """
    if not isinstance(request, dict):
        raise ValueError("the request is no object; send problem, network and their settings.")
    for name in request:
        if name not in PARTS:
            raise ValueError(f"a request has no {name!r}; it has {', '.join(PARTS)}.{did_you_mean(str(name), PARTS)}")
    problem = _chosen(request.get("problem"), choices["problems"], "problem")
    network = _chosen(request.get("network"), choices["networks"], "network")
    if (reason := network["refused"].get(problem["name"])) is not None:
        raise ValueError(reason)
    words = ["train", problem["name"]]
    if problem["name"] == PAIRS:
        words += ["--path", path_word(handed_over(request.get("data"), data))]
    words += _flags(_table(request, "of_problem"), problem["fields"], problem["name"])
    words.append(network["name"])
    words += _flags(_table(request, "of_network"), network["fields"], network["name"])
    words += _learn(_table(request, "learn"), network)
    words += _flags(_table(request, "training"), choices["training"], "training")
    words += more_words(request.get("more", ""))
    widths = request.get("quantise", "")
    if widths not in ("", *choices["widths"]):
        raise ValueError(f"quantise takes {', '.join(choices['widths'])}, or nothing; not {widths!r:.40}.")
    return [*words, "--quantise", widths] if widths else words


def more_words(text: Any) -> list[str]:
    r"""Lines `key = value` as flags: several values stand side by side, true and false are switches.

    Args:
        text: The lines; those that are empty or begin with # say nothing.

    Raises:
        ValueError: If a line is none of these, or asks for what the lab says itself, such as where the run goes.

    Example:
        >>> from fanfold.lab.words import more_words
        >>> more_words("voxels = 10 20\ncheckpoint = true")
        ['--voxels', '10', '20', '--checkpoint']
    """
    if not isinstance(text, str):
        raise ValueError(f"more is {text!r:.40}; it is text, a line key = value for each setting.")
    words = list[str]()
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        flag = key.removeprefix("--").replace("_", "-")
        if not equals or not KEY.fullmatch(flag) or not value:
            raise ValueError(f"{line[:60]!r} is no setting; write key = value, such as voxels = 10 20.")
        if flag in LABS or flag.startswith("no-"):
            raise ValueError(f"{key} is not for the page to set; leave it out, or train in the shell: fanfold train.")
        words += _spelt(flag, value)
    return words


def _spelt(flag: str, value: str) -> list[str]:
    if value.lower() in SWITCHES:
        prefix, point, last = flag.rpartition(".")  # of a part, the "no" stands before the last name
        return [f"--{prefix}{point}{SWITCHES[value.lower()]}{last}"]
    try:
        values = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{flag} is {value[:40]!r}: {error}") from error
    if flags := [word for word in values if FLAG.match(word)]:
        raise ValueError(f"{flag} is {value[:40]!r}; write {flags[0]} in a line of its own, as key = value.")
    return [f"--{flag}", *values]


def _table(request: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = request.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name} is {table!r:.40} and no object of settings.")
    return table


def _chosen(name: Any, rows: list[dict[str, Any]], what: str) -> dict[str, Any]:
    known = [row["name"] for row in rows]
    if name not in known:
        raise ValueError(
            f"no {what} {str(name)[:40]!r} here; there are {', '.join(known)}.{did_you_mean(str(name), known)}"
        )
    return rows[known.index(name)]


def _flags(given: Mapping[str, Any], fields: list[dict[str, Any]], what: str) -> list[str]:
    known = {field["name"]: field for field in fields}
    words = list[str]()
    for name, value in given.items():
        if name not in known:
            names = ", ".join(known)
            raise ValueError(f"{what} has no setting {name!r} here; it has {names}.{did_you_mean(name, known)}")
        words += _flag(known[name], value)
    return words


def _flag(field: Mapping[str, Any], value: Any) -> list[str]:
    name, flag, kind = field["name"], f"--{field['flag']}", field["kind"]
    if kind == "switch":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.40}; it is true or false.")
        prefix, _, last = flag.rpartition(".")  # of a part, the "no" stands before the last name
        negative = f"{prefix}.no-{last}" if prefix else f"--no-{flag.removeprefix('--')}"
        return [] if value == field["default"] else [flag if value else negative]
    if kind == "choice":
        if value not in field["choices"]:
            raise ValueError(f"{name} takes {', '.join(map(str, field['choices']))}, not {value!r:.40}.")
        return [flag, str(value)]
    if kind == "numbers":
        if not isinstance(value, list) or not value:
            raise ValueError(f"{name} is {value!r:.40}; it is a list of numbers.")
        return [flag, *(_number(name, each) for each in value)]
    return [flag, _number(name, value)]


def _number(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r:.40}; it is a number.")
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(value)


def _learn(given: Mapping[str, Any], network: Mapping[str, Any]) -> list[str]:
    for quantity, sharing in given.items():
        if quantity not in network["quantities"]:
            names = ", ".join(network["quantities"]) or "nothing that is named"
            raise ValueError(f"{network['name']} has no quantity {quantity!r} to learn; it has {names}.")
        if sharing not in SHARINGS:
            raise ValueError(f"{quantity} is learned {', '.join(SHARINGS)}, not {sharing!r:.40}.")
    return ["--learn", *(f"{quantity}={sharing}" for quantity, sharing in given.items())] if given else []
