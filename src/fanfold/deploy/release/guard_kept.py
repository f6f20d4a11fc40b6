"""A guard as data: what it is besides its network, so that it is built again elsewhere, from numbers alone.

guard.safetensors      the rule, its limits, what more noise does to both paths, and the baseline: settings and weights
monitor.safetensors    the monitor, where there is one
"""

import math
from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

from torch import Tensor

from fanfold.algorithms import REGISTRY as ALGORITHMS
from fanfold.core.settings import check_table, made
from fanfold.estimators import LMMSE
from fanfold.guard import Guarded, load_monitor, save_monitor
from fanfold.guard.fallback import GuardLimits, Hysteresis, NoiseLevels, NoiseSplit, Trusting
from fanfold.linops import LinearOperator
from fanfold.observation import Estimator
from fanfold.runs.folders import checked
from fanfold.runs.recipe import OF_NETWORKS, build, describe, is_whole
from fanfold.runs.weights import read_tensors, write_tensors
from fanfold.unfolding.unfold import Iterated, iterate

SCHEMA = 1
MOST_ITERATIONS = 2000  # of a baseline, which runs twice in each call
ANEW = "Certify the run anew."
FACTS: dict[str, Any] = {
    "schema": int, "baseline": Mapping[str, Any], "rule": Mapping[str, Any], "limits": Mapping[str, Any],
    "judge": Mapping[str, Any] | None, "levels": Mapping[str, Any] | None, "scale": float, "at_home": float | None,
    "monitored": bool,
}  # fmt: skip
Curve = tuple[float, ...]
LIMITS: dict[str, Any] = {
    "radius": float, "saturated": float, "every": int, "alarm": float, "latch": bool, "axes": int,
    "hysteresis": Mapping[str, Any] | None, "further": float, "loud": float,
}  # fmt: skip
LEVELS: dict[str, Any] = {
    "claimed": float, "noise": Curve, "left": tuple[Curve, ...], "moved": Curve, "risk": Curve, "hidden": float,
    "heard": float,
}  # fmt: skip


@singledispatch
def kept_baseline(baseline: Estimator) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """A baseline as settings and weights; None where a release cannot keep it."""
    return None


@kept_baseline.register
def _(baseline: Iterated) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    algorithm = describe(baseline.algorithm)
    kept = is_whole(algorithm) and baseline.iterations <= MOST_ITERATIONS
    return ({"iterations": baseline.iterations, "algorithm": algorithm}, {}) if kept else None


@kept_baseline.register
def _(baseline: LMMSE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return {"linear": True}, {"mean": baseline.mean, "covariance": baseline.covariance}


def can_be_kept(baseline: Estimator) -> bool:
    """Whether a release can keep a baseline: at most 2000 iterations of a registered algorithm, or LMMSE."""
    return kept_baseline(baseline) is not None


def check_kept(baseline: Estimator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A baseline as settings and weights.

    Raises:
        ValueError: If a release cannot keep it.
    """
    kept = kept_baseline(baseline)
    if kept is None:
        raise ValueError(
            f"a release cannot keep the baseline {type(baseline).__name__}; name a classical iteration of at most "
            f"{MOST_ITERATIONS} rounds, or LMMSE, with --baseline."
        )
    return kept


def keep_guard(guard: Guarded, file: Path, monitor: Path) -> None:
    """Write a guard without its network, and its monitor beside it.

    Raises:
        ValueError: If its baseline cannot be kept.
    """
    described, tensors = check_kept(guard.baseline)
    hysteresis = guard.limits.hysteresis
    limits = guard.limits._asdict() | {"hysteresis": None if hysteresis is None else vars(hysteresis)}
    facts = {
        "schema": SCHEMA,
        "baseline": described,
        "rule": vars(guard.trusting),
        "limits": limits,
        "judge": None if guard.judge is None else vars(guard.judge),
        "levels": None if guard.levels is None else guard.levels._asdict(),
        "scale": guard.scale,
        "at_home": guard.at_home,
        "monitored": guard.monitor is not None,
    }
    write_tensors(file, tensors, facts)
    if guard.monitor is not None:
        save_monitor(guard.monitor, monitor)


def read_guard(file: Path, monitor: Path, net: Estimator, A: LinearOperator | None) -> Guarded:
    """The guard that `keep_guard` wrote, around a network.

    Raises:
        ValueError: If a file is missing or damaged, or the monitor is of another network.
    """
    tensors, facts = read_tensors(file, ANEW)
    said = _fitting(facts, FACTS, file)
    if said["schema"] != SCHEMA:
        raise ValueError(f"{file} has schema {said['schema']}; this fanfold reads {SCHEMA}.")
    limits = _fitting(said["limits"], LIMITS, file)
    if (hysteresis := limits["hysteresis"]) is not None:
        limits["hysteresis"] = made(Hysteresis, dict(hysteresis), "hysteresis")
    sizes = [limits[name] for name in ("radius", "saturated", "loud")]
    if limits["every"] < 1 or limits["axes"] < 1 or not 0 < limits["alarm"] < 1 or not all(map(_is_size, sizes)):
        raise ValueError(f"{file} is damaged: limits are {limits}.")
    if not (1 <= limits["further"] < math.inf and _is_size(said["scale"]) and _is_size(said["at_home"] or 0.0)):
        raise ValueError(f"{file} is damaged: a size is negative or infinite.")
    return Guarded(
        net,
        _baseline(said["baseline"], tensors, file),
        None if said["judge"] is None else made(NoiseSplit, dict(said["judge"]), "judge"),
        load_monitor(monitor, net, A) if said["monitored"] else None,
        made(Trusting, dict(said["rule"]), "rule"),
        GuardLimits(**limits),
        said["scale"],
        None if said["levels"] is None else _levels(said["levels"], file),
        said["at_home"],
    )


def _baseline(described: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path) -> Estimator:
    if "algorithm" in described:
        settings, iterations = dict(check_table(described["algorithm"])), described.get("iterations", 0)
        if isinstance(iterations, int | float) and iterations > MOST_ITERATIONS:
            raise ValueError(
                f"{file}: its baseline has {iterations} iterations, more than any guard ({MOST_ITERATIONS})."
            )
        return iterate(build(settings, ALGORITHMS, OF_NETWORKS), iterations)
    if described.get("linear") is not True or not {"mean", "covariance"} <= set(tensors):
        raise ValueError(f"{file} holds no baseline that this fanfold knows. {ANEW}")
    return LMMSE(tensors["mean"], tensors["covariance"])


def _levels(data: Mapping[str, Any], file: Path) -> NoiseLevels:
    levels = NoiseLevels(**_fitting(data, LEVELS, file))
    lengths = {len(levels.noise), len(levels.moved), len(levels.risk), *map(len, levels.left)}
    if len(levels.left) != 2 or len(lengths) != 1 or not levels.noise:
        raise ValueError(f"{file} is damaged: its levels of noise have curves of {sorted(lengths)} points.")
    curves = (levels.noise, levels.moved, levels.risk, *levels.left)
    numbers = (levels.hidden, *(number for curve in curves for number in curve))
    if not all(map(math.isfinite, numbers)) or not (_is_size(levels.heard) and _is_size(levels.claimed)):
        raise ValueError(f"{file} is damaged: its levels of noise have numbers that are none.")
    return levels


def _is_size(value: float) -> bool:
    return 0 <= value < math.inf


def _fitting(data: Mapping[str, Any], kinds: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The fields of these kinds and no others."""
    fields = checked(file, data, kinds)
    return {name: fields[name] for name in kinds}
