"""The filters of a Gaussian mixture in whole numbers: `estimators.ofdm.filter_bank`, component by component.

With d the variance of a mode of the pilots in an eigendirection, the likelihood and the filter need `log2 (d + v)` and
`d / (d + v)` for every noise variance v: both are tables over `log2 d - log2 v`. Squares over `d + v` are differences
of logarithms, and so nothing is ever divided. Weights of components are powers of two of logarithms less the largest.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.core.complex_pairs import from_left, from_right
from fanfold.estimators.fixed_point.forms import FORMS, IntegerForm, integer_form
from fanfold.estimators.fixed_point.pilot_front import (
    DIGITS,
    LEVEL,
    POWER_OCTAVES,
    SQUARE_BITS,
    SURE,
    TABLE_BITS,
    PilotFront,
    UnitPilots,
    exact_log2,
    in_pairs,
)
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled, finest
from fanfold.estimators.ofdm.filter_bank import MixtureNetwork
from fanfold.estimators.ofdm.kronecker_gmm import KroneckerGMM

V = TypeVar("V")

LEAST_VAR, LEAST_MODE = 2.0**-30, 2.0**-20  # of eigenvalues, below which no noise is either
SURPRISE, SURPRISE_BITS = 12.0, 20  # octaves of a square over its variance that are told apart, and of the ratio
FAR_OUT = 8.0  # standard deviations of a mode, beyond which it saturates
FAR = 20.0  # octaves below the likeliest component, where others count for nothing
KEPT_BITS = 17  # of what a component keeps: with a share of 16 its products are within 32
SHARE_BITS = 12  # of the sum of all weights, as a table takes it
MEAN_FRACTION, MEAN_BITS = 12, 20  # of modes of a channel of unit power, up to 2^7
LARGEST_OVER = 64.0  # octaves between variances, more than there are


class InModes(NamedTuple, Generic[V]):
    """What a mixture makes of pilots, as modes over the grid.

    Example:
        >>> from fanfold.estimators.fixed_point.mixture_form import InModes
        >>> InModes("z", "x", "shares")._fields
        ('pilots', 'mean', 'shares')
    """

    pilots: Scaled[V]  # (antennas, 2, rank): modes of the pilots
    mean: Scaled[V]  # (modes, 2, antennas): the mixture's mean
    shares: Scaled[V]  # (components,): how likely each is


class MixtureForm(PilotFront):
    """The form of the mean of a mixture.

    Args:
        network: A network that starts from a mixture.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> mixture = ff.estimators.ofdm.Mixture.of(problem, components=2, samples=100, rounds=2)
        >>> integer_form(ff.estimators.ofdm.KroneckerGMM.of(problem, mixture)).outputs[0].shape
        (768, 2)
    """

    def __init__(self, network: MixtureNetwork):
        super().__init__(network.front_end, network.bank.entries)
        self.bank = network.bank

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        a, modes = arithmetic, self.bank.modes
        pilots, fine = self._unit_pilots(a), self._fine(a)
        x = self._of_mixture(a, pilots).mean
        x = a.narrowed_along(x, (modes, 2, self.antennas), (0,), fine.summed_over(2 * modes))
        x = a.moved(x, (modes, 2, self.antennas), (2, 1, 0))
        x = a.linear(x, in_pairs(from_left(self.bank.basis)), outer=self.antennas, bits=fine.weights)
        return self._given(a, a.roomy(x, 2 * self.antennas * self.entries, TABLE_BITS), pilots)

    def _of_mixture(self, a: ShapedArithmetic[V], pilots: UnitPilots[V]) -> InModes[V]:
        """The mixture's mean, and how likely its components are."""
        bank, fine = self.bank, self._fine(a)
        rank, shape = bank.rank, (self.antennas, 2, bank.rank)
        to_modes = from_right(bank.seen).mT.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)  # pilots lie in pairs
        z = a.linear(pilots.y, to_modes, outer=self.antennas, bits=fine.weights)
        z = a.narrowed_along(z, shape, (2,), fine.activations)
        turned = a.moved(z, shape, (2, 1, 0))
        parts, evidence = [], []
        for k in range(len(bank.log_weights)):
            in_eigen = self._in_eigenbasis(a, turned, k)
            evidence.append(self._evidence(a, in_eigen, pilots.level, k))
            parts.append(self._kept(a, in_eigen, pilots.level, k))
        shares = _shares(a, evidence)
        total: Scaled[V] | None = None
        for k, part in enumerate(parts):
            share = a.signed_sums(shares, torch.eye(len(parts))[k : k + 1])
            part = a.times(part, share)
            part = a.on_grids(part, np.tile(self._fractions(k, fine.activations), 2 * self.antennas), fine.activations)
            part = a.moved(part, (self.antennas, 2, bank.modes), (2, 1, 0))
            part = a.linear(part, from_left(bank.U[:, k]).mT, outer=bank.modes, bits=fine.weights)
            part = a.on_grid(part, MEAN_FRACTION, MEAN_BITS)  # one scale, so that components may be of any size
            total = part if total is None else a.plus(total, part)
        assert total is not None
        assert rank <= bank.modes
        return InModes(z, total, shares)

    def _fractions(self, k: int, bits: int) -> np.ndarray:
        """The fraction of each mode that a component expects, `(modes,)`; few draws that choose scales are of it."""
        bank = self.bank
        back, of_modes = bank.back[:, k].detach(), self._of_modes(k).detach()
        var = (back.square().sum(0) / of_modes).sum(-1) * bank.of_space[k].max()
        return np.array([finest(FAR_OUT * size, bits) for size in var.sqrt().tolist()])

    def _of_modes(self, k: int) -> Tensor:
        """The variances of a component's modes of the pilots, `(rank,)`."""
        bank = self.bank
        strongest = int(bank.of_space[k].argmax())
        return (bank.spectrum[k, :, strongest] / bank.of_space[k, strongest]).clamp_min(LEAST_MODE)

    def _in_eigenbasis(self, a: ShapedArithmetic[V], turned: Scaled[V], k: int) -> Scaled[V]:
        """Modes of the pilots `(rank, 2, antennas)` in the eigenbases of a component, `(antennas, 2, rank)`."""
        bank, fine = self.bank, self._fine(a)
        shape = (bank.rank, 2, self.antennas)
        z = a.linear(turned, from_left(bank.U[:, k]), outer=bank.rank, bits=fine.weights)
        z = a.moved(a.narrowed_along(z, shape, (0,), fine.summed_over(2 * bank.rank)), shape, (2, 1, 0))
        z = a.linear(z, from_left(bank.V[:, k]), outer=self.antennas, bits=fine.weights)
        return a.narrowed_along(z, (self.antennas, 2, bank.rank), (0, 2), TABLE_BITS)  # weak ones say much, too

    def _over(self, a: ShapedArithmetic[V], var: Tensor, level: Scaled[V]) -> Scaled[V]:
        """`log2 d - log2 v` of variances `(rank, antennas)`, as `(antennas, rank)`."""
        of_signal = a.number_at(var.double().clamp_min(LEAST_VAR).log2().mT, LEVEL)
        return a.minus(of_signal, level)

    def _evidence(self, a: ShapedArithmetic[V], z: Scaled[V], level: Scaled[V], k: int) -> Scaled[V]:
        """`log2` of the likelihood of a component times its weight, beside what all have in common; one number."""
        bank, count = self.bank, self.antennas * self.bank.rank
        over = self._over(a, bank.spectrum[k] * bank.likelihood_deviation[k].exp(), level)
        end = torch.tensor([float(SURE)])
        more = a.table(a.clamped(over, -end, end), lambda at: (1 + torch.exp2(-at.abs())).log2(), TABLE_BITS)
        above = a.clamped(over, torch.zeros(1), torch.tensor([LARGEST_OVER]))
        beyond = a.plus(a.shifted(more, np.array([LEVEL])), above)  # log2 (d + v) - log2 v
        z = a.on_grids(z, np.broadcast_to(z.fraction, (2 * count,)) - (TABLE_BITS - SQUARE_BITS), SQUARE_BITS)
        whole = a.regarded(z, 0)
        size = a.log2(a.summed(a.times(whole, whole), self.antennas, 2, bank.rank), POWER_OCTAVES, DIGITS)
        fractions = np.broadcast_to(z.fraction, (2 * count,)).reshape(self.antennas, 2, bank.rank)[:, 0].ravel()
        scale = a.number_at(torch.from_numpy(-2.0 * fractions), LEVEL)
        surprise = a.minus(a.minus(a.plus(exact_log2(a, size), scale), beyond), level)
        end = torch.tensor([SURPRISE])
        squares = a.table(a.clamped(surprise, -end, end), torch.exp2, SURPRISE_BITS)
        costs = a.times(a.summed(squares, 1, count), a.number(torch.tensor([1 / math.log(2)])))
        costs = a.plus(a.shifted(costs, np.array([LEVEL])), a.summed(beyond, 1, count))
        return a.minus(a.number_at(bank.log_weights[k : k + 1] / math.log(2), LEVEL), costs)

    def _kept(self, a: ShapedArithmetic[V], z: Scaled[V], level: Scaled[V], k: int) -> Scaled[V]:
        """What the filter of a component keeps, as modes over the grid `(antennas, 2, modes)`, in its directions."""
        bank, fine, (antennas, rank) = self.bank, self._fine(a), (self.antennas, self.bank.rank)
        of_modes = self._of_modes(k)
        deviation = bank.gain_deviation[k].exp()
        over = self._over(a, of_modes[:, None] * bank.of_space[k] * deviation, level)
        end = torch.tensor([float(SURE)])
        gain = a.table(a.clamped(over, -end, end), lambda at: torch.sigmoid(at * math.log(2)), TABLE_BITS - 1)
        gain = a.times(gain, a.number((1 / deviation).mT.reshape(-1)))
        gain = a.roomy(gain, antennas * rank, TABLE_BITS)
        gained = a.times(z, a.joined(gain, gain, antennas, (rank, rank)))
        gained = a.narrowed_along(gained, (antennas, 2, rank), (2,), fine.summed_over(2 * rank))
        back = from_left(bank.back[:, k]) / of_modes.repeat(2)
        kept = a.linear(gained, back, outer=antennas, bits=fine.weights)
        return a.narrowed_along(kept, (antennas, 2, bank.modes), (2,), KEPT_BITS)


