"""Schedules: which layers a step trains, or which term of lessons it belongs to, and how fast."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fanfold.core.settings import Checked
from fanfold.estimators.base import Term
from fanfold.training.settings import Training

LAST_LESSON = 0.05  # of the learning rate of a term is left at its end


@dataclass(frozen=True)
class Stage(Checked):
    """Steps `first … last - 1`, with the network cut to `depth` layers (0: whole), or of a term of lessons."""

    first: int
    last: int
    depth: int
    newest_only: bool
    lr_factor: float
    term: int | None = None  # of a course of lessons, which one optimiser goes through

    def rate(self, step: int) -> float:
        """Factor on the learning rate at a step: along a cosine to zero; along a line in a term of lessons."""
        if self.term is not None:
            return self.lr_factor * (1 + LAST_LESSON - (step - self.first) / (self.last - self.first))
        return self.lr_factor * 0.5 * (1 + math.cos(math.pi * (step - self.first) / (self.last - self.first)))


def stages(training: Training, layers: int, terms: Sequence[Term] = ()) -> list[Stage]:
    """The stages of a schedule: one, two for each layer (the new layer alone, then all up to it), or the terms."""
    if training.schedule == "lessons":
        return [
            Stage(term.first, term.last, 0, newest_only=False, lr_factor=term.lr_factor, term=number)
            for number, term in enumerate(terms)
            if term.last > term.first
        ]
    if training.schedule == "end-to-end":
        return [Stage(0, training.steps, 0, newest_only=False, lr_factor=1.0)]
    edges = np.linspace(0, training.steps, 2 * layers + 1).round().astype(int)
    return [
        Stage(int(a), int(b), i // 2 + 1, newest_only=i % 2 == 0, lr_factor=1.0 if i % 2 == 0 else training.refine)
        for i, (a, b) in enumerate(itertools.pairwise(edges))
        if b > a
    ]
