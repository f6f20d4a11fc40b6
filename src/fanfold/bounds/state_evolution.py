"""State evolution: what Bayes-optimal message passing reaches on large random matrices.

AMP, iid matrices: Bayati & Montanari (2011). VAMP, right-rotationally invariant matrices: Rangan, Schniter &
Fletcher (2019), eqs. 50-53. Where the fixed point is unique it is the error of the posterior mean.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.priors import Prior
from fanfold.shrinkage import soft


@lru_cache(maxsize=4096)
def mmse(prior: Prior, v: float, *, is_complex: bool = False, nodes: int = 4001) -> float:
    """`E|x - E[x|r]|²` for `r = x + w`, `E|w|² = v`, by the trapezoidal rule over |r|.

    The nodes are uniform in `asinh(|r| / sqrt(v))`, which resolves the scale of the noise and of the signal
    alike, at any ratio of the two.

    Raises:
        ValueError: If a part of the prior away from zero is so narrow that the nodes miss it.
    """
    is_complex = is_complex and prior.circular  # else the axes are alike: twice half the error of one of them
    top = np.arcsinh(14 * np.sqrt((prior.power + v) / v)) + (2 if prior.heavy_tailed else 0)
    u = torch.linspace(0, float(top), nodes, dtype=torch.float64)
    r = np.sqrt(v) * torch.sinh(u)
    measure = np.sqrt(v) * torch.cosh(u) * (2 * np.pi * r if is_complex else 2.0)
    sides = (r.to(torch.complex128),) if is_complex else (r,) if prior.symmetric else (r, -r)
    evidence = [torch.exp(prior.log_evidence(a, v)) for a in sides]
    mass = float(torch.trapezoid(sum(evidence, torch.zeros(())) / len(sides) * measure, u))
    if abs(mass - 1) > 1e-3:
        raise ValueError(
            f"{prior} seen through noise of variance {v:g} is too narrow for {nodes} nodes around zero, which catch "
            f"{mass:.3g} of it: pass more nodes."
        )
    density = sum((e * prior.posterior_var(a, v) for e, a in zip(evidence, sides)), torch.zeros(())) / len(sides)
    return float(torch.trapezoid(density * measure, u))


def amp(
    prior: Prior, delta: float, noise_var: float, iterations: int = 200, *, is_complex: bool = False, start: float = 1.0
) -> list[float]:
    """Error variance per unknown after each iteration of Bayes AMP, `tau² ← noise_var + mmse(tau²) / delta`.

    Args:
        prior: Prior of each unknown.
        delta: `m / n`; A has iid entries of variance `1 / m`.
        noise_var: `E|w|²` of a measurement.
        iterations: How many.
        is_complex: Whether signal and noise are circular complex.
        start: Error to start from, as a share of the signal's power: 1 knows nothing, close to 0 nearly all.
    """
    tau2, errors = noise_var + start * prior.power / delta, []
    for _ in range(iterations):
        errors.append(mmse(prior, tau2, is_complex=is_complex))
        tau2 = noise_var + errors[-1] / delta
    return errors


def vamp(
    prior: Prior,
    singular_values: Tensor,
    n: int,
    noise_var: float,
    iterations: int = 200,
    *,
    is_complex: bool = False,
    start: float = 1.0,
) -> list[float]:
    """Error variance per unknown after each iteration of VAMP on `A = U diag(s) Vᴴ` with Haar V.

    Args:
        prior: Prior of each unknown.
        singular_values: The non-zero ones of A, at most n.
        n: Number of unknowns.
        noise_var: `E|w|²` of a measurement, positive.
        iterations: How many.
        is_complex: Whether signal and noise are circular complex.
        start: Error to start from, as a share of the signal's power: 1 knows nothing, close to 0 nearly all.
    """
    s2 = singular_values.double().square()
    v2, errors = start * prior.power, []  # variance of the error that enters the linear step
    for _ in range(iterations):
        linear = (float((noise_var * v2 / (s2 * v2 + noise_var)).sum()) + (n - len(s2)) * v2) / n
        v1 = 1 / max(1 / linear - 1 / v2, 1e-300)  # orthogonal to its input
        errors.append(mmse(prior, v1, is_complex=is_complex))
        v2 = 1 / max(1 / errors[-1] - 1 / v1, 1e-300)
    return errors


def soft_risk(prior: Prior, v: float, t: float, *, is_complex: bool = False, nodes: int = 4001) -> float:
    """`E|x - soft(r, t)|²` for `r = x + w`, `E|w|² = v`: the error of the posterior mean, and the distance from it."""
    top = float(np.arcsinh(14 * np.sqrt((prior.power + v) / v)))
    u = torch.linspace(0, top, nodes, dtype=torch.float64)
    r = np.sqrt(v) * torch.sinh(u)
    measure = np.sqrt(v) * torch.cosh(u) * (2 * np.pi * r if is_complex else 1.0)
    away = 0.0
    for a in (r.to(torch.complex128),) if is_complex else (r, -r):
        mean = prior.posterior_mean(a, v)
        density = torch.exp(prior.log_evidence(a, v)) * measure
        away += float(torch.trapezoid(density * power(soft(a, r.new_tensor(t)) - mean), u))
    return mmse(prior, v, is_complex=is_complex) + away


def soft_threshold_evolution(
    prior: Prior, alpha: float, delta: float, noise_var: float, iterations: int, *, is_complex: bool = False
) -> list[float]:
    """Error variance per unknown after each iteration of AMP with the threshold `alpha τ`; arguments as in `amp`.

    Raises:
        ValueError: If signals are complex and the prior is not circular.
    """
    if is_complex and not prior.circular:
        raise ValueError(f"the risk of a complex soft threshold is known for circular priors, which {prior} is not.")
    tau2, errors = noise_var + prior.power / delta, []
    for _ in range(iterations):
        errors.append(soft_risk(prior, tau2, alpha * tau2**0.5, is_complex=is_complex))
        tau2 = noise_var + errors[-1] / delta
    return errors


def oamp_evolution(
    prior: Prior,
    singular_values: Tensor,
    n: int,
    noise_var: float,
    iterations: int,
    *,
    linear: str = "lmmse",
    damping: float = 1.0,
    is_complex: bool = False,
) -> list[float]:
    """Error variance per unknown after each iteration of OAMP, with any of its linear steps; arguments as in `vamp`."""
    d, v2, errors = singular_values.double(), prior.power, []
    for _ in range(iterations):
        w = {"lmmse": d * v2 / (d**2 * v2 + noise_var), "matched-filter": d, "pseudo-inverse": 1 / d}[linear]
        w = w * (n / (d * w).sum())
        share = (1 - d * w).square().sum() + n - len(d)
        v1 = float(v2 * share + noise_var * w.square().sum()) / n
        errors.append(mmse(prior, v1, is_complex=is_complex))
        v2 = v2 + damping * (1 / max(1 / errors[-1] - 1 / v1, 1e-300) - v2)
    return errors
