"""Keeps a monitor in a file, or beside the weights of a run, and reads it again for the estimator it belongs to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.core.data_files import understanding
from fanfold.estimators.base import Bound
from fanfold.guard.monitoring.monitor import Monitor
from fanfold.guard.monitoring.registry import COMBINED, SCORES
from fanfold.linops import LinearOperator
from fanfold.observation import Estimator, Observation
from fanfold.runs.directory import Run
from fanfold.runs.folders import checked
from fanfold.runs.weights import read_tensors, write_tensors

SCHEMA = 1
FACTS = {"schema": int, "alarm": float, "confidence": float, "batch": int, "operator": str | None, "observed": bool}
ANEW = "Calibrate one: ff.guard.monitor(estimator, problem)."


def save_monitor(monitor: Monitor, path: str | Path, **facts: Any) -> None:
    """Write a monitor to a file, without its estimator and operator, which are known by what they say.

    Args:
        monitor: The monitor.
        path: A `.safetensors` file, which is replaced.
        **facts: What else to keep, as plain data.

    Raises:
        ValueError: If each observation has an operator of its own.

    Example:
        >>> import pathlib, tempfile, fanfold as ff
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 5)
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "usual.safetensors"
        >>> ff.guard.save_monitor(ff.guard.monitor(oamp, problem, alarm=0.05, draws=800), file)
        >>> ff.guard.load_monitor(file, oamp, problem.A).draws
        534
    """
    tensors = {f"learned/{name}/{key}": t for name, parts in monitor.learned.items() for key, t in parts.items()}
    tensors |= {f"calibration/{name}": t for name, t in monitor.calibration.items()}
    tensors |= {"probe/y": monitor.probe.y, "probe/x": monitor.answer}
    A = monitor.probe.A
    if monitor.probe.noise_var is not None:
        tensors["probe/noise_var"] = monitor.probe.noise_var
    if A is not None and A.varies:
        raise ValueError(
            "a monitor of observations with an operator each cannot be kept: calibrate it where it is used."
        )
    said = {name: vars(monitor)[name] for name in ("alarm", "confidence", "batch", "operator")}
    write_tensors(Path(path), tensors, {"schema": SCHEMA, "observed": A is not None} | said | facts)


def load_monitor(path: str | Path, estimator: Estimator, A: LinearOperator | None = None) -> Monitor:
    """Read a monitor that `save_monitor` wrote, around the estimator that it was calibrated for.

    Args:
        path: The file.
        estimator: The estimator.
        A: The operator of its observations, where the estimator does not belong to one.

    Raises:
        ValueError: If the file is missing or damaged, or belongs to another estimator or operator.
    """
    tensors, facts = read_tensors(Path(path), ANEW)
    return monitor_of(tensors, facts, Path(path), estimator, A)


def monitor_of(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path, estimator: Estimator, A: LinearOperator | None
) -> Monitor:
    """The monitor that tensors and facts of a file say, around an estimator; raises as `load_monitor` does."""
    said = checked(path, facts, FACTS)
    if said["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {said['schema']} and this fanfold reads {SCHEMA}. {ANEW}")
    bound = ability(estimator, Bound)
    A = bound.operator if A is None and bound is not None else A
    if said["observed"] and A is None:
        raise ValueError("the monitor is of observations with an operator, and the estimator has none: pass A.")
    learned: dict[str, dict[str, Tensor]] = {}
    calibration = {}
    for name, t in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "learned":
            score, _, key = rest.partition("/")
            learned.setdefault(score, {})[key] = t
        elif kind == "calibration":
            calibration[rest] = t
    names = [name for name in SCORES if name in learned]
    whole = {"probe/y", "probe/x"} <= set(tensors) and set(calibration) == {*names, COMBINED} and names
    if not whole or set(learned) != set(names):
        raise ValueError(f"{path} holds no monitor that this fanfold knows. {ANEW}")
    monitor = Monitor(
        estimator,
        {name: learned[name] for name in names},
        {name: calibration[name] for name in (*names, COMBINED)},
        Observation.unchecked(tensors["probe/y"], None, tensors.get("probe/noise_var")),
        tensors["probe/x"],
        said["operator"],
        said["alarm"],
        said["confidence"],
        said["batch"],
    )
    return monitor.around(estimator, A if said["observed"] else None)


def keep_monitor(run: Run, monitor: Monitor, strength: float = 1.0) -> Path:
    """Keep a monitor in a run directory, as one about the weights that are there now, at a strength of the network."""
    path = file_in(run, strength)
    save_monitor(monitor, path, weights=run.weights_hash())
    return path


def kept_monitor(run: Run, estimator: Estimator, strength: float = 1.0) -> Monitor | None:
    """The monitor that a run keeps of the weights that are there now, if it does.

    Raises:
        ValueError: If it is damaged, or belongs to another run.
    """
    path = file_in(run, strength)
    if not os.path.lexists(path):
        return None
    weights, A = run.weights_hash(), run.outline().A
    with understanding(path, "a monitor of this run", "remove it, and it is calibrated anew."):
        tensors, facts = read_tensors(path, ANEW)
        return monitor_of(tensors, facts, path, estimator, A) if facts.get("weights") == weights else None


def file_in(run: Run, strength: float) -> Path:
    """Where a run keeps a monitor."""
    return run.path / ("monitor" + ("" if strength == 1 else f"-strength-{strength:g}") + ".safetensors")
