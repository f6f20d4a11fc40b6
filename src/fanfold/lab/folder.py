"""The runs of a folder as the page lists them, and what a run is exported as, read without torch."""

import io
import json
import os
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fanfold.core.files import is_regular, read_regular
from fanfold.lab.follow import FILE

CONFIG = "config.toml"
DATA = "lab-data"  # in the folder of runs: files that were dropped onto the page
TAIL = 2**16  # bytes from the end of a log, in which its last validation is looked for
SCRIPT = '''"""{title}, trained again, beside its peers: python train.py"""

import tomllib
from pathlib import Path

import fanfold as ff
from fanfold.evaluation.peers import peers_of
from fanfold.runs import recipe

config = tomllib.loads(Path("config.toml").read_text())
problem = recipe.build_problem(config["problem"])
net = recipe.build_settings(config["network"]).build(problem)
ff.fit(net, problem, run_dir="again", **config["training"])
print(ff.evaluate(peers_of(net, problem), problem, samples=500, layers=False))
'''


def run_names(folder: Path) -> list[str]:
    """The run directories of a folder, the latest first; links are not followed."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        runs = [e for e in entries if e.is_dir(follow_symlinks=False) and is_regular(Path(e.path) / CONFIG)]
        return [e.name for e in sorted(runs, key=lambda e: e.stat().st_mtime, reverse=True)]


def config_of(run: Path) -> dict[str, Any]:
    """The config of a run.

    Raises:
        ValueError: If it is not there, or no TOML.
    """
    try:
        return tomllib.loads(read_regular(run / CONFIG).decode())
    except (ValueError, OSError) as error:
        raise ValueError(f"{run.name} cannot be read: {error}") from error


def facts_of(run: Path) -> dict[str, Any]:
    """What the page lists of a run: its problem, its network, how far it got; of a damaged one what is wrong."""
    try:
        config = config_of(run)
        problem, network, training = (_table(config, name) for name in ("problem", "network", "training"))
    except ValueError as error:
        return {"name": run.name, "damage": str(error)}
    algorithm = network.get("algorithm")
    last = _last(run / FILE)
    return {
        "name": run.name,
        "problem": problem,
        "network": algorithm.get("name") if isinstance(algorithm, dict) else network.get("name"),
        "layers": network.get("layers"),
        "in_db": "algorithm" in network and "loss" not in training and training.get("loss_layers") == 1,
        "steps": training.get("steps"),
        "step": last.get("step", 0),
        "nmse_db": last.get("nmse_db"),
        "advice": last.get("advice"),
    }


def _table(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = config.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"its {name} is no section.")
    return table


def _last(log: Path) -> dict[str, Any]:
    """The last event of a log that says an error, and its step."""
    if not is_regular(log):
        return {}
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL))
        lines = stream.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and "nmse_db" in event:
            return event
    return {}


def script_of(run: Path) -> str:
    """A script of at most 15 lines that trains what a run trained, beside its config."""
    return SCRIPT.format(title=run.name.replace("\\", "/").replace('"', "'"))


def exported(run: Path, report: bytes) -> bytes:
    """An archive with the config of a run, a script, its page, and the pairs that it was given, if they were dropped.

    Args:
        run: The run directory.
        report: Its page.

    Raises:
        ValueError: If its config cannot be read.
    """
    config, whole = config_of(run), io.BytesIO()
    path = Path(str(_table(config, "problem").get("path", "")))
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        if path.parent.name == DATA and is_regular(file := run.parent / DATA / path.name):
            archive.write(file, path.name)
            config["problem"]["path"] = path.name
        archive.writestr(CONFIG, tomli_w.dumps(config))
        archive.writestr("train.py", script_of(run))
        archive.writestr("report.html", report)
    return whole.getvalue()
