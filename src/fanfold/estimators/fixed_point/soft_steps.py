"""ISTA, LISTA-CP and ALISTA in whole numbers. Chen et al. (2018), eq. 12; Liu, Chen, Wang & Yin (2019), section 3.

A layer `x ← soft(x + step W (y - A x), t)` is, with the residual e, y at first,

    v = narrow(e),   r = x + step W v,   d = narrow(soft(r, t) - x),   x ← x + d,   e ← e - A d

which loses nothing but in the two narrowings: x is the sum of what A multiplied, and e is y - A x to the last digit.
What A multiplies is the change of x, whose scale becomes finer from layer to layer, and never coarser, as layers
converge. Where weights have 8 bits, half way through what rounding took from A multiplies x once, since an A that is
rounded to 8 bits is as bad as noise some 40 dB below the measurements. Steps of ALISTA are larger than one, and so is
then the rounding of e in 8 bits: in the last quarter of its layers e is narrowed in two parts, two products with W.
With bytes all sums stay within 2^24, so that runtimes carry them in single precision: `v = narrow(step e)` where one
step is for all unknowns, e saturates, and r has no digits far behind those of x. Measurements are taken times powers of
two by which all rows of A have one scale.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.algorithms import ALISTA, ISTA, LISTACP
from fanfold.algorithms.base import Algorithm, Theta
from fanfold.estimators.fixed_point.arithmetic import Arithmetic
from fanfold.estimators.fixed_point.forms import FORMS, FormPort, IntegerForm, as_network, integer_form
from fanfold.estimators.fixed_point.rounding import unit_of
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import BYTE_BITS, Scaled
from fanfold.observation import Observation
from fanfold.unfolding.boundary import HasOperator
from fanfold.unfolding.unfold import Iterated, Unfolded, unfold

V = TypeVar("V")
L = TypeVar("L", bound="Layer")
SINGLE_EXACT = 1 << 24  # whole numbers up to here are exact in single precision
SPARED = 1 << 20  # of these, for what is taken from a residual besides
WIDE_BITS, STEP_BITS = 14, 11  # of a residual and of the step that multiplies it, so that the product stays within it
MOST_FINER = 3  # bits of a row of A: measurements taken finer than that might be far larger than any is
LEAST_BITS = 14  # of a product of bytes that is added to x


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


@as_network.register
def _(classical: Iterated, problem: HasOperator) -> Unfolded:
    return unfold(classical.algorithm, problem, classical.iterations)


@integer_form.register
def _(network: Unfolded) -> IntegerForm:
    return form_of_algorithm(network.algorithm, network)


@form_of_algorithm.register
def _(algorithm: LISTACP, network: Unfolded) -> IntegerForm:
    return SoftSteps(network, lambda theta: SoftStep(theta.W, theta.threshold))


@form_of_algorithm.register
def _(algorithm: ALISTA, network: Unfolded) -> IntegerForm:
    if algorithm.p > 0:
        raise ValueError(f"ALISTA selects supports (p = {algorithm.p:g}), which integers do not; take p = 0.")
    return SoftSteps(network, lambda theta: SoftStep(theta.W, theta.threshold, theta.step))


@form_of_algorithm.register
def _(algorithm: ISTA, network: Unfolded) -> IntegerForm:
    W = network.operator.matrix().mH
    return SoftSteps(network, lambda theta: SoftStep(W, theta.threshold, theta.step))


FORMS |= {"unfolded ISTA", "unfolded LISTACP", "unfolded ALISTA with p = 0"}


class Layer(Protocol):
    """What every layer has: a matrix, and a step where the matrix has none."""

    @property
    def W(self) -> Tensor: ...  # noqa: N802 as papers call it

    @property
    def step(self) -> Tensor | None: ...


class ResidualSteps(ABC, Generic[L]):
    """The form of a network whose layers are `x ← η(x + step W (y - A x))`, for some thresholding η.

    Args:
        network: The network.

    Raises:
        ValueError: If the operator is complex.

    Example:
        >>> from fanfold.estimators.fixed_point import SoftSteps
        >>> from fanfold.estimators.fixed_point.soft_steps import ResidualSteps
        >>> issubclass(SoftSteps, ResidualSteps)
        True
    """

    for_one_noise_var = False

    def __init__(self, network: Unfolded):
        if network.operator.dtype.is_complex:
            raise ValueError("the network is complex; thresholding has an integer form for real operators so far.")
        self.network = network
        self.constants: dict[str, Tensor] = {}
        self.inputs = (FormPort("y", (network.operator.m,)),)
        self.outputs = (FormPort("x_hat", (network.operator.n,)),)

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The measurements, once their operator is known to be the network's."""
        return {"y": self.network.admitted(obs).y}

    def spare(self, bits: int) -> int:
        """How many of the bits of activations are left for larger changes of x than those seen."""
        return 0

    def evened(
        self, arithmetic: ShapedArithmetic[V], weights: Tensor, layers: list[L]
    ) -> tuple[np.ndarray, Tensor, list[L]]:
        """How many bits finer each measurement is taken, `(m,)`, and weights and layers for such measurements."""
        return np.zeros(1, np.int64), weights, layers

    @abstractmethod
    def layers(self, thetas: Sequence[Theta]) -> list[L]:
        """The layers of these quantities."""

    @abstractmethod
    def shrunk(
        self, arithmetic: ShapedArithmetic[V], layer: L, residual: Scaled[V], x: Scaled[V] | None, *, fine: bool
    ) -> Scaled[V]:
        """`η(x + step W (y - A x))`."""

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        A = self.network.operator
        template = self.network.admitted(Observation.unchecked(torch.zeros(A.m, dtype=A.dtype, device=A.device), A))
        weights, residual, x = A.matrix(), arithmetic.entered("y"), None
        beyond, weights, layers = self.evened(arithmetic, weights, self.layers(self.network.thetas(template)))
        if beyond.any():
            residual = arithmetic.raised(residual, beyond)
        matrix = arithmetic.matrix(weights)
        reach = float(np.ldexp(float(residual.largest), -int(residual.fraction[0])))
        rest, spare = arithmetic.rest(weights, matrix), self.spare(arithmetic.bits)
        exact, finest = SINGLE_EXACT - SPARED, None
        # where no step is before v and rows have one scale, with half a digit, so that none is a tie
        if arithmetic.bits <= BYTE_BITS and np.ptp(matrix.fraction) == 0 and all(each.step is None for each in layers):
            exact = SINGLE_EXACT // 2
            finest = math.floor(math.log2(exact / 2 / reach)) - int(matrix.fraction.max())
        for k, layer in enumerate(layers[:-1], 1):
            shrunk = self.shrunk(arithmetic, layer, residual, x, fine=4 * k > 3 * len(layers))
            if x is None:
                x = change = arithmetic.with_room(shrunk, spare, None, finest)
            else:
                change = arithmetic.with_room(arithmetic.minus(shrunk, x), spare, x.fraction, finest)
                x = arithmetic.plus(change, x)
            residual = less(arithmetic, residual, arithmetic.product(change, matrix), reach, exact)
            if rest is not None and k == len(layers) // 2:
                missed = arithmetic.product(arithmetic.narrowed(x), rest)
                residual = less(arithmetic, residual, arithmetic.shifted(missed, residual.fraction), reach, exact)
        return {"x_hat": arithmetic.output(self.shrunk(arithmetic, layers[-1], residual, x, fine=True), "x_hat")}

    def driving(self, arithmetic: Arithmetic[V], layer: L, residual: Scaled[V]) -> Scaled[V]:
        """What W is to multiply: `step e` in 8 bits, where one step is for all unknowns, and e elsewhere.

        The step multiplies before the product then, which has fewer entries and more digits, and a sum with x of no
        more of them.
        """
        if not in_front(arithmetic, layer):
            return residual
        assert layer.step is not None
        return arithmetic.times(arithmetic.narrowed(residual, WIDE_BITS), arithmetic.number(layer.step, STEP_BITS))

    def stepped(
        self, arithmetic: Arithmetic[V], layer: L, driving: Scaled[V], v: Scaled[V], *, fine: bool
    ) -> Scaled[V]:
        """`step W v`; in 8 bits and where it is to be fine, v has a second part, what rounding took from it."""
        matrix = arithmetic.matrix(layer.W, one_scale=True)
        product = arithmetic.product(v, matrix)
        if layer.step is None:
            return product
        if fine and arithmetic.bits <= BYTE_BITS:
            second = arithmetic.product(arithmetic.narrowed(arithmetic.minus(driving, v)), matrix)
            product = arithmetic.plus(product, arithmetic.shifted(second, product.fraction))
        if in_front(arithmetic, layer):
            return product
        return arithmetic.times(arithmetic.within(product), arithmetic.number(layer.step))


