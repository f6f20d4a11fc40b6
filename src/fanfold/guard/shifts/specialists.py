"""What a network that went on training in the changed world reaches there: the price of not knowing of the change."""

import copy
import warnings

import torch
from torch import nn

from fanfold.core.abilities import offers
from fanfold.estimators.base import TrainedInRounds
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.training.fit import fit


@torch.enable_grad()
def specialist(estimator: Estimator, problem: Problem, steps: int, seed: int = 0) -> nn.Module:
    """A copy of a network after some more steps of training on a problem, shifted or not; the network stays as it is.

    It is trained as `fit` does where nothing is said, and has its best weights of all steps, the first ones among them,
    so that by the held-out draws of the problem it is never worse than the network that came.

    Args:
        estimator: A trained network.
        problem: What it is to be good at.
        steps: How many steps it goes on.
        seed: The seed of the draws that it learns from, which tests do not see.

    Raises:
        ValueError: If it has nothing to learn, is for one observation, or cannot be trained on the problem.
    """
    if not isinstance(estimator, nn.Module) or not any(p.requires_grad for p in estimator.parameters()):
        raise ValueError(
            f"{type(estimator).__name__} has nothing to learn, so it has no specialists: leave the steps 0."
        )
    if offers(estimator, TrainedInRounds):
        raise ValueError(
            f"{type(estimator).__name__} is for one observation; it has no specialists: leave the steps 0."
        )
    copied = copy.deepcopy(estimator)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The best weights are those of step 0")  # then it is the network itself
        return fit(copied, problem, steps=steps, validate_every=max(1, steps // 4), seed=seed, threads=1)
