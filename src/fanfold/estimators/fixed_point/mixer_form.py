"""The beam mixer in whole numbers: its stages as `estimators.ofdm.beam_mixer` has them, entry by entry.

Values lie so that the last axis is the one that the next matrix sums: antennas, then delays, and back. Powers over the
noise are differences of logarithms, and what the network sees of them is a table.
"""

import math
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_right
from fanfold.estimators.fixed_point.forms import FORMS, IntegerForm, integer_form
from fanfold.estimators.fixed_point.grid_front import GridFront
from fanfold.estimators.fixed_point.pilot_front import (
    LEVEL,
    POWER_DIGITS,
    POWER_OCTAVES,
    SQUARE_BITS,
    TABLE_BITS,
    in_pairs,
    seen_over,
)
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.beam_mixer import SMALLEST_POWER_OVER_NOISE, BeamMixer, MixerStage
from fanfold.estimators.ofdm.grid_network import LOG_POWER_SCALE

V = TypeVar("V")

LEAST_SEEN, MOST_SEEN = -7.0, 24.0  # octaves of power over noise
CENTRE = 2.0  # of what the network sees of powers, so that its sign tells something
KNOWN = (0,)  # axes, of delays and width, along which what the network knows has scales of its own
GELU_BITS = 11  # of what goes into its table


class MixerForm(GridFront):
    """The form of a beam mixer.

    Args:
        network: The network.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> integer_form(ff.estimators.ofdm.BeamMixer.of(problem)).outputs[0].shape
        (768, 2)
    """

    def __init__(self, network: BeamMixer):
        super().__init__(network)
        self.network = network

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        a, net = arithmetic, self.network
        antennas, modes, state = net.antennas, net.modes, net.state
        pilots, fine = self._unit_pilots(a), self._fine(a)
        filtered = self._filtered(a, pilots)
        back = a.linear(filtered.beams, from_right(net.beams), outer=modes, bits=fine.weights)
        bits = fine.summed_over(2 * (modes + state))
        c = a.narrowed_along(back, (modes, 2, antennas), (0,), bits)
        c = a.moved(c, (modes, 2, antennas), (2, 1, 0))  # (antennas, 2, modes)
        to_grid, of_state = self._to_grid(), from_right(net.grid)
        first = a.linear(c, of_state @ to_grid, outer=antennas, bits=fine.weights)
        z = a.narrowed_along(filtered.z, (antennas, 2, modes), (2,), bits)
        level = _Level(a, pilots.level)
        change = None
        for stage in net.stages:
            assert isinstance(stage, MixerStage)
            seen = first if change is None else a.added(first, change)
            seen = a.narrowed_along(seen, (antennas, 2, state), (2,), bits)
            both = a.joined(z, seen, antennas, (2 * modes, 2 * state))
            turned = _turned(a, stage, both, antennas, fine.weights)
            step = _changed(a, stage, turned, level, antennas)
            change = step if change is None else a.added(change, step)
            change = a.narrowed_along(change, (antennas, 2, state), (2,), TABLE_BITS)
        assert change is not None
        ends = a.joined(c, a.narrowed_along(change, (antennas, 2, state), (2,), bits), antennas, (2 * modes, 2 * state))
        x = a.linear(ends, in_pairs(torch.cat([to_grid, of_state.mT], 1)), outer=antennas, bits=fine.weights)
        return self._given(a, a.roomy(x, 2 * antennas * net.entries, TABLE_BITS), pilots)


class _Level(Generic[V]):
    """The noise's logarithm and its square, as the network sees them."""

    def __init__(self, a: ShapedArithmetic[V], level: Scaled[V]):
        self.level, self.scale = level, LOG_POWER_SCALE * math.log(2)
        self.square = a.shifted(a.times(level, level), np.array([LEVEL - 2]))

    def felt(self, a: ShapedArithmetic[V], weights: Tensor) -> Scaled[V]:
        """The product with weights `(size, 2)` of both."""
        once, twice = weights.unbind(1)
        return a.added(
            a.times(a.number(once * self.scale), self.level), a.times(a.number(twice * self.scale**2), self.square)
        )


