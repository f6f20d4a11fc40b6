"""What a release is known by: SHA-256 of its parts and of the code that made it, and the machine that measured it."""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fanfold.core.files import read_regular
from fanfold.core.machine import processor_lines
from fanfold.runs.environment import packages


def code_hash(package: Path | None = None) -> str:
    """The SHA-256 of all Python sources of fanfold, by their names and contents in order.

    Args:
        package: The folder of the package; that of fanfold if None.

    Example:
        >>> from fanfold.deploy.release.hashes import code_hash
        >>> len(code_hash())
        64
    """
    folder = Path(__file__).parents[2] if package is None else package
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        content = read_regular(path)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def host() -> dict[str, str | int | None]:
    """The machine, by what its times depend on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **packages(),
    }


def same_host(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether times of two machines can be compared."""
    return all(one.get(name) == other.get(name) for name in ("machine", "processor", "cores", "system"))


def _processor() -> str:
    """The name of the processor, where the system says it."""
    names = (line.partition(":")[2].strip() for line in processor_lines() if line.startswith("model name"))
    return next(names, platform.processor())
