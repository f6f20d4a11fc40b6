"""What the layers of real and of complex OAMP share in whole numbers."""

from typing import TypeVar

import torch
from torch import Tensor

from fanfold.algorithms.base import Theta
from fanfold.estimators.fixed_point.arithmetic import Arithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.observation import Observation
from fanfold.unfolding.unfold import Unfolded

V = TypeVar("V")


def at_known_noise(arithmetic: Arithmetic[V], network: Unfolded) -> tuple[Tensor, list[Theta]]:
    """The noise variance that layers are made for, in double precision, and the quantities of each layer.

    Raises:
        ValueError: If no noise variance is known.
    """
    if arithmetic.noise_var is None:
        raise ValueError("OAMP needs the noise variance; choose scales on observations that all have the same one.")
    A, noise_var = network.operator, torch.tensor(arithmetic.noise_var, dtype=torch.float64)
    template = Observation.unchecked(torch.zeros(A.m, dtype=A.dtype), A, noise_var)
    return noise_var, list(network.thetas(network.admitted(template)))


def sent_on(arithmetic: Arithmetic[V], message: Scaled[V], r: Scaled[V] | None) -> tuple[Scaled[V], Scaled[V]]:
    """The change that is sent on, in as many bits as activations have, and the r that it leads to."""
    if r is None:
        change = arithmetic.narrowed(message)
        return change, change
    change = arithmetic.narrowed(arithmetic.minus(message, r), at_least=r.fraction)
    return change, arithmetic.plus(change, r)
