"""Schedules: which layers a step trains, and how fast."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fanfold.training.settings import Training


@dataclass(frozen=True)
class Stage:
    """Steps `first … last - 1`, with the network cut to `depth` layers (0: whole)."""

    first: int
    last: int
    depth: int
    newest_only: bool
    lr_factor: float

    def rate(self, step: int) -> float:
        """Factor on the learning rate at a step: along a cosine to zero."""
        return self.lr_factor * 0.5 * (1 + math.cos(math.pi * (step - self.first) / (self.last - self.first)))


def stages(training: Training, layers: int) -> list[Stage]:
    """The stages of a schedule: one, or two for each layer (the new layer alone, then all up to it)."""
    if training.schedule == "end-to-end":
        return [Stage(0, training.steps, 0, newest_only=False, lr_factor=1.0)]
    edges = np.linspace(0, training.steps, 2 * layers + 1).round().astype(int)
    return [
        Stage(int(a), int(b), i // 2 + 1, newest_only=i % 2 == 0, lr_factor=1.0 if i % 2 == 0 else training.refine)
        for i, (a, b) in enumerate(itertools.pairwise(edges))
        if b > a
    ]
