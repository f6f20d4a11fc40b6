"""What channel networks share in whole numbers: their ports, pilots of unit power, and the noise over that power.

Pilots and the way back have the scale of the channel's power, by a table of one over its root.
"""

import math
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanfold.estimators.fixed_point.forms import FormPort
from fanfold.estimators.fixed_point.shaped import Logarithm, ShapedArithmetic, power_of_two
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.covariance import SMALLEST_OVER_NOISE, SMALLEST_SIGNAL_SHARE
from fanfold.estimators.ofdm.front_end import SMALLEST_NOISE_VAR, FrontEnd
from fanfold.observation import Observation

V = TypeVar("V")

LEVEL = 6  # fraction of the noise's logarithm, in octaves
LEAST_LEVEL = math.log2(SMALLEST_NOISE_VAR)
MOST_LEVEL = 10  # octaves of noise over the channel's power: what the least power of a channel leaves
OCTAVES, DIGITS = 26, 6  # of the logarithms of powers
LINEAR_LOGARITHM = 1.5 - 1 / math.log(2)  # mean of what a logarithm is above one that is linear in each octave
POWER_OCTAVES, POWER_DIGITS = 25, 4  # of those that a network sees: all that two squares of 15 bits have
SQUARE_BITS = 15  # of what is squared for them: two squares, and half of a last digit, are within 32
AMPLIFIED = 13  # octaves of power below what the port holds that are brought to unit power
TABLE_BITS = 16  # of tables that multiply what no matrix does
SURE = 12  # octaves of signal over noise beyond which a gain is 0 or 1
SUM_BITS_OF_PRODUCTS = 33  # of two numbers with a sign each, so that their products stay within 32
NOISE_BITS = 32  # of the port of the noise variance, whose range is wide


class Fine(NamedTuple):
    """The bits of the filter that a network starts from, on which every digit of the estimate rests.

    Example:
        >>> from fanfold.estimators.fixed_point.pilot_front import Fine
        >>> fine = Fine(weights=12, activations=14)
        >>> fine.summed_over(128), fine.summed_over(24)
        (14, 16)
    """

    weights: int
    activations: int

    def summed_over(self, columns: int) -> int:
        """The bits of what a matrix of so many columns sums: up to 16, while sums are sure to stay within 32."""
        within = SUM_BITS_OF_PRODUCTS - self.weights - (columns - 1).bit_length()
        return max(self.activations, min(TABLE_BITS, within))


FINE = Fine(12, 14)  # of which 128 products still add up within 32 bits
FINEST = Fine(16, 16)


class UnitPilots(NamedTuple, Generic[V]):
    """Pilots of a channel of unit power, in whole numbers.

    Example:
        >>> from fanfold.estimators.fixed_point.pilot_front import UnitPilots
        >>> UnitPilots("y", "level", None).root is None
        True
    """

    y: Scaled[V]  # (antennas, pilots, 2)
    level: Scaled[V]  # log2 of the noise variance over the channel's power, one number
    root: Scaled[V] | None  # the root of that power, one number; None where it is known to be one


