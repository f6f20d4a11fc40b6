"""Shrinkage functions eta(r, t) and their divergences, for real and complex r.

A divergence is the mean over the last axis of the derivative of eta with respect to r. For complex r it
is the Wirtinger derivative, `(∂/∂Re r - i ∂/∂Im r) / 2`, whose real part is half the divergence of eta as
a map of real pairs: this is the quantity in the Onsager term of complex AMP (Maleki et al., 2013).
"""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.units import power

__all__ = [
    "firm", "firm_divergence", "group_soft", "group_soft_divergence", "scad", "scad_divergence", "soft",
    "soft_divergence",
]  # fmt: skip

Level = float | Float[Tensor, "..."]


def soft(r: Inexact[Tensor, "*#batch n"], t: Float[Tensor, "..."]) -> Inexact[Tensor, "*batch n"]:
    """The soft threshold, the proximal map of `t |x|`: the magnitude shrinks by `t`, down to zero.

    Args:
        r: The noisy signal `(..., n)`, real or complex.
        t: The level, `>= 0`, real, broadcasting against `r`.
    """
    if r.is_complex():
        magnitude = r.abs()
        return r * (torch.relu(magnitude - t) / magnitude.clamp_min(_smallest(magnitude)))
    if not torch.is_grad_enabled():
        return r - torch.clamp(r, -t, t)  # the same values, sooner; the form below has the quicker gradient
    sign = torch.sign(r.detach())
    return sign * torch.relu(sign * r - t)


def soft_divergence(r: Inexact[Tensor, "*#batch n"], t: Float[Tensor, "..."]) -> Float[Tensor, "*batch 1"]:
    """The mean derivative of `soft`: `mean 1{|r| > t}` if real, `mean 1{|r| > t}(1 - t / (2|r|))` if complex.

    The complex form follows from `soft(r) = r - t r / |r|` and `∂(r / |r|)/∂r = 1 / (2|r|)`.
    """
    magnitude = r.abs()
    active = (magnitude > t).to(magnitude.dtype)
    if r.is_complex():
        active = active * (1 - t / (2 * torch.maximum(magnitude, t).clamp_min(_smallest(magnitude))))
    return active.mean(-1, keepdim=True)


def firm(r: Inexact[Tensor, "*#batch n"], t: Level, concavity: Level) -> Inexact[Tensor, "*batch n"]:
    """The firm threshold (Gao & Bruce, 1997): the proximal map of the minimax concave penalty (MCP; Zhang, 2010).

    The penalty is `t |x| - concavity |x|² / 2` up to `|x| = t / concavity` and flat beyond, where r is left as it is.
    From a concavity of 1 on the map jumps, to a hard threshold of `t / sqrt(concavity)`.

    Args:
        r: The noisy signal `(..., n)`, real or complex.
        t: The level, `>= 0`, real, broadcasting against `r`.
        concavity: The penalty's concavity, `>= 0`; 0 gives `soft`. Gao & Bruce's ratio of thresholds is its inverse.
    """
    return _radial(r, _firm(r.abs(), t, concavity)[0])


def firm_divergence(r: Inexact[Tensor, "*#batch n"], t: Level, concavity: Level) -> Float[Tensor, "*batch 1"]:
    """The mean derivative of `firm`; a jump of the map counts for nothing."""
    return _radial_divergence(r, *_firm(r.abs(), t, concavity))


def _firm(magnitude: Tensor, t: Level, concavity: Level) -> tuple[Tensor, Tensor]:
    """The shrunken magnitudes and their slope."""
    t, c = (torch.as_tensor(v, dtype=magnitude.dtype, device=magnitude.device) for v in (t, concavity))
    jump = torch.sqrt(c.clamp_min(1))
    kept = magnitude > t / jump
    free = kept & (magnitude * c >= t * jump)
    slope = kept / (1 - c).clamp_min(torch.finfo(magnitude.dtype).eps)
    value = torch.where(free, magnitude, torch.relu(magnitude - t) * slope)
    return value, torch.where(free, torch.ones_like(magnitude), slope)


def scad(r: Inexact[Tensor, "*#batch n"], t: Level, a: Level = 3.7, step: Level = 1.0) -> Inexact[Tensor, "*batch n"]:
    """The proximal map of `step` times SCAD, smoothly clipped absolute deviation (Fan & Li, 2001, eqs. 2.6-2.8).

    With `lam = t / step` the penalty has slope lam up to `|x| = lam`, falling to 0 at `a lam`, and is flat beyond:
    small entries shrink by t, large ones not at all. From a step of `a - 1` on the map jumps.

    Args:
        r: The noisy signal `(..., n)`, real or complex.
        t: The level, `>= 0`, real, broadcasting against `r`.
        a: Where the penalty becomes flat, in units of `t / step`; above 2 (Fan & Li: 3.7).
        step: The factor on the penalty, positive.
    """
    return _radial(r, _scad(r.abs(), t, a, step)[0])


