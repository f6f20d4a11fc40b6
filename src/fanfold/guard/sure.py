"""The risk of an estimator without the truth: Stein's unbiased estimate, with probes for the divergence.

Stein (1981), theorem 1; Ramani, Blu & Unser (2008), theorem 2 (Monte Carlo divergence); Eldar (2009)
(measurements `y = A x + w`, where only the part of x in the row space of A can be judged).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream, generator_of
from fanfold.core.units import power
from fanfold.observation import Estimator, Observation

Space = Literal["signal", "measurements"]
Divergence = Literal["autograd", "differences"]
DIFFERENCE_STEP = 0.03  # in standard deviations of the noise: far below what bends, far above rounding


class Risk(NamedTuple):
    """An estimated risk, summed over the entries of a sample; made by `sure`.

    Example:
        >>> import fanfold as ff, torch
        >>> obs = ff.Observation(torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)), None, torch.ones(1))
        >>> abs(ff.guard.sure(lambda obs: ff.Estimate(obs.y / 2), obs).value - 0.25) < 0.1  # x is zero
        True
    """

    value: float  # mean over samples; it may fall below zero, where the risk is near it
    standard_error: float | None  # of the value; None for a single sample
    values: Tensor  # (samples,) each unbiased for its own expectation


@checks_arguments
def sure(
    estimator: Estimator,
    obs: Observation,
    *,
    space: Space = "signal",
    probes: int = 1,
    divergence: Divergence = "autograd",
    seed: int = 0,
) -> Risk:
    """Stein's unbiased estimate of `E‖P (x_hat - x)‖²`, from measurements alone.

    For `y = A x + w` with white Gaussian noise of known variance, `A⁺ y = P x + A⁺ w` and
    `‖P x_hat - A⁺y‖² - noise_var tr(A⁺A⁺ᴴ) + 2 noise_var div(A⁺ᴴ x_hat(y))` has the risk as its mean. P projects onto
    the row space of A: what A does not see, nobody can judge. Without an operator, y is x in noise and P the identity.

    The map must be weakly differentiable, as soft thresholding is; hard thresholding is not, and its estimate is
    biased. It takes the model at its word: under a wrong A or noise variance it says nothing.

    Args:
        estimator: An estimator that takes each sample by itself.
        obs: The measurements `(samples, m)` with their noise variance.
        space: "signal", or "measurements" for `E‖A (x_hat - x)‖²`, which stays precise where A is ill-conditioned.
        probes: The number of directions of random signs along which the divergence is measured; more are more precise.
        divergence: "autograd", exact along each probe, or central "differences", for an estimator without gradients.
        seed: The seed of the probes.

    Raises:
        ValueError: If the noise variance is unknown, the estimate has another shape than A's input, or there are no
            gradients to be had.
    """
    if obs.noise_var is None or obs.y.ndim < 2:
        raise ValueError("SURE needs noise_var and a batch of measurements (samples, m); pass them in the Observation.")
    if probes < 1:
        raise ValueError(f"probes is {probes}; pass at least 1.")
    view = View(obs, space)
    var = obs.noise_var.expand(*obs.y.shape[:-1], 1)[..., 0].double()
    slope = torch.zeros_like(var)
    for i in range(probes):
        b = signs(obs.y, generator_of(seed, Stream.PROBES, i))
        slope += (by_autograd if divergence == "autograd" else by_differences)(estimator, obs, view, b) / probes
    with torch.no_grad():
        x_hat = estimator(obs).x
        gap = power(view.project(x_hat) - view.back(obs.y)).double().sum(-1)
    twice = 1 if obs.y.is_complex() else 2  # half of a circular variance is in each real part
    values = gap - var * view.trace + twice * var * slope
    error = values.std().item() / values.numel() ** 0.5 if values.numel() > 1 else None
    return Risk(values.mean().item(), error, values)


@dataclass(frozen=True)
class View:
    """The space where the risk is measured: `back` takes measurements there, `project` takes estimates.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.sure import View
        >>> View(ff.Observation(torch.ones(5, 3)), "signal").trace
        3.0
    """

    obs: Observation
    space: Space

    @property
    def plain(self) -> bool:
        """Whether measurements are taken as they are."""
        return self.obs.A is None or self.space == "measurements"

    def back(self, y: Tensor) -> Tensor:
        """The measurements as signals, `A⁺ y`, or y itself."""
        if self.plain:
            return y
        U, inverse, V = self._inverse()
        return V @ (inverse * (U.H @ y))

    def project(self, x: Tensor) -> Tensor:
        """The part of x that can be judged, `P x`, or `A x` in the space of measurements."""
        A = self.obs.A
        if A is None:
            if x.shape != self.obs.y.shape:
                raise ValueError(f"without an operator x is as y, {tuple(self.obs.y.shape)}; got {tuple(x.shape)}.")
            return x
        if x.shape[-1] != A.n:
            raise ValueError(f"the estimate has {x.shape[-1]} entries where A takes {A.n}.")
        if self.plain:
            return A @ x
        _, inverse, V = self._inverse()
        return V @ ((inverse > 0) * (V.H @ x))

    @property
    def trace(self) -> Tensor | float:
        """The trace of `back backᴴ`: the noise's energy in this space, for a unit variance."""
        return float(self.obs.y.shape[-1]) if self.plain else self._inverse()[1].double().square().sum(-1)

    def _inverse(self):
        assert self.obs.A is not None
        U, d, V = self.obs.A.svd()
        least = d.amax(-1, keepdim=True) * max(self.obs.A.m, self.obs.A.n) * torch.finfo(d.dtype).eps
        return U, torch.where(d > least, 1 / d.clamp_min(least), 0.0), V


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random entries of ±1, in both parts of a complex one."""
    count = (*like.shape, 2) if like.is_complex() else like.shape
    b = 2.0 * torch.randint(2, count, generator=generator) - 1.0
    b = torch.view_as_complex(b) if like.is_complex() else b
    return b.to(like.device, like.dtype)


def by_autograd(estimator: Estimator, obs: Observation, view: View, b: Tensor) -> Tensor:
    """The slope `⟨back b, ∂x_hat b⟩` of each sample, by one backward pass."""
    with torch.enable_grad():
        y = obs.y.detach().clone().requires_grad_()
        seen = view.project(estimator(Observation.unchecked(y, obs.A, obs.noise_var)).x)
        if not seen.requires_grad:
            raise ValueError("this estimator has no gradients; pass divergence='differences'.")
        (g,) = torch.autograd.grad(inner(seen, view.back(b)).sum(), y)
    return inner(g, b).double()


@torch.no_grad()
def by_differences(estimator: Estimator, obs: Observation, view: View, b: Tensor) -> Tensor:
    """The slope `⟨back b, ∂x_hat b⟩` of each sample, by two more estimates."""
    assert obs.noise_var is not None
    step = DIFFERENCE_STEP * obs.noise_var.sqrt()
    if (step <= 0).any():
        raise ValueError("noise_var is zero; differences take a step in proportion to the noise.")
    ahead, behind = (
        view.project(estimator(Observation.unchecked(y, obs.A, obs.noise_var)).x)
        for y in (obs.y + step * b, obs.y - step * b)
    )
    slope = (ahead - behind) / (2 * step)
    return inner(slope, view.back(b)).double()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product `Re⟨a, b⟩` over the last axis."""
    return (a * b.conj()).real.sum(-1) if a.is_complex() or b.is_complex() else (a * b).sum(-1)
