"""Channels of any scale: estimators compute with numbers of ordinary size, whatever the units of the measurements.

Real channels come at 1e-6 and their powers at 1e-12; at 1e-20 the square of a number is none in single precision.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.core.units import ordinary_binade
from fanfold.estimators.base import ScaleAware
from fanfold.measurements import in_full_precision
from fanfold.observation import Estimate, Observation


def at_any_scale(forward: Callable[[Any, Observation], Estimate]) -> Callable[[Any, Observation], Estimate]:
    """The method of a channel estimator, for measurements of any scale that their dtype holds.

    Each sample is divided by a power of two that brings it to ordinary size, unless it is of that, and its estimate
    multiplied by it: no bit depends on it. An estimator that says that it is not scale-equivariant, as one that knows
    the power of channels, sees the measurements as they are. Half precision is computed in single.

    Raises:
        ValueError: If a power is no number in the precision of the measurements, and the estimator gives powers or
            knows them.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-2")
        >>> x, obs = problem.sample(2, torch.Generator().manual_seed(0))
        >>> estimator = ff.estimators.ofdm.BeamDelayOMP.of(problem, paths=4)
        >>> far = ff.Observation(2.0**-60 * obs.y, obs.A, 2.0**-120 * obs.noise_var)
        >>> torch.equal(estimator(far).x, 2.0**-60 * estimator(obs).x)
        True
    """

    @in_full_precision
    @functools.wraps(forward)
    def scaled(estimator: Any, obs: Observation) -> Estimate:
        unit, aware = unit_of(obs.y, obs.noise_var), ability(estimator, ScaleAware)
        if aware is not None and not aware.scale_equivariant:
            check_power(obs.y, unit)
            return forward(estimator, obs)
        estimate = forward(estimator, over(obs, unit))
        if estimate.var is None:
            return Estimate(estimate.x * unit)
        check_power(obs.y, unit)
        return Estimate(estimate.x * unit, in_unit(estimate.var, unit))

    return scaled


def unit_of(y: Tensor, noise_var: Tensor | None) -> Tensor:
    """What brings measurements `(..., m)` to ordinary size: a power of two, `(..., 1)`; one where they are of it."""
    size = y.abs().amax(-1, keepdim=True)
    return ordinary_binade(size if noise_var is None else torch.maximum(size, noise_var.to(size).sqrt()))


def over(obs: Observation, unit: Tensor) -> Observation:
    """The observation in other units."""
    noise_var = None if obs.noise_var is None else obs.noise_var / unit / unit
    return Observation.unchecked(obs.y / unit, obs.A, noise_var)


def in_unit(var: Tensor, unit: Tensor) -> Tensor:
    """Error variances in units `(..., 1)`; one that is too small for its dtype is its smallest number, and not zero."""
    scaled, kind = var * unit * unit, torch.finfo(var.dtype)
    return torch.where(var > 0, scaled.clamp_min(kind.tiny * kind.eps), scaled)


def check_power(y: Tensor, unit: Tensor) -> None:
    """Refuse measurements `(..., m)` of a size `(..., 1)` whose square is no number of their dtype.

    While a graph is traced there are no numbers to look at.

    Raises:
        ValueError: That names the first sample.
    """
    if torch.compiler.is_compiling():
        return
    beyond = (unit.square() > torch.finfo(unit.dtype).max / 4).flatten()
    if beyond.any():
        first = int(beyond.nonzero()[0])
        raise ValueError(
            f"y of sample {first} is of size {unit.flatten()[first].item():.0e}, whose square, the unit of error "
            f"variances, is no number in {y.dtype}; pass it in other units or in double precision."
        )