def scad_divergence(
    r: Inexact[Tensor, "*#batch n"], t: Level, a: Level = 3.7, step: Level = 1.0
) -> Float[Tensor, "*batch 1"]:
    """The mean derivative of `scad`; a jump of the map counts for nothing."""
    return _radial_divergence(r, *_scad(r.abs(), t, a, step))


def _scad(magnitude: Tensor, t: Level, a: Level, step: Level) -> tuple[Tensor, Tensor]:
    """The shrunken magnitudes and their slope."""
    t, a, step = (torch.as_tensor(v, dtype=magnitude.dtype, device=magnitude.device) for v in (t, a, step))
    lam, middle = t / step, (step + a + 1) / 2  # where two minima are equally low, if the penalty wins by curvature
    steep, free = magnitude > lam * torch.minimum(1 + step, middle), magnitude > lam * torch.maximum(a, middle)
    curvature = step / (a - 1)
    slope = 1 / (1 - curvature).clamp_min(torch.finfo(magnitude.dtype).eps)
    line = (magnitude - curvature * a * lam) * slope
    kept = (magnitude > t).to(magnitude.dtype)
    value = torch.where(free, magnitude, torch.where(steep, line, torch.relu(magnitude - t)))
    return value, torch.where(free, torch.ones_like(magnitude), torch.where(steep, slope, kept))


def group_soft(r: Inexact[Tensor, "*#batch n"], t: Level, size: int) -> Inexact[Tensor, "*batch n"]:
    """The soft threshold of groups, the proximal map of `t Σ ‖x_g‖` (Yuan & Lin, 2006): each norm shrinks by t.

    Args:
        r: The noisy signal `(..., n)`, real or complex; group g holds entries `g size` to `(g + 1) size - 1`.
        t: The level, `>= 0`, real, broadcasting against `r`.
        size: The number of entries of a group; it divides n.

    Raises:
        ValueError: If the size does not divide n.
    """
    norm = _group_norm(r, size)
    return r * (torch.relu(norm - t) / norm)


def group_soft_divergence(r: Inexact[Tensor, "*#batch n"], t: Level, size: int) -> Float[Tensor, "*batch 1"]:
    """The mean derivative of `group_soft`: for an entry of a kept group `1 - t / ‖r_g‖ + t |r|² / (k ‖r_g‖³)`.

    k is 1 if real and 2 if complex, where the derivative is that of the module.
    """
    norm = _group_norm(r, size)
    above = torch.maximum(norm, torch.as_tensor(t, dtype=norm.dtype, device=norm.device))
    share = (r.abs() / above).square() / (2 if r.is_complex() else 1)
    return ((norm > t).to(norm.dtype) * (1 - t / above * (1 - share))).mean(-1, keepdim=True)


def _group_norm(r: Tensor, size: int) -> Tensor:
    """The norm of the group that each entry belongs to."""
    if r.shape[-1] % size:
        raise ValueError(f"groups of {size} do not divide {r.shape[-1]} entries; pass a size that does.")
    squares = power(r).unflatten(-1, (-1, size)).sum(-1, keepdim=True)
    norm = torch.maximum(squares, squares.new_tensor(torch.finfo(squares.dtype).tiny)).sqrt()  # has a gradient at zero
    return norm.expand(*norm.shape[:-1], size).flatten(-2)


def _radial(r: Tensor, magnitude: Tensor) -> Tensor:
    """The entries of r with other magnitudes and the same phases."""
    if r.is_complex():
        old = r.abs()
        return r * (magnitude / old.clamp_min(_smallest(old)))
    return torch.sign(r.detach()) * magnitude


def _radial_divergence(r: Tensor, magnitude: Tensor, slope: Tensor) -> Tensor:
    """The mean derivative of a map that changes magnitudes alone: `h'(|r|)`, or `(h'(|r|) + h(|r|) / |r|) / 2`."""
    if r.is_complex():
        old = r.abs()
        slope = (slope + magnitude / old.clamp_min(_smallest(old))) / 2
    return slope.mean(-1, keepdim=True)


def _smallest(magnitude: Tensor) -> float:
    """The least magnitude that is divided by: its square, which the gradient divides by, is still a normal number."""
    return 2 * torch.finfo(magnitude.dtype).tiny ** 0.5


def __dir__() -> list[str]:
    return __all__
