"""Shrinkage functions eta(r, t) and their divergences, for real and complex r.

A divergence is the mean over the last axis of the derivative of eta with respect to r. For complex r it
is the Wirtinger derivative, `(∂/∂Re r - i ∂/∂Im r) / 2`, whose real part is half the divergence of eta as
a map of real pairs: this is the quantity in the Onsager term of complex AMP (Maleki et al., 2013).
"""

import torch
from jaxtyping import Float, Inexact
from torch import Tensor


def soft(r: Inexact[Tensor, "*#batch n"], t: Float[Tensor, "..."]) -> Inexact[Tensor, "*batch n"]:
    """Soft threshold, the proximal map of `t |x|`: the magnitude shrinks by `t`, down to zero.

    Args:
        r: Noisy signal `(..., n)`, real or complex.
        t: Threshold `>= 0`, real, broadcasting against `r`.
    """
    if r.is_complex():
        magnitude = r.abs()
        return r * (torch.relu(magnitude - t) / magnitude.clamp_min(_smallest(magnitude)))
    if not torch.is_grad_enabled():
        return r - torch.clamp(r, -t, t)  # the same values, sooner; the form below has the quicker gradient
    sign = torch.sign(r.detach())
    return sign * torch.relu(sign * r - t)


def soft_divergence(r: Inexact[Tensor, "*#batch n"], t: Float[Tensor, "..."]) -> Float[Tensor, "*batch 1"]:
    """Mean derivative of `soft`: `mean 1{|r| > t}` if real, `mean 1{|r| > t}(1 - t / (2|r|))` if complex.

    The complex form follows from `soft(r) = r - t r / |r|` and `∂(r / |r|)/∂r = 1 / (2|r|)`.
    """
    magnitude = r.abs()
    active = (magnitude > t).to(magnitude.dtype)
    if r.is_complex():
        active = active * (1 - t / (2 * torch.maximum(magnitude, t).clamp_min(_smallest(magnitude))))
    return active.mean(-1, keepdim=True)


def _smallest(magnitude: Tensor) -> float:
    """The least magnitude that is divided by: its square, which the gradient divides by, is still a normal number."""
    return 2 * torch.finfo(magnitude.dtype).tiny ** 0.5
