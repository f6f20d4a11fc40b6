"""Estimators whose every layer is in one estimate, so that one exported program is a whole curve."""

import copy

import torch
from torch import nn

from fanfold.core.abilities import ability
from fanfold.estimators.base import WithTrajectory
from fanfold.estimators.ofdm.beam_delay import BeamDelayNetwork
from fanfold.observation import Estimate, Estimator, Observation


class WholeCurve(nn.Module):
    """An estimator whose estimate is that of every layer, one after the other, `(batch, layers · n)`.

    An estimator without layers gives its one estimate.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.report.figure.worlds.whole_curve import WholeCurve
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> WholeCurve(ff.iterate(ff.algorithms.ISTA(), 3))(obs).x.shape
        torch.Size([8, 120])
    """

    def __init__(self, estimator: Estimator):
        super().__init__()
        self.estimator = estimator

    def forward(self, obs: Observation) -> Estimate:
        """The estimates of all layers."""
        layered = ability(self.estimator, WithTrajectory)
        estimates = [self.estimator(obs)] if layered is None else layered.trajectory(obs)
        return Estimate(torch.cat([estimate.x for estimate in estimates], -1))


class ByDepth(nn.Module):
    """A channel network with so many steps of its algorithm as there may be, one network a depth.

    Its way back from beams and delays is the last layer's; what an earlier layer holds goes the same way.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.report.figure.worlds.whole_curve import ByDepth
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> net = ff.estimators.ofdm.OAMPSettings(iterations=2, beams=16, modes=4).build(problem)
        >>> obs = problem.sample(3, torch.Generator().manual_seed(0))[1]
        >>> len(ByDepth(net).trajectory(obs))
        2
    """

    def __init__(self, net: BeamDelayNetwork):
        super().__init__()
        self.depths = nn.ModuleList()
        for depth in range(1, net.within.layers + 1):
            shallow = copy.deepcopy(net)
            shallow.within.layers = depth
            self.depths.append(shallow)

    def forward(self, obs: Observation) -> Estimate:
        """The estimate of the last layer."""
        return self.depths[-1](obs)

    def trajectory(self, obs: Observation) -> list[Estimate]:
        """The estimate of each layer."""
        return [net(obs) for net in self.depths]
