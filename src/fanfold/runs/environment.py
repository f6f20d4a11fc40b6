"""What must be known to repeat a run, beyond its config: versions, machine, hashes."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fanfold.core.abilities import ability
from fanfold.core.commands import TYPED
from fanfold.core.files import read_regular
from fanfold.problems import Problem
from fanfold.problems.protocols import Fingerprinted
from fanfold.runs.folders import checked, read_json

KINDS: Mapping[str, Any] = {
    "operator": str | None,
    "data": str | None,
    "folder": str | None,
    "begun": str | None,
    "command": str | None,
    "seed": int,
    "device": str | None,
    "threads": int | None,
    "processes": int | None,
    "packages": Mapping[str, str | None] | None,
}


def environment(seed: int, problem: Problem, device: torch.device, threads: int, processes: int = 1) -> dict[str, Any]:
    """What must be known to repeat a run, beyond its config."""
    return {
        "operator": None if problem.A is None else problem.A.fingerprint(),
        "data": data_hash(problem),
        "folder": os.getcwd(),
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": TYPED.get(),
        "seed": seed,
        "device": str(device),
        "threads": threads,
        "processes": processes,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": packages(),
    }


def read_environment(file: Path) -> dict[str, Any]:
    """What `environment` gave, as a run directory keeps it; what it does not say is left out.

    Raises:
        ValueError: If it is damaged.
    """
    facts = checked(file, read_json(file, read_regular(file)), KINDS)
    return {name: value for name, value in facts.items() if value is not None}


def data_hash(problem: object) -> str | None:
    """Hash of the stored data that a problem draws from, or None."""
    stored = ability(problem, Fingerprinted)
    return None if stored is None else stored.fingerprint


def packages() -> dict[str, str | None]:
    """Versions of what results depend on."""
    return {name: installed(name) for name in ("fanfold", "torch", "numpy", "scipy", "safetensors")}


def installed(package: str) -> str | None:
    """Version of an installed package, None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
