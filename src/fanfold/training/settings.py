"""How to train: the fields of `Training`, and the same as keywords that need not be given."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from torch import Tensor

from fanfold.core.settings import Checked, check_names
from fanfold.training.optimisers import OptimiserName

Schedule = Literal["end-to-end", "layer-by-layer", "lessons"]
NMSEOver = Literal["batch", "sample", "condition"]
Loss = Callable[[Tensor, Tensor], Tensor]  # x_hat and x, both (batch, n), to (batch,) or one number


@dataclass(frozen=True)
class Training(Checked):
    """How to train. In each stage the learning rate falls along a cosine to zero.

    Attributes:
        steps: Optimiser steps, in all.
        batch: Fresh draws a step, for each process.
        lr: Learning rate, times the lr_scale of each quantity.
        schedule: All layers at once, one more each stage, or lessons, which an estimator that knows some makes itself.
        refine: Factor on lr when a new layer's predecessors move with it, layer by layer.
        nmse_over: The NMSE that is minimised is that of the whole batch, or each sample has its own, or each condition
            of a problem that has several, weighed by their importance.
        loss_layers: The loss is summed over that many last layers.
        clip: Largest norm of the gradient.
        weight_decay: Pull of the deviations towards zero, the algorithm.
        optimiser: Adam, or "muon" for the matrices that an estimator offers to it, and Adam for the rest.
        averaging: Weight, in [0, 1), of the past in a running mean of the weights, which is then what is judged and
            kept (Polyak & Juditsky, 1992); 0 takes the weights as they are.
        validate_every: Steps between validations, each of which saves a checkpoint.
        validation_samples: Held-out draws.
        simulations: Draw so many pairs once, a tenth of them held out; 0 draws fresh ones each step.
        patience: Validations without a better one before training stops; 0 never stops.
        seed: Seed of the draws.
        threads: Threads of torch; 0 takes the cores that other programs leave idle.
        loss: In Python: what is minimised instead of the NMSE, a function of x_hat and x `(batch, n)` that gives a loss
            for each sample, `(batch,)`, or one number; it also chooses the best weights.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import fanfold as ff
        >>> ff.Training(steps=100, lr=4e-3).batch
        64
    """

    steps: int = 400
    batch: int = 64
    lr: float = 1e-3
    schedule: Schedule = "end-to-end"
    refine: float = 0.2
    nmse_over: NMSEOver = "batch"
    loss_layers: int = 1
    clip: float = 1.0
    weight_decay: float = 0.0
    optimiser: OptimiserName = "adam"
    averaging: float = 0.0
    validate_every: int = 50
    validation_samples: int = 500
    simulations: int = 0
    patience: int = 0
    seed: int = 0
    threads: int = 0
    loss: Loss | None = None

    def __post_init__(self):
        positive = {
            "steps": self.steps,
            "batch": self.batch,
            "lr": self.lr,
            "refine": self.refine,
            "loss_layers": self.loss_layers,
            "clip": self.clip,
            "validate_every": self.validate_every,
            "validation_samples": self.validation_samples,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; pass a positive, finite number.")
        if min(self.weight_decay, self.patience, self.threads, self.simulations) < 0:
            raise ValueError("weight_decay, patience, threads and simulations are not negative.")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging is {self.averaging}; pass a number from 0 to below 1, such as 0.99.")


class TrainingOptions(TypedDict, total=False):
    """Fields of `Training` as keywords of `fit`; what is not given is the estimator's own, else that of `Training`."""

    steps: int
    batch: int
    lr: float
    schedule: Schedule
    refine: float
    nmse_over: NMSEOver
    loss_layers: int
    clip: float
    weight_decay: float
    optimiser: OptimiserName
    averaging: float
    validate_every: int
    validation_samples: int
    simulations: int
    patience: int
    seed: int
    threads: int
    loss: Loss | None


def training_for(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Training:
    """`Training` from what was given, and an estimator's defaults for what was not; None is "not given"."""
    check_names(Training, options, "training")
    return Training(**{**defaults, **{name: value for name, value in options.items() if value is not None}})