class SoftSteps(ResidualSteps[SoftStep]):
    """The form of a network whose layers are soft thresholdings.

    Args:
        network: The network.
        step_of: The layer of its quantities.

    Raises:
        ValueError: If the operator is complex.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> integer_form(ff.unfold(ff.algorithms.LISTACP(), problem, 3)).inputs[0].shape
        (20,)
    """

    def __init__(self, network: Unfolded, step_of: Callable[[Theta], SoftStep]):
        super().__init__(network)
        self.step_of = step_of

    def layers(self, thetas: Sequence[Theta]) -> list[SoftStep]:
        """The layers of these quantities."""
        return [self.step_of(theta) for theta in thetas]

    def evened(
        self, arithmetic: ShapedArithmetic[V], weights: Tensor, layers: list[SoftStep]
    ) -> tuple[np.ndarray, Tensor, list[SoftStep]]:
        """All rows of A on the scale that the coarsest has in its bytes; as they are where rows are far apart."""
        fraction = arithmetic.matrix(weights).fraction
        beyond = fraction - fraction.min()
        if beyond.max() > MOST_FINER:
            beyond = np.zeros_like(beyond)
        scale = unit_of(-beyond).to(weights)
        return beyond, weights * scale[:, None], [layer._replace(W=layer.W / scale) for layer in layers]

    def shrunk(
        self, arithmetic: ShapedArithmetic[V], layer: SoftStep, residual: Scaled[V], x: Scaled[V] | None, *, fine: bool
    ) -> Scaled[V]:
        """`soft(x + step W (y - A x), threshold)`."""
        driving = self.driving(arithmetic, layer, residual)
        r = self.stepped(arithmetic, layer, driving, arithmetic.narrowed(driving), fine=fine)
        return arithmetic.soft(r if x is None else onto(arithmetic, r, x), layer.threshold)


