"""Half precision: what comes in 16 bits is computed in 32 and given back in 16."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanfold.core.precision import at_least_single
from fanfold.observation import Estimate, Observation

Forward = Callable[[Any, Observation], Estimate]


def in_full_precision(forward: Forward) -> Forward:
    """The method of an estimator that takes measurements in half precision too: float16, bfloat16 and complex32.

    It computes in single precision, and what it estimates comes in half again.

    Raises:
        ValueError: If the estimate is larger than half precision holds.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.estimators.precision import in_full_precision
        >>> class Fourth:
        ...     @in_full_precision
        ...     def __call__(self, obs):
        ...         return ff.Estimate(torch.linalg.matrix_power(torch.diag(obs.y), 4).diagonal())
        >>> Fourth()(ff.Observation(torch.ones(3, dtype=torch.float16))).x.dtype
        torch.float16
    """

    @functools.wraps(forward)
    def full(estimator: Any, obs: Observation) -> Estimate:
        kind, wide = obs.y.dtype, at_least_single(obs.y.dtype)
        if kind == wide:
            return forward(estimator, obs)
        A = None if obs.A is None else obs.A.to(dtype=wide)
        estimate = forward(estimator, Observation.unchecked(obs.y.to(wide), A, obs.noise_var))
        var = None if estimate.var is None else _narrowed(estimate.var, kind.to_real(), "error variances")
        return Estimate(_narrowed(estimate.x, kind, "the estimate"), var)

    return full


def _narrowed(wide: Tensor, kind: torch.dtype, what: str) -> Tensor:
    if not wide.is_complex():  # such as the places of sources in complex measurements
        kind = kind.to_real()
    narrow = wide.to(kind)
    real, of_wide = (torch.view_as_real(part) if part.is_complex() else part for part in (narrow, wide))
    if (real.isinf() & ~of_wide.isinf()).any():
        largest = torch.finfo(kind).max
        raise ValueError(
            f"{what} reach {of_wide.abs().max().item():.3g}, and {kind} holds {largest:.3g} at most; pass y in single "
            "precision, y.to(torch.float32), or in larger units."
        )
    return narrow
