"""What channel networks on the grid share in whole numbers: the separable LMMSE filter.

Its gains, `d / (d + noise_var)` in each beam and mode, are a table over `log2 d - log2 noise_var`.
"""

import math
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from fanfold.core.complex_pairs import from_right
from fanfold.estimators.fixed_point.pilot_front import LEVEL, SURE, TABLE_BITS, PilotFront, UnitPilots
from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.estimators.ofdm.grid_network import CorrectedLMMSE

V = TypeVar("V")


class Filtered(NamedTuple, Generic[V]):
    """What LMMSE makes of pilots.

    Example:
        >>> from fanfold.estimators.fixed_point.grid_front import Filtered
        >>> Filtered("z", "c")._fields
        ('z', 'beams')
    """

    z: Scaled[V]  # (antennas, 2, modes): delay modes of the pilots
    beams: Scaled[V]  # (modes, 2, beams): these in the covariance's directions over antennas, with their gains


class GridFront(PilotFront):
    """The ports and the LMMSE filter of a channel network on the grid, in whole numbers.

    Args:
        network: The network.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.estimators.fixed_point.grid_front import GridFront
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> GridFront(ff.estimators.ofdm.BeamMixer.of(problem)).inputs[0].shape
        (192, 2)
    """

    def __init__(self, network: CorrectedLMMSE):
        super().__init__(network.front_end, network.entries)
        self.grid = network

    def _filtered(self, a: ShapedArithmetic[V], pilots: UnitPilots[V]) -> Filtered[V]:
        """Delay modes, their beams, and the gains of LMMSE."""
        net = self.grid
        (antennas, modes), fine = (net.antennas, net.modes), self._fine(a)
        to_modes = from_right(net.to_modes).mT.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
        z = a.linear(pilots.y, to_modes, outer=antennas, bits=fine.weights)
        z = a.narrowed_along(z, (antennas, 2, modes), (2,), fine.activations)
        turned = a.moved(z, (antennas, 2, modes), (2, 1, 0))
        beams = a.linear(turned, from_right(net.beams).mT, outer=modes, bits=fine.weights)
        beams = a.narrowed_along(beams, (modes, 2, antennas), (0,), TABLE_BITS)
        d = net.mode_var[:, None, None] * net.beam_var.expand(2, -1)
        gained = self._gained(a, beams, d, pilots.level)
        return Filtered(z, a.narrowed_along(gained, (modes, 2, antennas), (0,), fine.activations))

    def _gained(self, a: ShapedArithmetic[V], c: Scaled[V], d: Tensor, level: Scaled[V]) -> Scaled[V]:
        """`c d / (d + noise_var)`, entry by entry."""
        of_signal = a.number_at(d.double().clamp_min(2.0**-30).log2(), LEVEL)
        end = torch.tensor([float(SURE)])
        over_noise = a.clamped(a.minus(of_signal, level), -end, end)
        return a.times(c, a.table(over_noise, lambda at: torch.sigmoid(at * math.log(2)), TABLE_BITS - 1))

    def _to_grid(self) -> Tensor:
        """From modes with these gains to the grid, packed `(2 entries, 2 modes)`."""
        net = self.grid
        return (from_right(net.from_modes) / net.mode_var.clamp_min(1e-9).repeat(2)[:, None]).mT