def in_front(arithmetic: Arithmetic[Any], layer: Layer) -> bool:
    """Whether the step multiplies the residual, and not its product with W."""
    return layer.step is not None and layer.step.numel() == 1 and arithmetic.bits <= BYTE_BITS


def onto(arithmetic: Arithmetic[V], r: Scaled[V], x: Scaled[V]) -> Scaled[V]:
    """`r + x`, without the last digits of r where the sum might leave 2^24 and r has digits to spare."""
    fraction = np.maximum(r.fraction, x.fraction)
    most = sum(part.largest << int((fraction - part.fraction).max()) for part in (r, x, x))  # x is taken away again
    excess, spare = most.bit_length() - SINGLE_EXACT.bit_length() + 1, r.largest.bit_length() - LEAST_BITS
    if arithmetic.bits <= BYTE_BITS and 0 < excess <= spare:
        r = arithmetic.shifted(r, r.fraction - excess)
    return arithmetic.plus(r, x)


def less(arithmetic: Arithmetic[V], residual: Scaled[V], product: Scaled[V], reach: float, exact: int) -> Scaled[V]:
    """`residual - product`, where the residual saturates if the difference may leave `exact` and the product does not.

    Runtimes then carry the difference in single precision. It never saturates below `reach`, the largest number that a
    measurement can be: with a product that leaves less room than that, the difference leaves 2^24.
    """
    fraction = np.maximum(residual.fraction, product.fraction)
    room = max(0, exact - product.largest) >> int((fraction - residual.fraction).max())
    most = np.ldexp(1.0, room.bit_length() - 1 - int(residual.fraction.max()))
    if room < residual.largest and most >= reach:
        ends = torch.tensor([most], dtype=torch.float64)
        residual = arithmetic.clamped(residual, -ends, ends)
    return arithmetic.minus(residual, product)
