"""State evolution: what Bayes-optimal message passing reaches on large random matrices.

AMP, iid matrices: Bayati & Montanari (2011). VAMP, right-rotationally invariant matrices: Rangan, Schniter &
Fletcher (2019), eqs. 50-53. Where the fixed point is unique it is the error of the posterior mean.
"""

from functools import lru_cache

import torch
from torch import Tensor

from fanfold.bounds.averages import average
from fanfold.core.units import power
from fanfold.priors import Prior
from fanfold.shrinkage import soft

LEAST_NOISE = 1e-60  # against the prior's power: with less the error is in proportion to it
MOST_NOISE = 1e15  # likewise: with more the error stays


@lru_cache(maxsize=4096)
def mmse(prior: Prior, v: float, *, is_complex: bool = False) -> float:
    """`E|x - E[x|r]|²` for `r = x + w`, `E|w|² = v`, to a relative 1e-8; without noise 0, and in the limit the prior's.

    Args:
        prior: Prior of x, whose entries are independent.
        v: Variance of the noise, not negative; infinite where nothing is seen.
        is_complex: Whether x is complex.

    Raises:
        ValueError: If v is negative, entries depend on each other, the prior is of real parameters and x complex, or
            the prior's `landmarks` miss a part of it.
    """
    if not v >= 0:
        raise ValueError(f"v is {v}; pass a variance, not negative.")
    if not prior.independent:
        raise ValueError(
            f"entries of {type(prior).__name__} depend on each other, and one by itself has no MMSE; pass a prior of "
            "independent entries."
        )
    if is_complex and not prior.circular:  # the axes are alike: twice half the error of one of them
        prior.log_evidence(torch.zeros(1, dtype=torch.complex128), 1.0)  # refuses where there is no complex signal
        is_complex = False
    atoms = max(abs(centre) if spread == 0 else 0.0 for centre, spread in prior.landmarks)  # they have a last digit
    least = max(LEAST_NOISE * prior.power, 1e-20 * atoms**2)
    at = min(max(v, least), MOST_NOISE * prior.power)
    error = average(prior, at, lambda r: prior.posterior_var(r, at), is_complex=is_complex)
    return error / at * v if v < at else error


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
        left = float((noise_var / (s2 * v2 + noise_var)).sum()) + n - len(s2)  # n times the share of v2 that is left
        v1 = left / float((s2 / (s2 * v2 + noise_var)).sum())  # orthogonal to its input: 1 / (1 / linear - 1 / v2)
        errors.append(mmse(prior, v1, is_complex=is_complex))
        v2 = extrinsic(errors[-1], v1)
    return errors


def extrinsic(error: float, v: float) -> float:
    """The variance of what is left of an estimate's error, orthogonal to its input's: `1 / (1 / error - 1 / v)`."""
    return 1 / max(1 / error - 1 / v, 1e-300) if error > 0 else 0.0


def soft_risk(prior: Prior, v: float, t: float, *, is_complex: bool = False) -> float:
    """`E|x - soft(r, t)|²` for `r = x + w`, `E|w|² = v`: the error of the posterior mean, and the distance from it."""

    def away(r: Tensor) -> Tensor:
        return power(soft(r, r.real.new_tensor(t)) - prior.posterior_mean(r, v))

    return mmse(prior, v, is_complex=is_complex) + average(prior, v, away, is_complex=is_complex, kinks=(t,))


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
        w = {"lmmse": d / (d**2 * v2 + noise_var), "matched-filter": d, "pseudo-inverse": 1 / d}[linear]
        w = w * (n / (d * w).sum())
        share = (1 - d * w).square().sum() + n - len(d)
        v1 = float(v2 * share + noise_var * w.square().sum()) / n
        errors.append(mmse(prior, v1, is_complex=is_complex))
        v2 = v2 + damping * (extrinsic(errors[-1], v1) - v2)
    return errors
