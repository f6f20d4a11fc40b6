"""Variances read off a residual: how much of `e = d (x - r) + w` is error and how much is noise; and of rounding."""

import torch
from torch import Tensor


def variances(
    e: Tensor, d: Tensor, v: Tensor, noise_var: Tensor, spread: Tensor, *, noise_known: bool
) -> tuple[Tensor, Tensor]:
    """The error variance and the noise variance of each sample, given its residual.

    With `x - r` of variance v and w of variance `noise_var`, entry i of e is Gaussian of variance `d_i² v + noise_var`.
    Its squares, weighed by the inverse square of that, give both variances by least squares: a step of Fisher scoring
    for the maximum of the likelihood (McCullagh & Nelder, 1989, section 2.5). Ma & Ping (2017), eq. 30, is the case of
    equal weights and a known noise variance.

    Args:
        e: The residual on the left singular vectors of A, `(..., m)`.
        d: The singular values of A, `(m,)`.
        v: The error variance that is expected, `(..., 1)`.
        noise_var: The noise variance that is known or was last estimated, `(..., 1)`.
        spread: The relative variance, over samples, of the error variance around the expected one; the larger it is,
            the more the residual has to say.
        noise_known: Whether to leave the noise variance alone.

    Returns:
        The error variance and the noise variance, `(..., 1)` each; neither falls by more than ten times.
    """
    e2, d2 = e.abs().square(), d.square()
    total = d2 * v + noise_var
    least = total.amin(-1, keepdim=True)  # makes every weight at most 1, whatever the scale
    weights = (least / total).square()
    s0, s1, s2, t0, t1 = (
        (weights * a).sum(-1, keepdim=True) for a in (torch.ones_like(d2), d2, d2.square(), e2, e2 * d2)
    )
    degrees = 1 if e.is_complex() else 2  # a real square has twice the relative variance
    pull = degrees * (least / v).square() / spread
    right = t1 + pull * v
    if noise_known:
        return torch.maximum((right - noise_var * s1) / (s2 + pull), v / 10), noise_var
    det = s0 * (s2 + pull) - s1.square()
    error, noise = (s0 * right - s1 * t0) / det, ((s2 + pull) * t0 - s1 * right) / det
    return torch.maximum(error, v / 10), torch.maximum(noise, noise_var / 10)


def rounding_variance(energy: Tensor, expected: Tensor) -> Tensor:
    """The variance of rounding for measurements of this mean square, which is noise too; next to nothing for silence.

    Args:
        energy: The mean of `|y|²` over the measurements, `(..., 1)`.
        expected: What the prior expects of it, a number or `(..., 1)`, which says what is next to nothing.
    """
    precision = torch.finfo(energy.dtype)
    silence = 1e-6 * precision.eps**2 * expected + 1e8 * precision.tiny
    return energy * energy.new_tensor(4 * precision.eps**2) + silence
