"""How large an ensemble is and how it is trained, by the number of draws that there are to learn from."""

import math
from dataclasses import dataclass, replace
from typing import Any

from fanfold.core.settings import Checked
from fanfold.estimators.posterior.features import Features
from fanfold.networks import DeepSet, Members, PooledCNN, SideBySide, StackedMLP
from fanfold.problems.kinds import Kind

FEWEST = 3000  # draws, up to which networks leave entries out to learn less by heart
FEW = 30_000  # draws, up to which every one of five folds is left out once
EMULATORS = 3  # where networks are taught
LONE_FOLDS = 10  # of which one is left out, where there are more draws
WIDTHS: dict[Kind, int] = {"vector": 128, "set": 96, "sequence": 24, "image": 24}  # of a network for many draws


@dataclass(frozen=True)
class Plan(Checked):
    """The sizes of an ensemble.

    Raises:
        ValueError: If a size is not positive, the dropout is no share, or students outnumber the folds.

    Example:
        >>> from fanfold.estimators.posterior.plan import Plan
        >>> Plan(folds=1).parts
        10
    """

    folds: int = 5  # networks of each kind, each of which leaves one fold out
    width: int = 64
    depth: int = 5
    dropout: float = 0.0  # share of entries that a step leaves out
    students: int = 0  # networks that a model of y given x teaches, of the first folds
    family: bool = False  # whether an exponential family is fitted to vectors, and taken where it is one
    mirrored: bool = False  # whether images of draws about a centre are learned of too, where they look alike

    def __post_init__(self):
        if min(self.folds, self.width, self.depth) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"{self}: pass positive sizes, and a dropout from 0 to below 1.")
        if not 0 <= self.students <= self.folds:
            raise ValueError(f"{self.students} students of {self.folds} folds; pass 0 to as many as there are folds.")

    @property
    def emulators(self) -> int:
        """The number of models of y given x, of the first folds: one for each student, and more for the estimate."""
        return min(max(self.students, EMULATORS), self.folds) if self.students else 0

    @property
    def families(self) -> int:
        """The number of exponential families, one for each fold, that stand beside the networks."""
        return self.folds if self.family else 0

    @property
    def parts(self) -> int:
        """The number of folds that draws are parted into."""
        return LONE_FOLDS if self.folds == 1 else self.folds


def plan_for(simulations: int, kind: Kind) -> tuple[Plan, dict[str, Any]]:
    """The sizes, and the fields of `Training`, for a number of draws; 0 stands for fresh draws at every step.

    Few draws want many passes with a strong pull towards the linear estimator, many want steps and width. Networks on
    sequences, pictures and sets cost more than they gain by a fold each.
    """
    training: dict[str, Any] = {"lr": 4e-3, "averaging": 0.99, "clip": 10.0, "validation_samples": 10_000}
    if simulations == 0 or simulations > FEW:
        plan = Plan(folds=1, width=WIDTHS[kind], family=kind == "vector")
        return plan, training | {"steps": 1900, "batch": 512, "weight_decay": 0.05, "validate_every": 200}
    few = simulations <= FEWEST
    plan = Plan(dropout=0.2, students=3) if few else Plan(width=96, students=2)
    plan = replace(plan, family=kind == "vector", mirrored=kind == "vector")
    steps = round(min(2000, max(500, 1500 * math.sqrt(simulations / 1000))))
    training |= {"steps": steps, "batch": 128 if few else 256, "weight_decay": 0.4}
    training |= {"validate_every": 50 if few else 100}
    if kind != "vector":
        plan = replace(plan, folds=1, width=WIDTHS[kind], dropout=0.0, students=0)
        training |= {"steps": min(1000, steps)}
    else:
        training |= {"optimiser": "muon"}  # of few draws for the emulator alone
        training |= {} if few else {"steps": 600, "batch": 512, "weight_decay": 0.3}  # its steps are dear
    return plan, training


def networks_of(features: Features, outputs: int, plan: Plan, seed: int) -> Members:
    """Untrained networks side by side, one for each fold, of the form that suits the kind of an observation."""
    shape, count = features.shape, plan.folds
    if features.kind == "vector":
        return StackedMLP(count, shape[0], outputs, plan.width, plan.depth, seed, plan.dropout)
    if features.kind == "set":
        return SideBySide(count, lambda each: DeepSet(shape[-1], outputs, width=plan.width, seed=each), seed)
    return SideBySide(count, lambda each: PooledCNN(shape, outputs, width=plan.width, seed=each), seed)
