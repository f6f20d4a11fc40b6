"""What an adaptation tries of a network: less of what it has learned, a few numbers, or all weights learned anew."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from fanfold.core.abilities import ability
from fanfold.estimators.base import Grouped, Restrainable
from fanfold.guard.adaptation_losses import OfPairs

STRENGTHS = (0.0, 0.25, 0.5, 0.75)  # of what was learned
FEW = 256  # numbers that are learned at the middle level: those of the smallest parameters, as many as fit
RATES = {"few numbers": 1e-2, "all weights": 3e-3}
STEPS = 150  # of a training, after which it is judged


def restrained(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A copy at lesser strengths, where the network has one; the copy is the same each time."""
    copied = copy.deepcopy(network)
    if (knob := ability(copied, Restrainable)) is None or knob.strength == 0:
        return
    full = knob.strength
    for share in STRENGTHS:
        knob.strength = full * share
        yield f"strength {knob.strength:g}", copied


def taught(network: nn.Module, lessons: OfPairs) -> Iterator[tuple[str, nn.Module]]:
    """Copies that have learned from these pairs: few numbers, and all weights where these are more."""
    every, few = learnable(network), _few(network)
    if few:
        yield from _learned(network, lessons, "few numbers", few)
    if len(few) < len(every):
        yield from _learned(network, lessons, "all weights", every)


def learnable(network: nn.Module) -> list[str]:
    """The names of parameters that may change."""
    return [name for name, p in network.named_parameters() if p.requires_grad and p.numel()]


def _learned(network: nn.Module, lessons: OfPairs, level: str, names: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """A copy as it is after some steps on these parameters, or none where the lesson is not finite.

    The rate falls to nothing: one that learns within so few steps would end anywhere around its goal, by more than the
    held-out pairs tell apart.
    """
    copied = copy.deepcopy(network)
    by_name = dict(copied.named_parameters())
    learned = [by_name[name] for name in names]
    optimiser = torch.optim.Adam(_groups(copied, learned, RATES[level]))
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / STEPS)
    for step in range(1, STEPS + 1):
        with torch.enable_grad():
            loss = lessons.lesson(copied, step)
            if not torch.isfinite(loss) or not loss.requires_grad:
                return
            gradients = torch.autograd.grad(loss, learned, allow_unused=True)  # what is not learned gets none
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        falling.step()
    optimiser.zero_grad()
    yield f"{level}, {STEPS} steps", copied


def _groups(network: nn.Module, learned: list[nn.Parameter], lr: float) -> list[dict]:
    """Parameter groups of what is learned, at the network's own rates where it has some."""
    if (grouped := ability(network, Grouped)) is None:
        return [{"params": learned, "lr": lr}]
    wanted = {id(p) for p in learned}
    groups = [
        {"params": [p for p in group["params"] if id(p) in wanted], "lr": group["lr"]}
        for group in grouped.parameter_groups(lr)
    ]
    return [group for group in groups if group["params"]]


def _few(network: nn.Module) -> list[str]:
    """The smallest parameters, as many as have `FEW` numbers together; none where the smallest has more."""
    sizes, few, numbers = {name: p.numel() for name, p in network.named_parameters()}, [], 0
    for name in sorted(learnable(network), key=lambda name: sizes[name]):
        numbers += sizes[name]
        if numbers > FEW:
            break
        few.append(name)
    return few
