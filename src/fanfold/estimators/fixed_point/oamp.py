"""Unfolded OAMP in whole numbers, for real operators as matrices. Ma & Ping (2017), eqs. 29-34; see `algorithms.oamp`.

With `A = U diag(d) Vᵀ` a layer is

    v = Σ g(v') e² + b(v'),   q = w(v) e,   r ← r + V q,   u = r / √v_r,   x = r gain(u, v_r),
    β = mean(h(u, v_r)),      d_r = narrow((x - β r) / (1 - β) - r),   r ← r + d_r,   e ← e - diag(d) Vᵀ d_r

where v' is the variance that the layer before expects, and v_r that of r. All that depends on a variance is a row of a
bank of tables, one for every two decibels, which it picks: the weights g of squared residuals, the linear step w, the
posterior mean over r and its variance over v_r. What matrices multiply is the change of r, as in `soft_steps`.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.estimators.fixed_point.arithmetic import Arithmetic
from fanfold.estimators.fixed_point.forms import FORMS, FormPort, IntegerForm
from fanfold.estimators.fixed_point.oamp_layers import at_known_noise, sent_on
from fanfold.estimators.fixed_point.soft_steps import form_of_algorithm
from fanfold.estimators.fixed_point.values import RoundedMatrix, Scaled
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, Prior
from fanfold.unfolding.unfold import Unfolded

V = TypeVar("V")

LEAST_DB, SPAN_DB, STEP_DB = -75.0, 80.0, 2.0  # of the variances that have rows, relative to the power of x
WIDE_BITS = 28  # of variances, which span many decibels
TABLE_BITS, REACH_BITS = 9, 3  # of r over its standard deviation, as tables take it, up to 2^3
SHARE_BITS, MOST_SHARE = 12, 0.97  # of β


class Variances(NamedTuple):
    """The variances that have rows, and what lies between them.

    Example:
        >>> from fanfold.estimators.fixed_point.oamp import Variances
        >>> Variances.of(0.1).centres.shape
        torch.Size([40])
    """

    centres: Tensor  # (rows,)
    borders: np.ndarray  # (rows - 1,)

    @classmethod
    def of(cls, power: float, step_db: float = STEP_DB) -> "Variances":
        """For unknowns of this power, one for every so many decibels."""
        at = LEAST_DB + step_db * np.arange(round(SPAN_DB / step_db))
        centres, borders = (power * 10 ** (a / 10) for a in (at, at[:-1] + step_db / 2))
        return cls(torch.from_numpy(centres), borders)

    def edges(self, value: Scaled[V]) -> np.ndarray:
        """The borders as whole numbers on the grid of a value, rising."""
        whole = np.rint(np.ldexp(self.borders, int(value.fraction[0]))).astype(np.int64)
        steps = np.arange(whole.size)
        return np.maximum.accumulate(whole - steps) + steps


@singledispatch
def bounded_gain(prior: Prior) -> bool:
    """Whether the posterior mean over r is known at 0 and no longer changes far out, so that a table holds it."""
    return False


@bounded_gain.register
def _(prior: BernoulliGaussian) -> bool:
    return True


@form_of_algorithm.register
def _(algorithm: OAMP, network: Unfolded) -> IntegerForm:
    wrong = {
        "linear": (algorithm.linear, "lmmse"),
        "noise": (algorithm.noise, "given"),
        "settings": (algorithm.settings, "given"),
        "damping": (algorithm.damping, 1.0),
        "adapt": (algorithm.adapt, False),
    }
    for name, (value, wanted) in wrong.items():
        if value != wanted:
            raise ValueError(f"OAMP with {name} = {value} has no integer form yet; take {wanted}.")
    if "damping" in network.learn:
        raise ValueError("OAMP that learns its damping has no integer form yet; leave it out of learn.")
    if not bounded_gain(algorithm.prior):
        raise ValueError(f"OAMP under {algorithm.prior} has no integer form yet; take a BernoulliGaussian prior.")
    if network.operator.seen().mask is not None:
        raise ValueError("the operator has columns of zeros; OAMP in integers needs to see every unknown.")
    return LAYERS_OF.get(network.operator.dtype.is_complex, OAMPLayers)(network, algorithm.prior)


FORMS |= {"unfolded OAMP with a BernoulliGaussian prior"}
LAYERS_OF: dict[bool, Callable[[Unfolded, Prior], IntegerForm]] = {}  # by whether it is complex, where not OAMPLayers


class OAMPLayers:
    """The form of an unfolded OAMP.

    Args:
        network: The network.
        prior: The prior of its algorithm.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> integer_form(ff.unfold(ff.algorithms.OAMP(), problem, 3)).outputs[0].shape
        (40,)
    """

    for_one_noise_var = True

    def __init__(self, network: Unfolded, prior: Prior):
        self.network, self.prior = network, prior
        A = network.operator
        U, d, right = A.wide.svd()
        self.constants = {"U": U.matrix().double(), "d": d.double(), "V": right.matrix().double()}
        self.inputs = (FormPort("y", (A.m,)),)
        self.outputs = (FormPort("x_hat", (A.n,)),)

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The measurements, once their operator is known to be the network's."""
        return {"y": self.network.admitted(obs).y}

    def written(self, arithmetic: Arithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers.

        Raises:
            ValueError: If no noise variance is known.
        """
        U, d, right = (self.constants[name] for name in ("U", "d", "V"))
        A = self.network.operator
        noise_var, thetas = at_known_noise(arithmetic, self.network)
        forward, back = d[:, None] * right.mT, arithmetic.matrix(right)
        down = arithmetic.matrix(forward)
        rest = arithmetic.rest(forward, down)
        residual, r, expected = self._finely(arithmetic, arithmetic.entered("y"), U.mT), None, None
        law = VarianceLaw(self.prior.power, d, A.n, noise_var)
        denoiser = PosteriorTables(self.prior, law.variances)
        for k, theta in enumerate(thetas, 1):
            e = arithmetic.narrowed(residual, 16)
            v = law.seen(arithmetic, arithmetic.times(e, e), expected, thetas[k - 2] if k > 1 else None, theta)
            q = arithmetic.narrowed(arithmetic.times(e, law.row(arithmetic, v, law.step(theta))))
            step = arithmetic.product(q, back)
            r_k = arithmetic.narrowed(step if r is None else arithmetic.plus(step, r), 16)
            deviation = law.row(arithmetic, v, law.after(theta).rsqrt()[:, None])
            u = arithmetic.on_grid(arithmetic.times(r_k, deviation), TABLE_BITS - 1 - REACH_BITS, TABLE_BITS)
            v_r = law.row(arithmetic, v, law.after(theta)[:, None], WIDE_BITS)
            x = arithmetic.times(r_k, denoiser.gain(arithmetic, u, v_r, theta))
            if k == len(thetas):
                return {"x_hat": arithmetic.output(x, "x_hat")}
            share = denoiser.share(arithmetic, u, v_r, theta, A.n)
            rest_of_x = arithmetic.within(arithmetic.minus(x, arithmetic.times(r_k, share)))
            inverse = arithmetic.table(share, lambda b: 1 / (1 - b.clamp(0, MOST_SHARE)), 16)
            message = arithmetic.times(rest_of_x, inverse)
            change, r = sent_on(arithmetic, message, r)
            residual = arithmetic.minus(residual, arithmetic.product(change, down))
            if rest is not None and k == max(1, len(thetas) // 2):
                missed = arithmetic.product(arithmetic.narrowed(r), rest)
                residual = arithmetic.minus(residual, arithmetic.shifted(missed, residual.fraction))
            odds = arithmetic.table(share, lambda b: b.clamp(0, MOST_SHARE) / (1 - b.clamp(0, MOST_SHARE)), 16)
            expected = arithmetic.times(v_r, odds)
        raise AssertionError("there is a layer")

    def _finely(self, arithmetic: Arithmetic[V], y: Scaled[V], weights: Tensor) -> Scaled[V]:
        """The product of what comes in with a matrix, as fine as the port: of few bits, in parts."""
        matrix = arithmetic.matrix(weights)
        coarse = arithmetic.narrowed(y)
        product = arithmetic.product(coarse, matrix)
        rest: RoundedMatrix | None = arithmetic.rest(weights, matrix)
        if rest is None:
            return product
        fine = arithmetic.narrowed(arithmetic.minus(y, coarse))
        product = arithmetic.plus(product, arithmetic.product(fine, matrix))
        return arithmetic.plus(product, arithmetic.product(coarse, rest))


def _sum(arithmetic: Arithmetic[V], x: Scaled[V], size: int) -> Scaled[V]:
    """The sum of all entries."""
    return arithmetic.product(x, arithmetic.matrix(torch.ones(1, size, dtype=torch.float64), bits=2))


class VarianceLaw:
    """What depends on variances and on the singular values, for every variance that has a row.

    Args:
        power: The power of the unknowns.
        d: The singular values, `(m,)`, of as many measurements of n unknowns.
        n: How many unknowns there are.
        noise_var: The noise variance.
        degrees: 2 of real numbers and 1 of complex ones, see `residual.variances`.
        step_db: How many decibels are between rows.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.oamp import VarianceLaw
        >>> VarianceLaw(0.1, torch.ones(4), 8, torch.tensor(0.01)).variances.centres.shape
        torch.Size([40])
    """

    def __init__(self, power: float, d: Tensor, n: int, noise_var: Tensor, degrees: int = 2, step_db: float = STEP_DB):
        self.variances, self.power, self.noise_var = Variances.of(power, step_db), power, noise_var
        self.d2, self.d, self.n, self.degrees = d.square(), d, n, degrees

    def row(self, arithmetic: Arithmetic[V], v: Scaled[V], rows: Tensor, bits: int = 16) -> Scaled[V]:
        """The row that a variance picks."""
        return arithmetic.picked(v, self.variances.edges(v), rows, bits)

    def seen(
        self, arithmetic: Arithmetic[V], e2: Scaled[V], expected: Scaled[V] | None, before: Theta | None, theta: Theta
    ) -> Scaled[V]:
        """The error variance that the squares of a residual show, `residual.variances` with a known noise variance."""
        scale = 1.0 if before is None else before.v_denoised
        centres = self.variances.centres if expected is not None else torch.tensor([self.power], dtype=torch.float64)
        weights, offset, least = self._fit(centres * scale, theta)
        if expected is None:
            g, b, low = arithmetic.number(weights), *(arithmetic.number(t, WIDE_BITS) for t in (offset, least))
        else:
            g = self.row(arithmetic, expected, weights)
            b, low = (self.row(arithmetic, expected, t[:, None], WIDE_BITS) for t in (offset, least))
        terms = arithmetic.narrowed(arithmetic.times(e2, g), 16)
        shown = arithmetic.within(arithmetic.plus(_sum(arithmetic, terms, self.d.shape[0]), b), 40)
        above = arithmetic.minus(shown, low)
        zero = torch.zeros(1, dtype=torch.float64)
        most = torch.tensor([np.ldexp(1.0, 44 - int(above.fraction[0]))], dtype=torch.float64)
        return arithmetic.plus(arithmetic.clamped(above, zero, most), low)

    def _fit(self, v: Tensor, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of squares, the offset and the least value, for expected variances `(rows,)`."""
        v, noise_var = v[:, None], self.noise_var
        total = self.d2 * v + noise_var
        least = total.amin(-1, keepdim=True)
        weights = (least / total).square()
        s1, s2 = ((weights * a).sum(-1, keepdim=True) for a in (self.d2, self.d2.square()))
        pull = self.degrees * (least / v).square() / theta.spread.double()
        scale = s2 + pull
        return weights * self.d2 / scale, ((pull * v - noise_var * s1) / scale)[:, 0], v[:, 0] / 10

    def step(self, theta: Theta) -> Tensor:
        """The linear step w of each variance, `(rows, m)`."""
        v, sigma2 = self.variances.centres[:, None], theta.noise_scale.double() * self.noise_var
        w = self.d * v / (self.d2 * v + sigma2)
        return w * (self.n / (self.d * w).sum(-1, keepdim=True))

    def after(self, theta: Theta) -> Tensor:
        """The variance of r after the linear step, `(rows,)`."""
        v, sigma2, w = self.variances.centres, theta.noise_scale.double() * self.noise_var, self.step(theta)
        left = (1 - self.d * w).square().sum(-1) + (self.n - self.d.shape[0])
        return theta.v_linear.double() * (v * left + sigma2 * w.square().sum(-1)) / self.n


class PosteriorTables:
    """The posterior mean and its variance as tables over r over its deviation, a row for each variance.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point.oamp import PosteriorTables, Variances
        >>> PosteriorTables(ff.priors.BernoulliGaussian(0.1), Variances.of(0.1)).prior.p
        0.1
    """

    def __init__(self, prior: Prior, variances: Variances):
        self.prior, self.variances = prior, variances

    def gain(self, arithmetic: Arithmetic[V], u: Scaled[V], v_r: Scaled[V], theta: Theta) -> Scaled[V]:
        """The posterior mean over r."""
        return arithmetic.bank(u, v_r, self.variances.edges(v_r), lambda at: self._gain(at, theta), 16)

    def share(self, arithmetic: Arithmetic[V], u: Scaled[V], v_r: Scaled[V], theta: Theta, n: int) -> Scaled[V]:
        """The divergence of the posterior mean: its mean variance over that of r."""
        each = arithmetic.bank(u, v_r, self.variances.edges(v_r), lambda at: self._relative(at, theta), 16)
        mean = arithmetic.times(_sum(arithmetic, each, n), arithmetic.number(torch.tensor(1 / n)))
        return arithmetic.on_grid(mean, SHARE_BITS - 1, SHARE_BITS)

    def _posterior(self, at: Tensor, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        near_zero = torch.tensor(0.25 * 2.0 ** (1 + REACH_BITS - TABLE_BITS), dtype=at.dtype)
        at = torch.where(at == 0, near_zero, at)  # for the limit of a ratio there
        v = self.variances.centres[:, None]
        r = at * v.sqrt()
        given = Theta(p=theta.p.double(), var=theta.var.double())
        x, var = self.prior.posterior(r, v, given)
        return r, x, var / v

    def _gain(self, at: Tensor, theta: Theta) -> Tensor:
        r, x, _ = self._posterior(at, theta)
        return x / r

    def _relative(self, at: Tensor, theta: Theta) -> Tensor:
        return self._posterior(at, theta)[2]