def _turned(a: ShapedArithmetic[V], stage: MixerStage, both: Scaled[V], antennas: int, bits: int) -> Scaled[V]:
    """Modes of the pilots and of the state, side by side, as beams and delays, `(delays, groups, 2, beams)`."""
    groups, delays = stage.groups, stage.delays
    each = antennas // groups
    to_delays = from_right(stage.to_delays).mT  # columns are (2, modes + state)
    columns = to_delays.unflatten(1, (2, -1))
    modes = both_modes(stage, columns)
    to_delays = torch.cat([columns[..., :modes].flatten(1), columns[..., modes:].flatten(1)], 1)
    u = a.linear(both, to_delays, outer=antennas, bits=bits)
    u = a.narrowed_along(u, (antennas, 2, delays), (2,))
    u = a.moved(u, (groups, each, 2, delays), (3, 0, 2, 1))
    return a.linear(u, from_right(stage.to_beams).mT, outer=delays * groups)


def both_modes(stage: MixerStage, columns: Tensor) -> int:
    """How many of a stage's modes are those of the pilots; the rest are the state's."""
    return columns.shape[-1] - stage.from_delays.shape[-1]


def _changed(a: ShapedArithmetic[V], stage: MixerStage, u: Scaled[V], level: _Level[V], antennas: int) -> Scaled[V]:
    """What a stage adds to the state, `(antennas, 2, state)`."""
    groups, delays, beams = stage.groups, stage.delays, stage.beams
    each, places = antennas // groups, delays * groups
    u = a.roomy(u, places * 2 * beams, SQUARE_BITS)
    gains = _gains(a, stage, u, level)
    both = a.joined(gains, gains, places, (beams, beams))
    v = a.narrowed_along(a.times(u, both), (delays, groups, 2, beams), (0,))
    back = a.linear(v, from_right(stage.from_beams).mT, outer=places)
    back = a.roomy(back, antennas * 2 * delays, TABLE_BITS)
    back = a.moved(back, (delays, groups, 2, each), (1, 3, 2, 0))
    return a.linear(back, from_right(stage.from_delays).mT, outer=antennas)


def _gains(a: ShapedArithmetic[V], stage: MixerStage, u: Scaled[V], level: _Level[V]) -> Scaled[V]:
    """The gains `(delays, groups, beams)` that the network gives to the powers of u."""
    delays, beams, width = stage.delays, stage.beams, stage.think.in_features
    seen = stage.groups * beams
    power = a.log2(a.summed(a.times(u, u), delays * stage.groups, 2, beams), POWER_OCTAVES, POWER_DIGITS)

    def logarithm(powers: Tensor) -> Tensor:
        return LOG_POWER_SCALE * (powers + SMALLEST_POWER_OVER_NOISE).log() - CENTRE

    features = seen_over(a, power, level.level, (LEAST_SEEN, MOST_SEEN), logarithm)
    features = a.roomy(features, delays * seen)
    see, across = stage.see, [*stage.across]
    first = a.narrowed_along(a.linear(features, see.weight[:, :seen], outer=delays), (delays, width), (1,))
    sums = across[0].sum(1)
    of_level = (sums[:, None, None] * see.weight[:, seen:]).flatten(0, 1)
    bias = stage.place + sums[:, None] * (see.bias + CENTRE * see.weight[:, :seen].sum(1))
    hidden = a.added(a.linear(first, across[0], inner=width), level.felt(a, of_level))
    hidden = _activated(a, a.added(hidden, a.number(bias)), (delays, width))
    thought = a.linear(a.narrowed_along(hidden, (delays, width), KNOWN), stage.think.weight, outer=delays)
    second = a.narrowed_along(thought, (delays, width), (1,))
    bias = across[1].sum(1)[:, None] * stage.think.bias
    more = _activated(a, a.added(a.linear(second, across[1], inner=width), a.number(bias)), (delays, width))
    hidden = a.narrowed_along(a.added(hidden, more), (delays, width), KNOWN)
    gains = a.linear(hidden, stage.say.weight, outer=delays)
    return a.roomy(a.added(gains, a.number(stage.say.bias.repeat(delays))), delays * seen, TABLE_BITS)


def _activated(a: ShapedArithmetic[V], x: Scaled[V], shape: tuple[int, int]) -> Scaled[V]:
    return a.table(a.roomy(x, math.prod(shape), max(GELU_BITS, a.bits)), nn.functional.gelu, TABLE_BITS)


@integer_form.register
def _(network: BeamMixer) -> IntegerForm:
    return MixerForm(network)


FORMS |= {"BeamMixer"}
