"""Unfolded OAMP in whole numbers, for complex operators: Kronecker products by their factors, others as one matrix.

The layers are those of `oamp`, in pairs of real numbers. A value has one axis for each factor, with real and imaginary
parts before the last of them, `(n_1, …, 2, n_K)`, so that a complex factor is one real matrix on the last two; between
factors axes turn, and 16 bits are kept. Forward factors are `U_kᴴ A_k = diag(d_k) V_kᴴ`, which nothing of size m · n
takes. A circular posterior mean is r times a gain of |r|² over its variance, and that is what tables are over.

Variances up to 3 dB above the prior's power have rows, so that a prior that guesses ten times less power than there is
fails. Where weights have 8 bits, half way through the residual is computed anew with 16, as factors are small.
"""

import math
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.algorithms.base import Theta
from fanfold.estimators.fixed_point.arithmetic import Arithmetic
from fanfold.estimators.fixed_point.forms import FormPort
from fanfold.estimators.fixed_point.oamp import (
    LAYERS_OF,
    MOST_SHARE,
    SHARE_BITS,
    WIDE_BITS,
    PosteriorTables,
    VarianceLaw,
    Variances,
)
from fanfold.estimators.fixed_point.oamp_layers import at_known_noise, sent_on
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import BYTE_BITS, Scaled
from fanfold.linops import Kronecker, LinearOperator
from fanfold.linops.spectrum import thin_svd
from fanfold.observation import Observation
from fanfold.priors import Prior
from fanfold.unfolding.unfold import Unfolded

V = TypeVar("V")

FINE = 16  # bits between factors, and of what is computed once
DEVIATION_BITS = 24  # of 1 / √v, which spans 40 dB
REACH, UNIT_FRACTION = 3, 11  # of r over its deviation: parts up to 2^3
LAW_DB, TABLE_DB = 0.5, 2.0  # between rows of the linear step, and of tables
SHARE_FRACTION = 19  # of β
LEAST_SHARE = 11  # β is at least 2^-11, so that a residual still outweighs what is expected
EXPECTED_BITS = 31  # of the variance that is expected, before it is divided by 1 - β
RADIAL_BITS, RADIAL_FRACTION, MIDDLE = 9, 3, 32.0  # of |r|² over its variance, less the middle of tables


@singledispatch
def factors_of(operator: LinearOperator) -> tuple[Tensor, ...]:
    """The matrices whose Kronecker product an operator is; one, its own, where it has no such structure."""
    return (operator.wide.matrix(),)


@factors_of.register
def _(operator: Kronecker) -> tuple[Tensor, ...]:
    return operator.factors


