"""Saving a network that never had a run directory, and loading one from either."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fanfold.core.abilities import ability, offers
from fanfold.estimators.base import Bound, Kept, OperatorBuilt, fingerprint_of
from fanfold.problems import Problem
from fanfold.runs import recipe
from fanfold.runs.directory import Run
from fanfold.runs.draws import drawn, write_draws
from fanfold.runs.environment import data_hash, packages
from fanfold.runs.needs import needs_of
from fanfold.runs.outline import Outline, outline_of, outline_of_operator
from fanfold.runs.weights import facts_of, parameters_of, write_tensors


def load(path: str | Path, **handed_in: Any) -> nn.Module:
    """The trained network of a run directory, or of what `save` wrote.

    Args:
        path: The directory.
        **handed_in: What was made of classes or functions of your own, which are never stored: `problem`, `network`,
            `algorithm`, `loss`.

    Raises:
        ValueError: If it is damaged, or something is missing; the error says what to hand in.

    Example:
        >>> import tempfile, fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ff.save(net, f"{folder}/net", problem)
        ...     ff.load(f"{folder}/net").layers
        3
    """
    return Run.open(path, **handed_in).estimator()


def save(estimator: nn.Module, path: str | Path, problem: Problem | None = None) -> None:
    """Keep a network that has no run directory, so that `load` gives it back, bit for bit.

    Args:
        estimator: The network.
        path: A new directory.
        problem: What it was made for; a network that belongs to an operator alone does without.

    Raises:
        ValueError: If something is there already, the network cannot be named, or belongs to another operator than the
            problem's.
    """
    bound = ability(estimator, Bound)
    operator = fingerprint_of(estimator)
    if problem is not None and problem.A is not None and operator not in (None, problem.A.fingerprint()):
        raise ValueError(
            f"the network belongs to {bound and bound.operator} and the problem measures with another operator, "
            f"{problem.A}: pass the problem that it was made for."
        )
    config: dict[str, Any] = {"network": recipe.describe_network(estimator)}
    A = None if bound is None else bound.operator
    if problem is not None:
        A = A if problem.A is None else problem.A
        outline = outline_of(problem, *problem.sample(2, torch.Generator().manual_seed(0)))
        config |= {"problem": recipe.describe_problem(problem), "outline": outline}
    elif not (offers(estimator, Kept) and offers(estimator.settings, OperatorBuilt)):
        raise ValueError(
            f"{type(estimator).__name__} takes its shape from a problem: pass what it was made for, "
            "ff.save(estimator, path, problem)."
        )
    elif A is not None:
        config["outline"] = outline_of_operator(A)
    measured_by = None if A is None else A.fingerprint()
    facts = {"operator": measured_by, "data": data_hash(problem), "seed": 0, "packages": packages()}
    run = Run.create(path, config, facts, A)
    if problem is not None and (needs := needs_of(config["problem"])).files and not needs.commands + needs.given:
        write_draws(run.path, *drawn(problem, Outline(config["outline"], A)), A)
    write_tensors(run.path / "weights.safetensors", parameters_of(estimator), facts_of(estimator))
