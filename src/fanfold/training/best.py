"""The best weights of a training, and the running mean of the weights that may stand in for them."""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.units import nmse_db
from fanfold.estimators.base import CrossValidated, GoodFromStart
from fanfold.observation import Observation
from fanfold.runs.weights import load_parameters, parameters_of
from fanfold.training.events import Validated
from fanfold.training.objective import Objective

SHORT = 10  # steps whose mean has no lag
CHANCE = (1.0, 2.0)  # standard errors of a mean gain that chance explains: in errors, and in their logarithms


class Best:
    """The weights of least error on held-out draws; of a cross-validated estimator, those of each member.

    Where an estimator is good from the start, later weights have to be better beyond chance too, draw by draw, by the
    errors and by their logarithms: by the errors alone one draw of which little is estimated may hide what all others
    say, and by logarithms alone such draws do not count.

    Args:
        estimator: The estimator, as it is before training.
        objective: What judges it.
    """

    def __init__(self, estimator: nn.Module, objective: Objective):
        self.estimator, self.objective = estimator, objective
        self.crossed = ability(estimator, CrossValidated)
        self.weights = copies(parameters_of(estimator))
        starts = ability(estimator, GoodFromStart)
        self.good_from_start = starts is not None and starts.good_from_start
        self.scores: Tensor | None = None  # of the members; or of held-out draws, where chance is to be told apart
        self.nmse_db = self.score = math.inf
        self.step = self.stale = 0

    def begin(self) -> None:
        """Take the weights as they are: no less than these come back, whatever happens."""
        self.weights = copies(parameters_of(self.estimator))

    def facts(self) -> dict[str, float]:
        """What a checkpoint holds of it beside the weights and the scores."""
        return {
            "stale": self.stale,
            "best_nmse_db": self.nmse_db,
            "best_score": self.score,
            "best_step": self.step,
        }

    def restore(self, weights: Mapping[str, Tensor], scores: Tensor | None, facts: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint holds; the estimator has these weights then."""
        load_parameters(self.estimator, weights)
        self.begin()
        self.scores, self.stale, self.step = scores, facts["stale"], facts["best_step"]
        self.nmse_db, self.score = facts["best_nmse_db"], facts["best_score"]

    def judge(self, x: Tensor, obs: Observation, step: int, depth: int, *, whole: bool) -> Validated:
        """Judge the estimator as it is on held-out draws.

        Args:
            x: What was to be estimated.
            obs: What it is estimated from.
            step: The step of the training.
            depth: The layers that a network is cut to; 0 for all.
            whole: Whether it may be the best: a network that is cut, or midway in a course, is not.
        """
        if self.crossed is not None:
            return self._judge_members(self.crossed, x, obs, step)
        value, loss, each = self.objective.held_out(obs, x, depth)
        score = value if loss is None else loss
        better = whole and score < self.score and not self._by_chance(each)
        if better:
            self.begin()
            self.nmse_db, self.score, self.step = value, score, step
            self.scores = each if self.good_from_start else None
        self.stale = 0 if better or not whole else self.stale + 1
        return Validated(step, depth, value, better, loss)

    def _by_chance(self, each: Tensor | None) -> bool:
        """Whether chance explains that errors are less than those of the best weights, on the same draws."""
        if self.scores is None or each is None:
            return False
        gain = (self.scores - each).double()
        least = gain.new_tensor(CHANCE) * gain.std(1) / math.sqrt(gain.shape[1])
        return not (gain.mean(1) > least).all()

    def _judge_members(self, crossed: CrossValidated, x: Tensor, obs: Observation, step: int) -> Validated:
        left_out = crossed.left_out(obs, x)
        scores = left_out.scores.nan_to_num(nan=math.inf, posinf=math.inf)
        before = torch.full_like(scores, math.inf) if self.scores is None else self.scores
        which = scores < before
        crossed.adopt(self.weights, parameters_of(self.estimator), which)
        self.scores = torch.minimum(scores, before)
        value, better = nmse_db(left_out.x, x[left_out.judged]), bool(which.any())
        if better:
            self.nmse_db, self.score, self.step = value, self.scores.mean().item(), step
        self.stale = 0 if better else self.stale + 1
        return Validated(step, 0, value, better, scores.mean().item())


class MeanWeights:
    """A running mean of an estimator's weights. Polyak & Juditsky (1992), with weights that fall exponentially.

    Args:
        estimator: The estimator.
        decay: The weight of the past; 0 keeps no mean.
    """

    def __init__(self, estimator: nn.Module, decay: float):
        self.estimator, self.decay = estimator, decay
        self.weights = copies(dict(estimator.named_parameters())) if decay else {}

    def begin(self) -> None:
        """Start from the weights as they are."""
        now = dict(self.estimator.named_parameters())
        self.weights = copies({name: now[name] for name in self.weights})

    def add(self, step: int) -> None:
        """Take in the weights after a step."""
        now = dict(self.estimator.named_parameters())
        share = max(1 - self.decay, SHORT / (step + SHORT + 1))
        for name, mean in self.weights.items():
            mean.lerp_(now[name].detach(), share)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """A block in which the estimator has the mean for its weights, where there is one."""
        if not self.weights:
            yield
            return
        everything = parameters_of(self.estimator)
        live = copies({name: everything[name] for name in self.weights})
        load_parameters(self.estimator, everything | self.weights)
        try:
            yield
        finally:
            load_parameters(self.estimator, parameters_of(self.estimator) | live)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now."""
    return {name: t.detach().clone() for name, t in tensors.items()}