class Axes(NamedTuple):
    """Which factor each axis of a value belongs to; the parts of pairs lie before the last one.

    Example:
        >>> from fanfold.estimators.fixed_point.complex_oamp import Axes
        >>> Axes((0, 1), (4, 5)).shape
        (4, 2, 5)
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def outer(self) -> int:
        """How many pairs of rows there are."""
        return math.prod(self.sizes[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """With the axis of pairs."""
        return (*self.sizes[:-1], 2, self.sizes[-1])

    def turned(self, order: Sequence[int]) -> "tuple[Axes, tuple[int, ...]]":
        """The same axes in another order, and the places that they come from."""
        last = len(self.order) - 1
        places = [self.order.index(factor) for factor in order]
        dims = [place + (place == last) for place in places]
        return Axes(tuple(order), tuple(self.sizes[place] for place in places)), (*dims[:-1], last, dims[-1])


class ComplexOAMPLayers:
    """The form of an unfolded OAMP with a complex operator.

    Args:
        network: The network.
        prior: The prior of its algorithm.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.RFImaging(scene=(6, 6), elements=(5, 4))
        >>> integer_form(ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 3)).outputs[0].shape
        (36, 2)
    """

    for_one_noise_var = True

    def __init__(self, network: Unfolded, prior: Prior):
        self.network, self.prior = network, prior
        A = network.operator
        self.count, self.constants = 0, {}
        spectrum = torch.ones((), dtype=torch.float64)
        for k, factor in enumerate(factors_of(A)):
            wide = factor.detach().to(torch.complex128)
            U, d, right = thin_svd(wide)
            matrices = {"left": U.mH, "forward": U.mH @ wide, "back": right}
            self.constants |= {f"{name}{k}": packed(matrix) for name, matrix in matrices.items()}
            spectrum, self.count = spectrum[..., None] * d, k + 1
        natural = tuple(range(self.count))
        self.unknown, self.measured = (
            Axes(natural, tuple(self.constants[f"{name}{k}"].shape[axis] // 2 for k in natural))
            for name, axis in (("back", 0), ("left", 1))
        )
        order = (*natural[1:], 0)  # as factors leave axes, the last one first
        self.seen = Axes(order, tuple(spectrum.shape[k] for k in order))
        self.constants["d"] = spectrum.permute(order).flatten().clone()
        self.inputs = (FormPort("y", (A.m, 2), "iq"),)
        self.outputs = (FormPort("x_hat", (A.n, 2), "iq"),)

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The measurements, once their operator is known to be the network's."""
        return {"y": self.network.admitted(obs).y}

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers.

        Raises:
            ValueError: If no noise variance is known.
        """
        a = arithmetic
        A, d = self.network.operator, self.constants["d"]
        noise_var, thetas = at_known_noise(a, self.network)
        law = VarianceLaw(self.prior.power, d, A.n, noise_var, degrees=1, step_db=LAW_DB)
        denoiser = RadialTables(self.prior, Variances.of(self.prior.power, TABLE_DB))
        z = residual = self._by_factors(a, self._entered(a), "left", self.measured, self.seen, FINE)
        r, expected = None, None
        for k, theta in enumerate(thetas, 1):
            e = a.narrowed(residual, FINE)
            v = law.seen(a, _powers(a, e, self.seen), expected, thetas[k - 2] if k > 1 else None, theta)
            q = a.narrowed(a.times(e, _twice(a, law.row(a, v, law.step(theta)), self.seen)))
            step = self._by_factors(a, q, "back", self.seen, self.unknown)
            r_k = a.narrowed(step if r is None else a.plus(step, r), FINE)
            v_r = law.row(a, v, law.after(theta)[:, None], WIDE_BITS)
            at = self._radial(a, r_k, law.row(a, v, law.after(theta).rsqrt()[:, None], DEVIATION_BITS))
            x = a.times(r_k, _twice(a, denoiser.gain(a, at, v_r, theta), self.unknown))
            if k == len(thetas):
                return {"x_hat": a.output(self._in_pairs(a, x), "x_hat")}
            share = denoiser.share(a, at, v_r, theta, A.n)
            coarse = a.on_grid(share, SHARE_BITS - 1, SHARE_BITS)
            inverse = a.table(coarse, lambda b: 1 / (1 - b.clamp(0, MOST_SHARE)), FINE)
            message = a.times(a.within(a.minus(x, a.times(r_k, share))), inverse)
            change, r = sent_on(a, message, r)
            if a.weight_bits <= BYTE_BITS and k == max(1, len(thetas) // 2):
                residual = a.minus(z, self._forward(a, a.narrowed(r, FINE), FINE))
            else:
                residual = a.minus(residual, self._forward(a, change))
            expected = a.times(a.within(a.times(v_r, share), EXPECTED_BITS), inverse)
        raise AssertionError("there is a layer")

    def _entered(self, a: ShapedArithmetic[V]) -> Scaled[V]:
        """What comes in, its parts before the last axis."""
        last = self.count
        return a.moved(a.entered("y"), (*self.measured.sizes, 2), (*range(last - 1), last, last - 1))

    def _in_pairs(self, a: ShapedArithmetic[V], x: Scaled[V]) -> Scaled[V]:
        """What goes out, its parts behind all axes."""
        last = self.count
        return a.moved(x, self.unknown.shape, (*range(last - 1), last, last - 1))

    def _forward(self, a: ShapedArithmetic[V], x: Scaled[V], bits: int | None = None) -> Scaled[V]:
        return self._by_factors(a, x, "forward", self.unknown, self.seen, bits)

    def _by_factors(
        self, a: ShapedArithmetic[V], x: Scaled[V], name: str, axes: Axes, wanted: Axes, bits: int | None = None
    ) -> Scaled[V]:
        """The product with one matrix for each axis, the last axis first; then that axis turns to the front."""
        for k in range(self.count):
            factor = axes.order[-1]
            weights = self.constants[f"{name}{factor}"]
            x = a.product(x, a.matrix(weights, bits), axes.outer)
            axes = Axes(axes.order, (*axes.sizes[:-1], wanted.sizes[wanted.order.index(factor)]))
            if k < self.count - 1:
                x = a.narrowed(x, FINE)
                x, axes = _turned(a, x, axes, (factor, *axes.order[:-1]))
        return _turned(a, x, axes, wanted.order)[0]

    def _radial(self, a: ShapedArithmetic[V], r: Scaled[V], deviation: Scaled[V]) -> Scaled[V]:
        """`|r|²` over its variance, as tables take it."""
        u = a.on_grid(a.times(r, deviation), UNIT_FRACTION, 1 + REACH + UNIT_FRACTION)
        squares = _powers(a, u, self.unknown)
        middle = a.number_at(torch.tensor([MIDDLE]), int(squares.fraction[0]))
        return a.on_grid(a.minus(squares, middle), RADIAL_FRACTION, RADIAL_BITS)


LAYERS_OF[True] = ComplexOAMPLayers


class RadialTables(PosteriorTables):
    """The posterior mean over r and its variance as tables over `|r|²` over its variance, less the middle of a table.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point.complex_oamp import RadialTables
        >>> from fanfold.estimators.fixed_point.oamp import Variances
        >>> RadialTables(ff.priors.BernoulliGaussian(0.1), Variances.of(0.1)).prior.p
        0.1
    """

    def share(self, arithmetic: Arithmetic[V], u: Scaled[V], v_r: Scaled[V], theta: Theta, n: int) -> Scaled[V]:
        """The divergence of the posterior mean, with more digits than that over real numbers."""
        edges, bits = self.variances.edges(v_r), 2 + SHARE_FRACTION
        each = arithmetic.bank(u, v_r, edges, lambda at: self._relative(at, theta), bits)
        ones = arithmetic.matrix(torch.ones(1, n, dtype=torch.float64), bits=2)
        total = arithmetic.within(arithmetic.product(each, ones))
        mean = arithmetic.times(total, arithmetic.number(torch.tensor(1 / n)))
        least, most = (torch.tensor([math.ldexp(1.0, -bits)]) for bits in (LEAST_SHARE, 0))
        return arithmetic.clamped(arithmetic.shifted(mean, np.array([SHARE_FRACTION])), least, most)

    def _posterior(self, at: Tensor, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        v = self.variances.centres[:, None]
        least = 0.25 * 2.0**-RADIAL_FRACTION  # for the limit of a ratio at 0
        r = ((at + MIDDLE).clamp_min(least) * v).sqrt()
        x, var = self.prior.posterior(r.to(torch.complex128), v, Theta(p=theta.p.double(), var=theta.var.double()))
        return r, x.real, var / v


def packed(matrix: Tensor) -> Tensor:
    """A complex matrix `(m, n)` as a real one `(2 m, 2 n)` of real parts followed by imaginary parts."""
    top, bottom = torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)
    return torch.cat([top, bottom])


def _turned(a: ShapedArithmetic[V], x: Scaled[V], axes: Axes, order: Sequence[int]) -> tuple[Scaled[V], Axes]:
    """A value with its axes in this order."""
    if tuple(order) == axes.order:
        return x, axes
    turned, places = axes.turned(order)
    return a.moved(x, axes.shape, places), turned


def _powers(a: ShapedArithmetic[V], x: Scaled[V], axes: Axes) -> Scaled[V]:
    """The squares of absolute values."""
    return a.summed(a.times(x, x), axes.outer, 2, axes.sizes[-1])


def _twice(a: ShapedArithmetic[V], numbers: Scaled[V], axes: Axes) -> Scaled[V]:
    """A number for each pair, for both of its parts."""
    return a.joined(numbers, numbers, axes.outer, (axes.sizes[-1], axes.sizes[-1]))