class PilotFront:
    """The ports of a channel network in whole numbers, and its pilots at unit power of the channel.

    The program takes the noise variance by a port; its estimate comes without an error variance.

    Args:
        front_end: The network's front end.
        entries: Resource elements of one antenna.

    Example:
        >>> from fanfold.estimators.fixed_point.pilot_front import PilotFront
        >>> from fanfold.estimators.ofdm.front_end import FrontEnd
        >>> PilotFront(FrontEnd(antennas=8, pilots=6), entries=24).outputs[0].shape
        (192, 2)
    """

    for_one_noise_var = False

    def __init__(self, front_end: FrontEnd, entries: int):
        self.front_end, self.antennas, self.pilots, self.entries = (
            front_end,
            front_end.antennas,
            front_end.pilots,
            entries,
        )
        self.constants: dict[str, Tensor] = {}  # those that matter are the network's, and kept with it
        self.inputs = (FormPort("y", (self.antennas * self.pilots, 2), "iq"), FormPort("noise_var", (1,)))
        self.outputs = (FormPort("x_hat", (self.antennas * entries, 2), "iq"),)

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The pilots and their noise variance.

        Raises:
            ValueError: If the noise variance is not known, or the pilots are not the network's.
        """
        self.front_end.pairs_of(obs)
        if obs.noise_var is None:
            raise ValueError("in whole numbers the network does not measure the noise: pass noise_var.")
        return {"y": obs.y, "noise_var": obs.noise_var.expand(*obs.y.shape[:-1], 1)}

    def _fine(self, a: ShapedArithmetic[V]) -> Fine:
        """The bits of the filter: at least those of the network behind it."""
        return FINE if a.weight_bits < FINEST.weights else FINEST

    def _unit_pilots(self, a: ShapedArithmetic[V]) -> UnitPilots[V]:
        """Pilots over the root of the channel's power, and the noise over that power."""
        y, noise_var = a.entered("y"), a.entered("noise_var", NOISE_BITS)
        bits = self._fine(a).summed_over(2 * self.pilots)
        if self.front_end.known_power:
            return UnitPilots(
                a.roomy(y, self.inputs[0].size, bits), self._level(a, self._log(a, noise_var), None), None
            )
        power = self._power(a, y, noise_var)
        noise_var = a.shifted(noise_var, power.fraction)
        logarithm = a.log2(power, OCTAVES, DIGITS)
        largest = 2 * math.ldexp(1.0, 2 * (15 - int(y.fraction[0])))  # power that the port holds
        least = math.log2(largest) - AMPLIFIED

        def root(value: Tensor) -> Tensor:
            octaves = (value + logarithm.beyond).clamp(least, least + AMPLIFIED)
            return power_of_two(octaves).sqrt()

        amplified = a.times(y, a.table(logarithm.value, lambda value: 1 / root(value), TABLE_BITS))
        level = self._level(a, self._log(a, noise_var), exact_log2(a, logarithm))
        return UnitPilots(
            a.roomy(amplified, self.inputs[0].size, bits), level, a.table(logarithm.value, root, TABLE_BITS)
        )

    def _power(self, a: ShapedArithmetic[V], y: Scaled[V], noise_var: Scaled[V]) -> Scaled[V]:
        """The power of the channel: that of the pilots less that of the noise, at least a share of either."""
        m = self.antennas * self.pilots
        total = a.within(a.summed(a.times(y, y), 1, 2 * m))
        measured = a.within(a.times(total, a.number(torch.tensor([1.0 / m]))), 29)
        noise_var = a.shifted(noise_var, measured.fraction)
        power = a.minus(measured, noise_var)
        for share, of in ((SMALLEST_SIGNAL_SHARE, measured), (SMALLEST_OVER_NOISE, noise_var)):
            least = a.shifted(a.times(of, a.number(torch.tensor([share]))), power.fraction)
            most = torch.tensor([math.ldexp(1.0, 30 - int(power.fraction[0]))])
            power = a.plus(power, a.clamped(a.minus(least, power), torch.zeros(1), most))
        return power

    def _log(self, a: ShapedArithmetic[V], power: Scaled[V]) -> Scaled[V]:
        return exact_log2(a, a.log2(power, OCTAVES, DIGITS))

    def _level(self, a: ShapedArithmetic[V], noise: Scaled[V], power: Scaled[V] | None) -> Scaled[V]:
        level = noise if power is None else a.minus(noise, power)
        return a.clamped(level, torch.tensor([LEAST_LEVEL]), torch.tensor([float(MOST_LEVEL)]))

    def _given(self, a: ShapedArithmetic[V], x: Scaled[V], pilots: UnitPilots[V]) -> Mapping[str, Scaled[V]]:
        """The estimate at the power of the channel."""
        if pilots.root is not None:
            x = a.times(x, pilots.root)
        return {"x_hat": a.output(x, "x_hat")}


def seen_over(
    a: ShapedArithmetic[V], power: Logarithm, level: Scaled[V], ends: tuple[float, float], function: Callable
) -> Scaled[V]:
    """A function of powers over a level, by one table; both are logarithms, the powers' linear within each octave."""
    beyond = power.beyond + LINEAR_LOGARITHM
    over = a.minus(power.value, level)
    low, high = (torch.tensor([end - power.beyond]) for end in ends)
    over = a.clamped(over, low, high)
    return a.table(over, lambda at: function(torch.exp2((at + beyond).clamp(ends[0] - 1, ends[1] + 1))), TABLE_BITS)


def exact_log2(a: ShapedArithmetic[V], logarithm: Logarithm) -> Scaled[V]:
    """Logarithms with the fraction of levels, by a table that knows where they are linear."""

    def exact(value: Tensor) -> Tensor:
        return power_of_two(value).log2() + logarithm.beyond

    return a.shifted(a.table(logarithm.value, exact, TABLE_BITS), np.array([LEVEL]))


def in_pairs(weights: Tensor) -> Tensor:
    """Weights `(2 n, columns)` whose rows are packed, with rows in pairs: real part, imaginary part."""
    return weights.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
