"""From a trained network to an integer program, after training: all scales are powers of two, chosen on observations.

A layer of soft thresholding, `x ← soft(x + step W (y - A x), t)` as in LISTA-CP (Chen et al., 2018, eq. 12) and ALISTA
(Liu et al., 2019), is in integers

    v = clamp(rescale(y - A x)),   r = x + step W v,   x = clamp(rescale(r - clamp(r, -t, t)))

where y and x are shifted into the scale of the accumulator, which loses nothing, and the x that is added is the same
quantised one that A multiplies. Rows of matrices have scales of their own.
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.algorithms import ALISTA, LISTACP
from fanfold.algorithms.base import Algorithm, Theta
from fanfold.core.settings import checks_arguments
from fanfold.deploy.integer.draft import Draft
from fanfold.deploy.integer.intervals import rescaled
from fanfold.deploy.integer.operations import BITS
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.deploy.integer.ranges import PAIR_LIMIT, neighbours
from fanfold.observation import Observation
from fanfold.unfolding import Unfolded

Widths = Literal["w8a8", "w8a12", "w16a16"]
BITS_OF = {"w8a8": (8, 8), "w8a12": (8, 12), "w16a16": (16, 16)}  # of weights, and of activations
STEP_BITS = 16  # of a step that multiplies a sum
MOST_BITS = 46  # of a product of both, its sign apart, so that x may be added
PORT_BITS = 16  # of y and x_hat, which no matrix multiplies as they are
HEADROOM = 1.25  # over what is seen
FINER = 3  # how many scales are tried that clip more and more


class SoftStep(NamedTuple):
    """A layer `x ← soft(x + step W (y - A x), threshold)`.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.deploy.integer.calibrate import soft_layers
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> soft_layers(net.algorithm, net.thetas(ff.Observation(problem.A.matrix()[:, 0], problem.A)))[0].W.shape
        (20, 10)
    """

    W: np.ndarray  # (n, m)
    threshold: np.ndarray  # (1,) or (n,)
    step: np.ndarray | None = None  # (1,) or (n,); None where W has it


@singledispatch
def soft_layers(algorithm: Algorithm, thetas: Sequence[Theta]) -> list[SoftStep]:
    """The layers of an algorithm's network, from the quantities of each.

    Raises:
        ValueError: If its layers are none of soft thresholding.
    """
    raise ValueError(
        f"{type(algorithm).__name__} has no integer form yet; take LISTACP, or ALISTA without selected supports."
    )


@soft_layers.register
def _(algorithm: LISTACP, thetas: Sequence[Theta]) -> list[SoftStep]:
    return [SoftStep(_array(theta.W), _array(theta.threshold).reshape(-1)) for theta in thetas]


@soft_layers.register
def _(algorithm: ALISTA, thetas: Sequence[Theta]) -> list[SoftStep]:
    if algorithm.p > 0:
        raise ValueError(f"ALISTA selects supports (p = {algorithm.p:g}), which integers do not; take p = 0.")
    return [SoftStep(_array(t.W), *(_array(value).reshape(-1) for value in (t.threshold, t.step))) for t in thetas]


@checks_arguments
@torch.no_grad()
def to_integers(
    net: Unfolded,
    obs: Observation,
    widths: Widths = "w8a8",
    *,
    pairs_fit: bool = False,
    name: str = "estimator",
) -> IntegerProgram:
    """An integer program of a trained network, its scales chosen on observations.

    Each scale is the power of two with the least squared error on what the integer layers before it give and on one
    more entry, larger by a quarter than all of these; beyond it, entries saturate. The ports `y` and `x_hat` have 16
    bits, whatever the activations have.

    Args:
        net: An unfolded LISTA-CP or ALISTA for a real matrix.
        obs: Observations to choose scales on, a few hundred as they will come.
        widths: The bits of weights and activations.
        pairs_fit: Whether weights of 8 bits lose one more, in rows that need it, so that 8-bit kernels which add two
            products in 16 bits are proved not to saturate: ONNX files then multiply bytes, and faster. The C needs it
            not.
        name: The name of the program.

    Raises:
        ValueError: If the network is another or complex, or observations do not belong to it.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> integer = ff.deploy.integer.IntegerEstimator(ff.deploy.integer.to_integers(net, obs, "w16a16"))
        >>> bool((integer(obs).x - net(obs).x).abs().max() < 1e-2)
        True
    """
    if obs.y.is_complex():
        raise ValueError("the network is complex; integer programs are made of real ones so far.")
    obs = net.admitted(obs)
    layers = soft_layers(net.algorithm, net.thetas(obs))
    matrix, y = _array(net.operator.matrix()), _array(obs.y.reshape(-1, obs.y.shape[-1]))
    return _Calibration(matrix, y, *BITS_OF[widths], pairs_fit, name).program(layers)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().astype(np.float64)


class Scaled(NamedTuple):
    """A value of a program, the integers that it has on the observations, and the fraction of each entry.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer.calibrate import Scaled
        >>> Scaled("x", np.array([[3, 8]]), np.array([2])).numbers
        array([[0.75, 2.  ]])
    """

    value: str
    integers: np.ndarray  # (count, size)
    fraction: np.ndarray  # (1,) or (size,)

    @property
    def numbers(self) -> np.ndarray:
        """The numbers that the integers stand for."""
        return np.ldexp(self.integers.astype(np.float64), -self.fraction)


class _Calibration:
    """Writes the layers of a program while it computes them on the observations."""

    def __init__(self, matrix: np.ndarray, y: np.ndarray, weight_bits: int, bits: int, pairs_fit: bool, name: str):
        self.draft, self.weight_bits, self.bits, self.pairs_fit = Draft(name), weight_bits, bits, pairs_fit
        m, self.n = matrix.shape
        self.A = quantised_rows(matrix, weight_bits, pairs_fit)
        fraction = finest(HEADROOM * np.abs(y).max(), PORT_BITS)
        port = self.draft.input("y", (m,), "int16", fraction)
        self.y = Scaled(port, self.draft.inputs[0].integers(y).astype(np.int64), np.array([fraction]))

    def program(self, layers: Sequence[SoftStep]) -> IntegerProgram:
        x = None
        for k, layer in enumerate(layers, 1):
            r = self._product(layer, self._narrowed(self._residual(x)))
            if x is not None:
                r = self._sum(r, x)
            x = self._shrunk(r, layer.threshold, last=k == len(layers))
        assert x is not None
        self.draft.output(x.value, (self.n,), int(x.fraction[0]))
        return self.draft.finish()

    def _residual(self, x: Scaled | None) -> Scaled:
        if x is None:
            return self.y
        product = self._matmul(x, *self.A)
        y = self._shifted(self.y, product.fraction)
        return Scaled(self.draft.sub(y.value, product.value), y.integers - product.integers, product.fraction)

    def _product(self, layer: SoftStep, v: Scaled) -> Scaled:
        product = self._matmul(v, *quantised_rows(layer.W, self.weight_bits, self.pairs_fit))
        if layer.step is None:
            return product
        product = self._within(product, MOST_BITS - STEP_BITS)
        fraction = np.array([finest(np.abs(layer.step).max(), STEP_BITS)])
        step = np.rint(np.ldexp(layer.step, fraction)).astype(np.int64)
        value = self.draft.mul(product.value, self.draft.const(step))
        return Scaled(value, product.integers * step, product.fraction + fraction)

    def _matmul(self, x: Scaled, weights: np.ndarray, fraction: np.ndarray) -> Scaled:
        integers = (x.integers.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)
        return Scaled(self.draft.matmul(x.value, weights), integers, fraction + x.fraction)

    def _within(self, x: Scaled, bits: int) -> Scaled:
        """The numbers without the last digits that are beyond so many bits."""
        excess = self.draft.ranges[x.value].magnitude.bit_length() - bits
        return self._shifted(x, x.fraction - excess) if excess > 0 else x

    def _shifted(self, x: Scaled, fraction: np.ndarray) -> Scaled:
        """The same numbers with another fraction."""
        shift = x.fraction - fraction
        if (shift == 0).all():
            return x
        return Scaled(self.draft.rescale(x.value, shift), rescaled(x.integers, shift), fraction)

    def _sum(self, r: Scaled, x: Scaled) -> Scaled:
        x = self._shifted(x, r.fraction)
        return Scaled(self.draft.add(r.value, x.value), r.integers + x.integers, r.fraction)

    def _narrowed(self, x: Scaled, bits: int | None = None, name: str | None = None) -> Scaled:
        """The numbers in few bits, with the one fraction that loses least on the observations."""
        bits = bits or self.bits
        least, most = (end * ((1 << (bits - 1)) - 1) for end in (-1, 1))
        seen, largest = x.numbers.ravel(), HEADROOM * np.abs(x.numbers).max()
        numbers, first = np.append(seen, largest), finest(largest, bits)  # what comes later may be larger
        candidates = [np.array([first + k]) for k in range(FINER)]
        losses = []
        for fraction in candidates:
            rounded = np.clip(np.floor(np.ldexp(numbers, fraction) + 0.5), least, most)
            losses.append(np.square(np.ldexp(rounded, -fraction) - numbers).sum())
        scaled = self._shifted(x, candidates[int(np.argmin(losses))])
        value = self.draft.clamp(scaled.value, least, most, name=name)
        return Scaled(value, np.clip(scaled.integers, least, most), scaled.fraction)

    def _shrunk(self, r: Scaled, threshold: np.ndarray, last: bool) -> Scaled:
        level = np.rint(np.ldexp(threshold, r.fraction)).astype(np.int64)
        kept = self.draft.clamp(r.value, -level, level)
        shrunk = Scaled(self.draft.sub(r.value, kept), r.integers - np.clip(r.integers, -level, level), r.fraction)
        return self._narrowed(shrunk, PORT_BITS, "x_hat") if last else self._narrowed(shrunk)


def finest(largest: float, bits: int) -> int:
    """The largest fraction with which a number of this size fits into so many bits."""
    if largest == 0:
        return bits - 1
    return int(np.floor(np.log2(((1 << (bits - 1)) - 1) / largest)))


def quantised_rows(matrix: np.ndarray, bits: int, pairs_fit: bool) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of integers and the fraction of each row, `(rows,)`: the largest that clips nothing.

    Where pairs are to fit, `255 (|w1| + |w2|) <= 32767` holds for neighbours in rows of 8 bits.
    """
    fraction = np.array([finest(largest, bits) for largest in np.abs(matrix).max(1)])
    integers = np.rint(np.ldexp(matrix, fraction[:, None]))
    if pairs_fit and bits <= BITS["int8"]:
        fraction = fraction - np.array([neighbours(row[None]) > PAIR_LIMIT for row in integers])
        integers = np.rint(np.ldexp(matrix, fraction[:, None]))
    return integers.astype(np.int8 if bits <= BITS["int8"] else np.int16), fraction
