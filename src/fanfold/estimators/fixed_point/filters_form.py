"""Learned filters in whole numbers: the mixture, then stages of gains as `estimators.ofdm.learned_filters` has them.

Powers over the noise are differences of logarithms, and what a stage sees of them are tables. Pictures over beams have
their channels last.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_left
from fanfold.estimators.fixed_point.forms import FORMS, IntegerForm, integer_form
from fanfold.estimators.fixed_point.mixture_form import InModes, MixtureForm
from fanfold.estimators.fixed_point.pilot_front import (
    POWER_DIGITS,
    POWER_OCTAVES,
    SQUARE_BITS,
    TABLE_BITS,
    in_pairs,
    seen_over,
)
from fanfold.estimators.fixed_point.shaped import Logarithm, ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.learned_filters import LOG_BEAM_SCALE, SMALLEST_BEAM_POWER, FilterStage, LearnedFilters

V = TypeVar("V")

LEAST_SEEN, MOST_SEEN = -7.0, 24.0  # octaves of power over noise


class FiltersForm(MixtureForm):
    """The form of learned filters.

    Args:
        network: The network.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> settings = ff.estimators.ofdm.FilterSettings(components=2)
        >>> integer_form(settings.build(problem)).outputs[0].shape
        (768, 2)
    """

    def __init__(self, network: LearnedFilters):
        super().__init__(network)
        self.network, self.plane = network, self.antennas // network.groups
        self.rows = network.corrected * network.groups

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        a, bank, corrected = arithmetic, self.bank, self.network.corrected
        pilots, fine, basis = self._unit_pilots(a), self._fine(a), self.bank.basis
        seen = self._of_mixture(a, pilots)
        shape = (bank.modes, 2, self.antennas)
        bits = fine.summed_over(2 * (bank.modes + (corrected if len(self.network.stages) else 0)))
        x = a.moved(a.narrowed_along(seen.mean, shape, (0,), bits), shape, (2, 1, 0))
        weights = from_left(basis)
        if len(self.network.stages):
            change = self._change(a, seen, pilots.level)
            change = a.narrowed_along(change, (self.antennas, 2, corrected), (2,), bits)
            x = a.joined(x, change, self.antennas, (2 * bank.modes, 2 * corrected))
            weights = torch.cat([weights, from_left(basis[..., :corrected])], 1)
        x = a.linear(x, in_pairs(weights), outer=self.antennas, bits=fine.weights)
        return self._given(a, a.roomy(x, 2 * self.antennas * self.entries, TABLE_BITS), pilots)

    def _change(self, a: ShapedArithmetic[V], seen: InModes[V], level: Scaled[V]) -> Scaled[V]:
        """What all stages add to the first modes, `(antennas, 2, corrected)`."""
        net, bank = self.network, self.bank
        corrected, shape = net.corrected, (self.rows, 2, self.plane)
        z = a.linear(
            seen.pilots, from_left(net.to_modes[:, :corrected]), outer=self.antennas, bits=self._fine(a).weights
        )
        z = a.moved(a.narrowed(z, TABLE_BITS), (net.groups, self.plane, 2, corrected), (3, 0, 2, 1))
        first = a.narrowed(seen.mean, TABLE_BITS)
        first = a.signed_sums(first, torch.eye(bank.modes)[:corrected], inner=2 * self.antennas)
        first = a.moved(first, (corrected, 2, net.groups, self.plane), (0, 2, 1, 3))
        shares = a.roomy(seen.shares, len(bank.log_weights))
        change: Scaled[V] | None = None
        for stage in net.stages:
            assert isinstance(stage, FilterStage)
            now = first if change is None else a.added(first, change)
            rest = a.narrowed_along(a.minus(z, now), shape, (0,))
            now = a.narrowed_along(now, shape, (0,), TABLE_BITS)  # 40 dB above what a stage adds
            step = self._step(a, stage, rest, now, level, shares)
            change = step if change is None else a.added(change, step)
            change = a.narrowed(change, TABLE_BITS)
        assert change is not None
        return a.moved(change, (corrected, net.groups, 2, self.plane), (1, 3, 2, 0))

    def _step(
        self,
        a: ShapedArithmetic[V],
        stage: FilterStage,
        rest: Scaled[V],
        now: Scaled[V],
        level: Scaled[V],
        shares: Scaled[V],
    ) -> Scaled[V]:
        """What a stage adds, `(rows, 2, plane)`."""
        rows, places = self.rows, math.prod(stage.beams)
        size = rows * 2 * places
        forth = from_left(stage.forth)
        rest, now = (a.narrowed(a.linear(part, forth, outer=rows), SQUARE_BITS) for part in (rest, now))
        powers = [self._powers(a, part, places) for part in (rest, now)]
        gains = self._gains(a, stage, powers, level, shares)
        gains = a.joined(gains, gains, 2 * rows, (places, places))

        def left_as_it_is(powers: Tensor) -> Tensor:
            return 1 / (1 + powers)

        shrunk = seen_over(a, powers[1], level, (LEAST_SEEN, MOST_SEEN), left_as_it_is)
        shrunk = a.times(now, a.joined(shrunk, shrunk, rows, (places, places)))
        both = a.joined(rest, a.roomy(shrunk, size, SQUARE_BITS), 1, (size, size))
        change = a.roomy(a.times(both, gains), 2 * size, TABLE_BITS)
        change = a.summed(change, 1, 2, size)
        change = a.narrowed_along(change, (rows, 2, places), (0,))
        return a.linear(change, from_left(stage.back), outer=rows)

    def _powers(self, a: ShapedArithmetic[V], x: Scaled[V], places: int) -> Logarithm:
        """Logarithms of powers `(rows, places)`."""
        return a.log2(a.summed(a.times(x, x), self.rows, 2, places), POWER_OCTAVES, POWER_DIGITS)

    def _gains(
        self,
        a: ShapedArithmetic[V],
        stage: FilterStage,
        powers: Sequence[Logarithm],
        level: Scaled[V],
        shares: Scaled[V],
    ) -> Scaled[V]:
        """The gains of what is left and of what is there, `(2, rows, places)`."""
        rows, places = self.rows, math.prod(stage.beams)

        def logarithm(powers: Tensor) -> Tensor:
            return LOG_BEAM_SCALE * (powers + SMALLEST_BEAM_POWER).log()

        seen = [seen_over(a, power, level, (LEAST_SEEN, MOST_SEEN), logarithm) for power in powers]
        left, right = (a.moved(a.roomy(part, rows * places), (rows, places), (1, 0)) for part in seen)
        hidden = a.joined(left, right, places, (rows, rows))
        convolutions = [stage.first, *(part for part in stage.trunk if isinstance(part, nn.Conv2d))]
        channels = 2 * rows
        for k, layer in enumerate(convolutions):
            out = a.convolved(hidden, layer.weight, (*stage.beams, channels))
            added = self._about(a, stage, level, shares, places) if k == 0 else a.number(_bias(layer).repeat(places))
            out, channels = a.added(out, added), layer.out_channels
            hidden = a.table(a.roomy(out, places * channels), nn.functional.silu, a.bits)
        out = a.convolved(hidden, stage.head.weight, (*stage.beams, channels))
        out = a.added(out, a.number(_bias(stage.head).repeat(places)))
        out = a.roomy(out, 2 * rows * places, TABLE_BITS)
        return a.moved(out, (places, 2 * rows), (1, 0))

    def _about(
        self, a: ShapedArithmetic[V], stage: FilterStage, level: Scaled[V], shares: Scaled[V], places: int
    ) -> Scaled[V]:
        """What the noise and the components add to the first convolution, the same at each place."""
        of_level, of_shares = stage.about.weight[:, 0], stage.about.weight[:, 1:]
        about = a.times(a.number(of_level * (LOG_BEAM_SCALE * math.log(2))), level)
        about = a.added(about, a.linear(shares, of_shares))
        about = a.added(about, a.number(stage.about.bias + _bias(stage.first)))
        about = a.roomy(about, len(of_level), TABLE_BITS)
        return a.signed_sums(about, torch.ones(places, 1), inner=len(of_level))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@integer_form.register
def _(network: LearnedFilters) -> IntegerForm:
    return FiltersForm(network)


FORMS |= {"LearnedFilters"}