def _shares(a: ShapedArithmetic[V], evidence: Sequence[Scaled[V]]) -> Scaled[V]:
    """How likely each component is, `(components,)`, of logarithms of their evidence, one number each."""
    count, logs = len(evidence), evidence[0]
    for k, part in enumerate(evidence[1:], 1):
        logs = a.joined(logs, part, 1, (k, 1))
    far = torch.tensor([FAR])
    below = a.clamped(a.minus(logs, _largest(a, logs, count)), -far, torch.zeros(1))
    weights = a.table(below, lambda at: torch.exp2(at.clamp_max(0)), TABLE_BITS)
    total = a.on_grid(a.summed(weights, 1, count), SHARE_BITS - 2 - count.bit_length(), SHARE_BITS)
    shares = a.times(weights, a.table(total, lambda at: 1 / at.clamp_min(1), TABLE_BITS - 1))
    return a.on_grid(shares, TABLE_BITS - 2, TABLE_BITS)


def _largest(a: ShapedArithmetic[V], x: Scaled[V], count: int) -> Scaled[V]:
    """The largest of numbers with one fraction."""
    while count > 1:
        half, eye = -(-count // 2), torch.eye(count)
        left, right = a.signed_sums(x, eye[:half]), a.signed_sums(x, eye[count - half :])
        most = torch.tensor([math.ldexp(1.0, 30 - int(x.fraction[0]))])
        x, count = a.plus(right, a.clamped(a.minus(left, right), torch.zeros(1), most)), half
    return x


@integer_form.register
def _(network: KroneckerGMM) -> IntegerForm:
    return MixtureForm(network)


FORMS |= {"KroneckerGMM"}
