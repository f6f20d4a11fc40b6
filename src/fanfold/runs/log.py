"""The events of a training as lines of JSON: numbers that JSON lacks are null there, and NaN again when read."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanfold.core.files import read_regular, write_whole
from fanfold.core.table import plain
from fanfold.runs.folders import checked, read_json

FILE = "metrics.jsonl"  # in a run directory
ENDS = ("finished", "failures")
ALWAYS: Mapping[str, Any] = {"event": str, "step": int}
NUMBERS = (float, float | None)
FURTHER: Mapping[str, Mapping[str, Any]] = {  # event: what a line of it holds besides
    "stepped": {"loss": float, "gradient_norm": float, "lr": float, "skipped": bool},
    "validated": {"nmse_db": float, "loss": float | None},
    "finished": {"nmse_db": float, "loss": float | None, "advice": str | None, "verdict": str | None},
    "failures": {"failed": Mapping[str, int]},
}


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Add a line to the events of a run; what an event has none of is left out."""
    with (folder / FILE).open("a") as file:
        file.write(_line(event))


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, in order; a last line cut short by a crash is left out.

    Raises:
        ValueError: If a whole line is damaged.
    """
    file = folder / FILE
    lines = read_regular(file).splitlines(keepends=True) if os.path.lexists(file) else []
    return [_event(file, read_json(file, line)) for line in lines if line.endswith(b"\n")]


def forget_after(folder: Path, step: int | None) -> None:
    """Drop the events of steps that a resumed run takes again, and of its end; all of them for None."""
    kept = [e for e in read_events(folder) if step is not None and e["step"] <= step and e["event"] not in ENDS]
    write_whole(folder / FILE, "".join(map(_line, kept)).encode(), follow=False)


def _line(event: Mapping[str, Any]) -> str:
    given = {name: value for name, value in event.items() if value is not None}
    return json.dumps(plain(given), allow_nan=False) + "\n"


def _event(file: Path, data: dict[str, Any]) -> dict[str, Any]:
    """An event whose fields are what they should be: null is a number that JSON lacks, what is absent is None."""
    kinds = {**ALWAYS, **FURTHER.get(str(data.get("event")), {})}
    numbers = {name: data[name] for name, kind in kinds.items() if kind in NUMBERS and name in data}
    lost = {name for name, value in numbers.items() if value is None or value != value}
    event = checked(file, data, {name: kind for name, kind in kinds.items() if name not in lost})
    return event | dict.fromkeys(lost, math.nan)
