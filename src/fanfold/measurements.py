"""What estimators take in place of an observation, y by itself, and the precision in which they compute."""

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.arrays import tensor_of
from fanfold.core.precision import at_least_single
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation

S = TypeVar("S")
T = TypeVar("T")

Measurements = Observation | Tensor | np.ndarray  # what estimators of this package take in its place


@runtime_checkable
class Belonging(Protocol):
    """An estimator that belongs to one operator, for which measurements alone say all."""

    @property
    def operator(self) -> LinearOperator: ...

    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class AroundEstimator(Protocol):
    """What is put around an estimator, such as its intervals, and belongs to what that belongs to."""

    @property
    def estimator(self) -> Callable[..., Any]: ...


def takes_measurements(estimate: Callable[[S, Observation], T]) -> Callable[[S, Measurements], T]:
    """An estimator's method that also takes y by itself, a torch tensor or a numpy array: `net(y)`.

    The observation is made of y, in the precision of the estimator, and the operator that the estimator belongs to, if
    it belongs to one. The noise variance stays unknown. What comes out are torch tensors, which of an array remember no
    gradients, so that `.numpy()` turns them back. It stands above other decorators, which see observations alone.

    Example:
        >>> import fanfold as ff, numpy as np
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> net(np.ones((5, 10))).x.shape
        torch.Size([5, 20])
    """

    @wraps(estimate)
    def of_measurements(self: S, obs: Measurements) -> T:
        if isinstance(obs, Observation):
            return estimate(self, obs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(obs, Tensor)):
            return estimate(self, observation_for(self, obs))

    return of_measurements


def observation_for(estimator: object, y: Any) -> Observation:
    """The observation of measurements y alone, for an estimator.

    Args:
        estimator: Says the operator, where it belongs to one, and the precision.
        y: The measurements, a torch tensor or a numpy array.

    Raises:
        ValueError: If y is neither, or does not fit.
    """
    if isinstance(y, tuple) and any(isinstance(part, Observation) for part in y):
        raise ValueError("y is a tuple, as sample returns it; take it apart: x, obs = problem.sample(...).")
    if isinstance(y, Estimate):
        raise ValueError("y is an Estimate; pass what was measured, not what was estimated.")
    if (around := ability(estimator, AroundEstimator)) is not None:
        return observation_for(around.estimator, y)
    bound = ability(estimator, Belonging)
    A = None if bound is None else bound.operator
    measured = tensor_of(y, "y")
    held = A if A is not None else _first_tensor(estimator)
    if held is not None and (measured.is_floating_point() or measured.is_complex()):
        real = held.dtype.to_real()
        measured = measured.to(real.to_complex() if measured.is_complex() else real)
    if held is not None and not isinstance(y, Tensor):  # a tensor has been put where it is
        measured = measured.to(held.device)
    return Observation(measured, A)


def _first_tensor(estimator: object) -> Tensor | None:
    """A floating parameter or buffer of a network, whose precision and device are its own; None where it has none."""
    if not isinstance(estimator, nn.Module):
        return None
    held = itertools.chain(estimator.parameters(), estimator.buffers())
    return next((t for t in held if t.is_floating_point() or t.is_complex()), None)


def in_working_precision(estimator: Callable[..., Estimate]) -> Callable[..., Estimate]:
    """An estimator, or its `__call__`, that computes in the working precision and returns the one that came in."""

    @wraps(estimator)
    def estimate(*args: Any, **kwargs: Any) -> Estimate:
        obs = next(a for a in args if isinstance(a, Observation))
        wide = obs.in_precision(obs.working_dtype())
        return estimator(*(wide if a is obs else a for a in args), **kwargs).in_precision(obs.y.dtype)

    return estimate


def in_full_precision(forward: Callable[[S, Observation], Estimate]) -> Callable[[S, Observation], Estimate]:
    """A network's method that computes half precision in single, as its weights are, and returns what came in."""

    @wraps(forward)
    def estimate(self: S, obs: Observation) -> Estimate:
        kind = obs.y.dtype
        if kind == at_least_single(kind):
            return forward(self, obs)
        return forward(self, obs.in_precision(at_least_single(kind))).in_precision(kind)

    return estimate
