"""Optimisers: Adam, and for the matrices of small dense networks one that moves along all directions alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

OptimiserName = Literal["adam", "muon"]

MOMENTUM = 0.95
RATE = 5.0  # of the rate of Adam, that matrices learn at: their steps agree with those that are to come
ALIKE = 0.2  # times √max(rows, columns), an orthogonal matrix is as large as a step of Adam
QUINTIC = (3.4445, -4.7750, 2.0315)  # takes singular values from 0.01 to 1 near 1 in a few rounds
TURNS = 3  # rounds: what is then far from 1 is small, and five rounds cost more than they gain
TINY = 1e-12  # added to norms


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices `(..., rows, columns)` with singular vectors as they are, and singular values near one.

    Newton and Schulz's iteration with the polynomial `3.4445 s - 4.7750 s³ + 2.0315 s⁵` of the singular values
    (Jordan, 2024, "Muon: an optimizer for hidden layers in neural networks"). Zero stays zero.

    Example:
        >>> import torch
        >>> from fanfold.training.optimisers import orthogonal
        >>> torch.linalg.svdvals(orthogonal(torch.diag(torch.tensor([3.0, 1.0])))).shape
        torch.Size([2])
    """
    first, third, fifth = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    turned = (matrices.mH if tall else matrices).unsqueeze(0).flatten(0, -3)
    turned = turned / (turned.norm(dim=(-2, -1), keepdim=True) + TINY)
    for _ in range(TURNS):
        gram = turned @ turned.mH
        turned = torch.baddbmm(turned, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), turned, beta=first)
    return (turned.mH if tall else turned).reshape(matrices.shape)


class Muon(torch.optim.AdamW):
    """AdamW, but that matrices move by an orthogonal matrix times the learning rate.

    The step is the orthogonal factor of the momentum, times `0.2 √max(rows, columns)`, which is as large as a step of
    Adam (Jordan, 2024; Liu et al., 2025, "Muon is scalable for LLM training", section 2.2), at 5 times the learning
    rate. Each matrix of a stack `(..., rows, columns)` is a matrix by itself; one of a single row or column is none.
    The state of a stack is its `momentum` and a count; all else has that of Adam.

    Args:
        groups: Parameter groups as for AdamW; those with `matrices` true are parted into matrices and the rest.
        weight_decay: As of AdamW, for groups that say none.

    Example:
        >>> import torch
        >>> from fanfold.training.optimisers import Muon
        >>> weights = torch.nn.Parameter(torch.zeros(5, 4, 3))
        >>> optimiser = Muon([{"params": [weights], "lr": 0.1, "matrices": True}])
        >>> weights.grad = torch.ones(5, 4, 3)
        >>> optimiser.step()
        >>> sorted(optimiser.state[weights])
        ['momentum', 'step']
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], weight_decay: float = 0.0):
        super().__init__([*_parted(groups)], weight_decay=weight_decay)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all parameters that have a gradient once."""
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["matrices"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        with torch.no_grad():
            for group in everything:
                for p in group["params"] if group["matrices"] else ():
                    if p.grad is not None:
                        self._move(p, p.grad, group["lr"], group["weight_decay"])
        return loss

    def _move(self, p: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:
            state |= {"momentum": torch.zeros_like(p), "step": torch.zeros(())}  # AdamW reads states with a count
        state["step"] += 1
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        step = orthogonal(gradient.lerp(momentum, MOMENTUM))  # ahead by one step, after Nesterov
        p.mul_(1 - RATE * lr * weight_decay).sub_(step, alpha=RATE * lr * ALIKE * max(p.shape[-2:]) ** 0.5)


def _parted(groups: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Groups of matrices and of all else, none of which is empty."""
    for group in groups:
        flags = [bool(group.get("matrices")) and p.dim() > 1 and min(p.shape[-2:]) > 1 for p in group["params"]]
        for wanted in sorted(set(flags)):
            params = [p for p, flag in zip(group["params"], flags, strict=True) if flag == wanted]
            yield {**group, "params": params, "matrices": wanted}
