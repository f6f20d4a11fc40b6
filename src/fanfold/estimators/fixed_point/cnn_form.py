"""The grid CNN in whole numbers: its picture as `estimators.ofdm.grid_cnn` has it, channels last.

What is linear is done in the delay modes, which are few: the DFT over the array, and the turn by the common phase. The
change is that over the error which LMMSE expects, so that one scale serves every noise variance.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.core.complex_pairs import from_right
from fanfold.estimators.fixed_point.forms import FORMS, IntegerForm, integer_form
from fanfold.estimators.fixed_point.grid_front import GridFront
from fanfold.estimators.fixed_point.pilot_front import (
    DIGITS,
    LEVEL,
    POWER_DIGITS,
    POWER_OCTAVES,
    SQUARE_BITS,
    TABLE_BITS,
    in_pairs,
    seen_over,
)
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic, power_of_two
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.grid_cnn import SMALLEST_POWER_OVER_ERROR, GridCNN
from fanfold.estimators.ofdm.grid_network import LOG_POWER_SCALE

V = TypeVar("V")

TURN_BITS = 15  # of cosine and sine, so that two products add up within 32
SIZES = 30  # octaves of the squared size of a sum whose phase is taken
LEAST_SEEN, MOST_SEEN = -7.0, 20.0  # octaves of power over the expected error
QUARTER = [[0.0, 1.0], [-1.0, 0.0]]  # (re, im) -> (im, -re): a quarter of a turn back


class Turn(NamedTuple):
    """Cosine and sine of a phase, one number each.

    Example:
        >>> from fanfold.estimators.fixed_point.cnn_form import Turn
        >>> Turn("cos", "sin").sine
        'sin'
    """

    cosine: Scaled
    sine: Scaled


class CNNForm(GridFront):
    """The form of a grid CNN.

    Args:
        network: The network.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point import integer_form
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> integer_form(ff.estimators.ofdm.GridCNN.of(problem)).outputs[0].shape
        (768, 2)
    """

    def __init__(self, network: GridCNN):
        super().__init__(network)
        self.network = network
        self.picture = (network.rows, network.entries // network.symbols // network.fold)
        self.lead = network.antennas // network.rows

    def written(self, arithmetic: ShapedArithmetic[V]) -> Mapping[str, Scaled[V]]:
        """The layers."""
        a, net = arithmetic, self.network
        antennas, modes, entries = net.antennas, net.modes, net.entries
        pilots, fine = self._unit_pilots(a), self._fine(a)
        filtered = self._filtered(a, pilots)
        across, dft, to_grid = from_right(net.beams), from_right(net.dft), self._to_grid()
        shape, turned = (modes, 2, antennas), (antennas, 2, modes)
        back = a.linear(filtered.beams, across, outer=modes, bits=fine.weights)
        back = a.narrowed_along(back, shape, (0,), fine.activations)
        start = a.moved(back, shape, (2, 1, 0))
        turn = self._phase(a, start, to_grid)
        in_beams = a.linear(filtered.beams, dft.mT @ across, outer=modes, bits=fine.weights)
        alone = self._gained(a, filtered.z, net.mode_var[:, None].expand(antennas, 2, -1, 1)[..., 0], pilots.level)
        alone = a.moved(a.narrowed_along(alone, turned, (2,), fine.activations), turned, (2, 1, 0))
        alone = a.linear(alone, dft.mT, outer=modes, bits=fine.weights)
        both = [self._turned(a, part, turn, shape) for part in (in_beams, alone)]
        f, e = (a.moved(a.narrowed_along(part, shape, (0,), fine.activations), shape, (2, 1, 0)) for part in both)
        filtered_grid = a.linear(f, to_grid, outer=antennas, bits=fine.weights)
        ends = a.joined(e, f, antennas, (2 * modes, 2 * modes))
        lost = a.linear(ends, torch.cat([to_grid, -to_grid], 1), outer=antennas, bits=fine.weights)
        change = self._change(a, filtered_grid, lost, pilots.level)  # (entries, 2, antennas), over the error
        change = self._turned(a, change, turn, (entries, 2, antennas), back=True)
        change = a.linear(a.roomy(change, 2 * antennas * entries), dft, outer=entries)
        error = a.table(pilots.level, lambda at: self._expected(at).sqrt(), TABLE_BITS)
        change = a.times(a.roomy(change, 2 * antennas * entries, TABLE_BITS), error)
        change = a.moved(change, (entries, 2, antennas), (2, 0, 1))
        x = a.linear(start, in_pairs(to_grid), outer=antennas, bits=fine.weights)
        x = a.added(a.roomy(x, 2 * antennas * entries, TABLE_BITS), change)
        return self._given(a, a.roomy(x, 2 * antennas * entries, TABLE_BITS), pilots)

    def _expected(self, level: Tensor) -> Tensor:
        """The error that LMMSE expects at noise of these logarithms, `(entries,)`; nothing that is learned."""
        noise_var = torch.exp2(level.clamp(-40, 40))[:, None].to(self.network.beam_var.dtype)
        return torch.cat([self.network.expected(part) for part in noise_var.split(64)]).flatten().detach()

    def _phase(self, a: ShapedArithmetic[V], start: Scaled[V], to_grid: Tensor) -> Turn:
        """That of the sum of all entries of the LMMSE estimate, `(antennas, 2, modes)` before the grid."""
        net, bits = self.network, self._fine(a).weights
        sums = to_grid.unflatten(0, (2, -1)).sum(1).tile(1, net.antennas)  # (2, antennas · 2 · modes)
        total = a.roomy(a.linear(start, sums, bits=bits), 2, TABLE_BITS)
        size = a.log2(a.summed(a.times(total, total), 1, 2), SIZES, DIGITS)
        most = size.value.largest // 2**DIGITS  # octaves of the squared size
        top = most + size.beyond + 2 * int(total.fraction[0])  # those of its whole numbers, from one

        def larger(value: Tensor) -> Tensor:
            return torch.exp2(((most - value.clamp(0, most)) / 2).floor())

        def rest(value: Tensor) -> Tensor:
            lacking = (2.0**most / power_of_two(value.clamp(0, most))).sqrt()
            return lacking / larger(value) / 2 ** (top % 2 / 2)

        grown = a.times(a.regarded(total, 0), a.table(size.value, larger, TABLE_BITS + 1))
        end = torch.tensor([2.0 ** (top // 2 + 1)])
        grown = a.clamped(grown, -end, end)  # no more than the root of the largest squared size
        grown = a.regarded(grown, int(grown.fraction[0]) + top // 2)
        phase = a.times(grown, a.table(size.value, rest, TABLE_BITS))
        phase = a.roomy(phase, 2, TURN_BITS)
        return Turn(*(a.signed_sums(phase, torch.eye(2)[k : k + 1]) for k in (0, 1)))

    def _turned(
        self, a: ShapedArithmetic[V], x: Scaled[V], turn: Turn, shape: tuple[int, int, int], *, back: bool = False
    ) -> Scaled[V]:
        """Packed entries `(outer, 2, inner)` without this phase, or with it again."""
        outer, _, inner = shape
        x = a.narrowed_along(x, shape, (0,), TABLE_BITS)
        quarter = a.signed_sums(x, (-1.0 if back else 1.0) * torch.tensor(QUARTER), outer, inner)
        return a.plus(a.times(x, turn.cosine), a.times(quarter, turn.sine))

    def _change(self, a: ShapedArithmetic[V], filtered: Scaled[V], lost: Scaled[V], level: Scaled[V]) -> Scaled[V]:
        """What the CNN adds, over the error that LMMSE expects, `(entries, 2, antennas)`."""
        net = self.network
        size = 2 * net.antennas * net.entries
        filtered, lost = (a.roomy(part, size, SQUARE_BITS) for part in (filtered, lost))
        squared = a.table(level, lambda at: self._expected(at).log2(), TABLE_BITS)
        error = a.shifted(squared, np.array([LEVEL]))
        levels = [self._levels(a, part, error) for part in (filtered, lost)]
        over_error = a.table(level, lambda at: self._expected(at).rsqrt(), TABLE_BITS)
        over_error = a.roomy(a.times(lost, over_error), size)
        parts = [self._picture(a, a.roomy(filtered, size), 2), self._picture(a, over_error, 2)]
        parts += [self._picture(a, part, 1) for part in levels]
        channels = [2 * self.channels, 2 * self.channels, self.channels, self.channels]
        hidden, width = parts[0], channels[0]
        places = math.prod(self.picture)
        for part, count in zip(parts[1:], channels[1:]):
            hidden = a.joined(hidden, part, places, (width, count))
            width += count
        for k, layer in enumerate(part for part in net.trunk if isinstance(part, nn.Conv2d)):
            out = a.convolved(hidden, layer.weight[:, :width], (*self.picture, width))
            if k == 0:
                out = a.added(out, self._of_level(a, layer.weight[:, width:], level))
            hidden = self._rectified(a, a.added(out, a.number(_bias(layer).repeat(places))), layer.out_channels)
            width = layer.out_channels
        halves = zip(net.head.weight.chunk(2), _bias(net.head).chunk(2))
        added, kept = (
            a.added(a.convolved(hidden, weight, (*self.picture, width)), a.number(bias.repeat(places)))
            for weight, bias in halves
        )
        kept = a.times(a.roomy(kept, size, TABLE_BITS), parts[1])
        return self._unfolded(a, a.roomy(a.added(added, kept), size, TABLE_BITS))

    @property
    def channels(self) -> int:
        """How many complex numbers a place of the picture has."""
        return self.lead * self.network.symbols * self.network.fold

    def _of_level(self, a: ShapedArithmetic[V], weights: Tensor, level: Scaled[V]) -> Scaled[V]:
        """What the first convolution makes of a picture of the noise level, which it sees at every place."""
        seen = nn.functional.conv2d(torch.ones(1, 1, *self.picture).to(weights), weights, padding="same")
        return a.times(a.number(seen[0].permute(1, 2, 0) / math.log2(1e6)), level)

    def _rectified(self, a: ShapedArithmetic[V], x: Scaled[V], width: int) -> Scaled[V]:
        places = math.prod(self.picture)
        most = torch.tensor([math.ldexp(1.0, 31 - int(x.fraction.max()))])
        positive = a.clamped(x, torch.zeros(1), most)
        return a.narrowed_along(positive, (places, width), ())

    def _levels(self, a: ShapedArithmetic[V], x: Scaled[V], error: Scaled[V]) -> Scaled[V]:
        """What the network sees of powers over the error, `(antennas, entries)`."""
        net = self.network
        power = a.log2(a.summed(a.times(x, x), net.antennas, 2, net.entries), POWER_OCTAVES, POWER_DIGITS)

        def logarithm(powers: Tensor) -> Tensor:
            return LOG_POWER_SCALE * (powers + SMALLEST_POWER_OVER_ERROR).log()

        features = seen_over(a, power, error, (LEAST_SEEN, MOST_SEEN), logarithm)
        return a.roomy(features, net.antennas * net.entries)

    def _picture(self, a: ShapedArithmetic[V], x: Scaled[V], parts: int) -> Scaled[V]:
        """`(antennas, parts, entries)` as `(rows, columns, channels)`."""
        net, (rows, columns) = self.network, self.picture
        return a.moved(x, (self.lead, rows, parts * net.symbols, columns, net.fold), (1, 3, 0, 2, 4))

    def _unfolded(self, a: ShapedArithmetic[V], x: Scaled[V]) -> Scaled[V]:
        """A picture as `(entries, 2, antennas)`."""
        net, (rows, columns) = self.network, self.picture
        return a.moved(x, (rows, columns, self.lead, 2, net.symbols, net.fold), (4, 1, 5, 3, 2, 0))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@integer_form.register
def _(network: GridCNN) -> IntegerForm:
    return CNNForm(network)


FORMS |= {"GridCNN"}
