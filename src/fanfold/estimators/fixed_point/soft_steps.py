"""LISTA-CP and ALISTA in whole numbers. Chen et al. (2018), eq. 12; Liu, Chen, Wang & Yin (2019), section 3.

A layer `x ← soft(x + step W (y - A x), t)` is

    v = narrow(y - A x),   r = x + step W v,   x = narrow(r - clamp(r, -t, t))

where y and x are shifted into the scale of the sum, which loses nothing, and the x that is added is the same quantised
one that A multiplies.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fanfold.algorithms import ALISTA, LISTACP
from fanfold.algorithms.base import Algorithm, Theta
from fanfold.estimators.fixed_point.arithmetic import Arithmetic, Scaled
from fanfold.estimators.fixed_point.forms import FORMS, FormPort, IntegerForm, integer_form
from fanfold.observation import Observation
from fanfold.unfolding.unfold import Unfolded

V = TypeVar("V")


class SoftStep(NamedTuple):
    """A layer `x ← soft(x + step W (y - A x), threshold)`.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.soft_steps import SoftStep
        >>> SoftStep(torch.ones(4, 2), torch.tensor(0.1)).step is None
        True
    """

    W: Tensor  # (n, m)
    threshold: Tensor  # a number, or (n,)
    step: Tensor | None = None  # likewise; None where W has it


@singledispatch
def form_of_algorithm(algorithm: Algorithm, network: Unfolded) -> IntegerForm:
    """The form of an unfolded algorithm's network; an algorithm is registered beside its form.

    Raises:
        ValueError: If it has none; the error names those that have.
    """
    raise ValueError(
        f"unfolded {type(algorithm).__name__} has no integer form yet; {', '.join(sorted(FORMS))} have. Leave out "
        "quantise, or take one of these."
    )


@integer_form.register
def _(network: Unfolded) -> IntegerForm:
    if network.operator.dtype.is_complex:
        raise ValueError("the network is complex; unfolded networks have an integer form for real operators so far.")
    return form_of_algorithm(network.algorithm, network)


@form_of_algorithm.register
def _(algorithm: LISTACP, network: Unfolded) -> IntegerForm:
    return SoftSteps(network, lambda theta: SoftStep(theta.W, theta.threshold))


@form_of_algorithm.register
def _(algorithm: ALISTA, network: Unfolded) -> IntegerForm:
    if algorithm.p > 0:
        raise ValueError(f"ALISTA selects supports (p = {algorithm.p:g}), which integers do not; take p = 0.")
    return SoftSteps(network, lambda theta: SoftStep(theta.W, theta.threshold, theta.step))


FORMS |= {"unfolded LISTACP", "unfolded ALISTA with p = 0"}


class SoftSteps:
    """The form of a network whose layers are soft thresholdings.

    Args:
        network: The network.
        step_of: The layer of its quantities.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> integer_form(ff.unfold(ff.algorithms.LISTACP(), problem, 3)).inputs[0].shape
        (20,)
    """

    def __init__(self, network: Unfolded, step_of: Callable[[Theta], SoftStep]):
        self.network, self.step_of = network, step_of
        self.inputs = (FormPort("y", (network.operator.m,)),)
        self.outputs = (FormPort("x_hat", (network.operator.n,)),)

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The measurements, once their operator is known to be the network's."""
        return {"y": self.network.admitted(obs).y}

    def written(self, arithmetic: Arithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        A = self.network.operator
        template = self.network.admitted(Observation.unchecked(torch.zeros(A.m, dtype=A.dtype, device=A.device), A))
        matrix, y, x = arithmetic.matrix(A.matrix()), arithmetic.entered("y"), None
        layers = [self.step_of(theta) for theta in self.network.thetas(template)]
        for k, layer in enumerate(layers, 1):
            v = arithmetic.narrowed(y if x is None else arithmetic.minus(y, arithmetic.product(x, matrix)))
            r = self._stepped(arithmetic, layer, v)
            if x is not None:
                r = arithmetic.plus(r, x)
            shrunk = arithmetic.soft(r, layer.threshold)
            x = arithmetic.output(shrunk, "x_hat") if k == len(layers) else arithmetic.narrowed(shrunk)
        assert x is not None
        return {"x_hat": x}

    def _stepped(self, arithmetic: Arithmetic[V], layer: SoftStep, v: Scaled[V]) -> Scaled[V]:
        """`step W v`."""
        product = arithmetic.product(v, arithmetic.matrix(layer.W))
        if layer.step is None:
            return product
        return arithmetic.times(arithmetic.within(product), arithmetic.number(layer.step))
