"""ALISTA with adaptive thresholds in whole numbers. Li, Wu, Guo & Zhang (2021); firm shrinkage: Gao & Bruce (1997).

A layer `x ← firm(r, t)`, `r = x + step W (y - A x)`, with the threshold `t = alpha ‖y - A x‖ / √m`, is

    v = narrow(e),   r = narrow(x + step W v),   S = Σ v²,   u = r i(S),   x ← r g(u)

and the rest is as in `soft_steps`. `i(S) = 1 / t` is a row of a table that the sum of squares picks, one for every
quarter of a decibel. `g(u) = firm(u, 1) / u` is a table: 0 up to one threshold, and exactly 1 beyond where firm
shrinkage leaves r as it is. Thresholds follow the residual: where v saturates, they stay small and let noise in, and a
sample that converges late never does. So v has room for larger residuals than those on which scales are chosen, and
with more than 8 bits so has the change of x.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.algorithms import ALISTAAT
from fanfold.algorithms.base import Theta
from fanfold.estimators.fixed_point.forms import FORMS, IntegerForm
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.soft_steps import ResidualSteps, form_of_algorithm, in_front, onto
from fanfold.estimators.fixed_point.values import BYTE_BITS, Scaled
from fanfold.shrinkage import firm
from fanfold.unfolding.unfold import Unfolded

V = TypeVar("V")

ROW_DB = 0.25  # between rows of sums of squares
MOST_REACH = 5  # tables go up to 2^5 thresholds


class Bits(NamedTuple):
    """How many bits have r, the inverse threshold, r in thresholds and the gain, and how many of v and d are spared.

    Example:
        >>> from fanfold.estimators.fixed_point.firm_steps import Bits
        >>> Bits(14, 11, 11, 11, 3, 0).r
        14
    """

    r: int
    inverse: int
    u: int
    gain: int
    spare: int
    spare_of_change: int


OF_BYTES = Bits(14, 11, 11, 11, 3, 0)  # so that products of two stay within 2^24
OF_WORDS = Bits(16, 24, 13, 16, 5, 5)


def bits_of(activations: int) -> Bits:
    """How many bits there are beside activations of so many."""
    return OF_BYTES if activations <= BYTE_BITS else OF_WORDS


class FirmStep(NamedTuple):
    """A layer `x ← firm(x + step W (y - A x), alpha ‖y - A x‖ / √m, concavity)`.

    Example:
        >>> import torch
        >>> from fanfold.estimators.fixed_point.firm_steps import FirmStep
        >>> FirmStep(torch.ones(4, 2), torch.tensor(2.5), torch.tensor(0.3)).reach
        2
    """

    W: Tensor  # (n, m)
    alpha: Tensor  # a number
    concavity: Tensor  # a number
    step: Tensor | None = None  # a number, or (n,); None where it is one

    @property
    def reach(self) -> int:
        """The power of two, in thresholds, from which on nothing shrinks."""
        end = 1 / float(self.concavity.detach().reshape(()))
        return min(MOST_REACH, max(1, math.ceil(math.log2(end))))

    def gain(self, u: Tensor) -> Tensor:
        """`firm(u, 1) / u`, for u in thresholds, `(entries,)`."""
        at = torch.where(u == 0, torch.full_like(u, 0.5), u)  # both have the gain 0
        gain = firm(at, 1.0, self.concavity.double()) / at
        return torch.where(at.abs() >= at.abs().amax(), gain.new_ones(()), gain)  # whatever is beyond the table


@form_of_algorithm.register
def _(algorithm: ALISTAAT, network: Unfolded) -> IntegerForm:
    return FirmSteps(network)


FORMS |= {"unfolded ALISTAAT"}


class FirmSteps(ResidualSteps[FirmStep]):
    """The form of an unfolded ALISTAAT.

    Args:
        network: The network.

    Raises:
        ValueError: If the operator is complex, or thresholds or concavities are vectors.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> sorted(integer_form(ff.unfold(ff.algorithms.ALISTAAT(), problem, 3)).constants)
        ['U', 'V', 'd']
    """

    def __init__(self, network: Unfolded):
        super().__init__(network)
        for name in ("alpha", "concavity"):
            if "vector" in network.learn.get(name, ""):
                raise ValueError(f"ALISTAAT learns {name} as a vector, which integers do not; learn a scalar.")
        U, d, right = network.operator.svd()
        self.constants = {"U": U.matrix().double(), "d": d.double(), "V": right.matrix().double()}

    def spare(self, bits: int) -> int:
        """The bits of a change that are left for samples that converge late."""
        return bits_of(bits).spare_of_change

    def layers(self, thetas: Sequence[Theta]) -> list[FirmStep]:
        """The layers of these quantities, one matrix for each ridge."""
        matrices: dict[int, Tensor] = {}
        for theta in thetas:
            if id(theta.ridge) not in matrices:
                matrices[id(theta.ridge)] = self.matrix(theta.ridge)
        stepping = "step" in self.network.learn
        return [
            FirmStep(matrices[id(theta.ridge)], theta.alpha, theta.concavity, theta.step if stepping else None)
            for theta in thetas
        ]

    def matrix(self, ridge: Tensor) -> Tensor:
        """`V diag(w) Uᴴ` with `w = d / (d² + ridge)`, each row over its product with its column of A, `(n, m)`."""
        U, d, right = (self.constants[name] for name in ("U", "d", "V"))
        w = d / (d.square() + ridge.double())
        diagonal = self.network.operator.seen().only(torch.mv(right.square(), w * d), 1)
        return (right * w) @ U.mH / diagonal[:, None]

    def shrunk(
        self, arithmetic: ShapedArithmetic[V], layer: FirmStep, residual: Scaled[V], x: Scaled[V] | None, *, fine: bool
    ) -> Scaled[V]:
        """`firm(x + step W (y - A x), alpha ‖y - A x‖ / √m, concavity)`."""
        bits = bits_of(arithmetic.bits)
        driving = self.driving(arithmetic, layer, residual)
        v = arithmetic.with_room(driving, bits.spare)
        r = self.stepped(arithmetic, layer, driving, v, fine=fine)
        r = arithmetic.narrowed(r if x is None else onto(arithmetic, r, x), bits.r)
        in_thresholds = arithmetic.times(r, self.inverse_threshold(arithmetic, layer, v, bits.inverse))
        fraction = min(bits.u - 1 - layer.reach, int(in_thresholds.fraction[0]))  # no digits that it has not
        u = arithmetic.on_grid(in_thresholds, fraction, bits.u)
        return arithmetic.times(r, arithmetic.table(u, layer.gain, bits.gain))

    def inverse_threshold(self, arithmetic: ShapedArithmetic[V], layer: FirmStep, v: Scaled[V], bits: int) -> Scaled[V]:
        """`√m / (alpha ‖v‖)`, `(1,)`, for norms from a third of a unit an entry up.

        Those of the largest have the fewest digits.
        """
        m = self.network.operator.m
        squares = arithmetic.summed(arithmetic.times(v, v), 1, m)
        least, most = max(1.0, m / 8), float(squares.largest)
        rows = round(10 * math.log10(most / least) / ROW_DB)
        edges = np.unique(np.rint(np.geomspace(least, most, rows + 1)).astype(np.int64))
        centres = np.sqrt(edges[:-1] * edges[1:].astype(np.float64))
        power = torch.from_numpy(np.ldexp(centres, -int(squares.fraction[0]))) / m
        inverse = power.rsqrt() / layer.alpha.double()
        if layer.step is not None and in_front(arithmetic, layer):  # v has it already
            inverse = inverse * layer.step.double()
        return arithmetic.picked(squares, edges[1:-1], inverse[:, None], bits)
