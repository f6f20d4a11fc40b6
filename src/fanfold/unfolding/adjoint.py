"""Gradients through a fixed point, by the implicit function theorem. Bai, Kolter & Koltun (2019), theorem 1."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_with_path

from fanfold.algorithms.base import Algorithm, State, Theta
from fanfold.observation import Observation


def sample_numbers(s: State, obs: Observation) -> dict[str, Tensor]:
    """The tensors of a state that hold numbers of each sample, by where they are."""
    batch = obs.y.shape[:-1]
    return {
        keystr(path): v
        for path, v in tree_flatten_with_path(s)[0]
        if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex()) and v.shape[: len(batch)] == batch
    }


def replaced(s: State, numbers: Mapping[str, Tensor]) -> State:
    """The state with these tensors in their places."""
    return tree_map_with_path(lambda path, v: numbers.get(keystr(path), v), s)


def flat(t: Tensor, obs: Observation) -> Tensor:
    """A tensor of samples as real rows, one a sample."""
    rows = obs.y.shape[:-1].numel()
    return (torch.view_as_real(t) if t.is_complex() else t).reshape(rows, -1)


@dataclass(frozen=True)
class ImplicitGradient:
    """Gradients through a fixed point: `u = g + Jᵀu` for the Jacobian J of a step, by vector-Jacobian products.

    Attributes:
        algorithm: The algorithm whose step has a fixed point.
        s: The state at the fixed point.
        obs: The observation.
        theta: The quantities of the step.
        moving: Where in the state the tensors are that gradients go through. A tensor that has kept its value from the
            start is none: the step only hands it on, and any other value would be as fixed.
        settled: For each sample, whether it is at a fixed point; the others get the gradient of the last step alone.
        tolerance: The residual that the equation may leave, relative to g.
        max_products: How many products are taken at most; where the step contracts, a few dozen do.
    """

    algorithm: Algorithm
    s: State
    obs: Observation
    theta: Theta
    moving: Sequence[str]
    settled: Tensor
    tolerance: float
    max_products: int = 100

    @torch.enable_grad()
    def __call__(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The solution `u` for the gradients `g` with respect to the moving tensors of the last state."""
        fixed = sample_numbers(self.s, self.obs)
        inputs = {k: fixed[k].detach().requires_grad_() for k in self.moving if k in fixed}
        after = self.algorithm.step(replaced(self.s, inputs), self.obs, detached(self.theta))
        outputs = sample_numbers(after, self.obs)

        def step_back(along: Mapping[str, Tensor], to: Sequence[str]) -> list[Tensor | None]:
            ends = [k for k in along if outputs[k].requires_grad]
            slopes = ([outputs[k] for k in ends], [inputs[k] for k in to], [along[k] for k in ends])
            return list(torch.autograd.grad(*slopes, retain_graph=True, allow_unused=True))

        u = dict(zip(self.moving, grads))
        first = dict(zip(inputs, step_back(u, [*inputs])))
        read = [k for k, slope in first.items() if slope is not None]  # what no step reads has no more to add to
        if not read:
            return list(grads)
        rows, settled = Rows([inputs[k] for k in read], self.obs), self.settled[:, None]

        def equation(p: Tensor) -> Tensor:
            slopes = step_back(dict(zip(read, rows.apart(p))), read)
            back = rows.together([torch.zeros_like(inputs[k]) if s is None else s for k, s in zip(read, slopes)])
            return torch.where(settled, p - back, p)

        others = {k: v for k, v in u.items() if k not in read}
        known = step_back(others, read) if any(outputs[k].requires_grad for k in others) else [None] * len(read)
        g = rows.together([u[k] if s is None else u[k] + s for k, s in zip(read, known)])
        scale = g.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)  # squares must not underflow
        solution, left = gmres(equation, torch.where(settled, g / scale, 0), self.tolerance, self.max_products)
        if not left <= self.tolerance:
            warnings.warn(
                f"gradients through the fixed point of {type(self.algorithm).__name__} are inexact: their equation is "
                f"left with a residual of {left:.1e} after {self.max_products} products. "
                "The step barely contracts there.",
                stacklevel=2,
            )
        plain = rows.together([u[k] for k in read])
        u |= dict(zip(read, rows.apart(torch.where(settled, solution * scale, plain))))
        return [u[k] for k in self.moving]


def detached(theta: Theta) -> Theta:
    """The same quantities without their gradients."""
    return Theta(**{name: value.detach() for name, value in vars(theta).items()})


class Rows:
    """Tensors of samples, real or complex, as one real row a sample, and back."""

    def __init__(self, like: Sequence[Tensor], obs: Observation):
        self.like, self.obs = like, obs
        self.widths = [flat(v, obs).shape[-1] for v in like]

    def together(self, values: Sequence[Tensor]) -> Tensor:
        """The tensors, one after the other, as one real row a sample."""
        return torch.cat([flat(v, self.obs) for v in values], dim=-1)

    def apart(self, rows: Tensor) -> list[Tensor]:
        """The tensors that these rows hold."""
        parts = rows.split(self.widths, dim=-1)
        return [
            torch.view_as_complex(p.reshape(*v.shape, 2).contiguous()) if v.is_complex() else p.reshape(v.shape)
            for p, v in zip(parts, self.like)
        ]


def gmres(
    apply: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, max_products: int, window: int = 32
) -> tuple[Tensor, float]:
    """Solve `M u = b` for every row of b. Saad & Schultz (1986), algorithm 4: GMRES(window).

    Args:
        apply: The product `M p` for rows p, each row with a matrix of its own.
        b: The right-hand sides `(rows, unknowns)`.
        tolerance: The residual that each row may leave, relative to `‖b‖`.
        max_products: The number of products after which it stops anyway.
        window: The number of products between restarts, whose directions are kept.

    Returns:
        The solutions, and the largest relative residual that is left.
    """
    tiny = torch.finfo(b.dtype).tiny
    whole = torch.linalg.vector_norm(b, dim=-1).clamp_min(tiny)
    u, r, products, left = torch.zeros_like(b), b, 0, math.inf
    while products < max_products and left > tolerance:
        size = torch.linalg.vector_norm(r, dim=-1)
        directions, H = [r / size.clamp_min(tiny)[:, None]], b.new_zeros(len(b), window + 1, window)
        for j in range(window):
            p = apply(directions[j])
            for i, d in enumerate(directions):  # Arnoldi
                H[:, i, j] = (d * p).sum(-1)
                p = p - H[:, i, j, None] * d
            H[:, j + 1, j] = torch.linalg.vector_norm(p, dim=-1)
            directions.append(p / H[:, j + 1, j, None].clamp_min(tiny))
            products += 1
            Q = torch.linalg.qr(H[:, : j + 2, : j + 1], mode="complete").Q
            left = (Q[:, 0, -1].abs() * size / whole).max().item()
            if left <= tolerance or products == max_products:
                break
        weights = torch.linalg.pinv(H[:, : j + 2, : j + 1])[:, :, 0] * size[:, None]
        u = u + sum(w[:, None] * d for w, d in zip(weights.unbind(-1), directions))
        if left > tolerance and products < max_products:
            r = b - apply(u)
            products += 1
    return u, left


class Through(torch.autograd.Function):
    """The identity, with gradients that go through the fixed point."""

    @staticmethod
    def forward(ctx, adjoint: ImplicitGradient, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.adjoint = adjoint
        return tuple(v.view_as(v) for v in values)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return None, *ctx.adjoint(grads)
