"""LAMP. Borgerding, Schniter & Rangan (2017), section III: AMP whose matrix, threshold and gain are learned."""

from dataclasses import dataclass

from torch.nn.functional import linear

from fanfold.algorithms.amp import State, refuse_other_columns
from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, positive
from fanfold.core.units import rms
from fanfold.observation import Estimate
from fanfold.shrinkage import soft, soft_divergence


@dataclass(frozen=True)
class LAMP(Algorithm):
    """AMP with a matrix to learn: `x ← beta soft(x + B v, alpha ‖v‖ / √m)`; untrained it is AMP.

    `B` of shape `(n, m)`, one a layer, adapts AMP to matrices that are not quite iid. It is scale-equivariant.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=200, m=100)
        >>> net = ff.unfold(ff.algorithms.LAMP(), problem, 10, {"B": "tied", "beta": "per-layer"})
        >>> net.deviations["B"].shape
        torch.Size([1, 200, 100])
    """

    alpha: float = 1.5  # threshold, in standard deviations of the effective noise

    one_matrix = True
    nominals = {
        "B": Nominal(
            lambda lamp, obs: obs.A.once("lamp.B", lambda: obs.A.matrix().mH.resolve_conj()), FREE, lr_scale=1.0
        ),
        "alpha": Nominal(lambda lamp, obs: lamp.alpha, POSITIVE),
        "beta": Nominal(lambda lamp, obs: 1.0, POSITIVE, vector=False),
    }

    def __post_init__(self):
        positive(alpha=self.alpha)

    def start(self, obs):
        refuse_other_columns(obs.A, "LAMP")
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), v=obs.y)

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r, t = s.x + linear(s.v, theta.B), theta.alpha * rms(s.v)
        x = theta.beta * soft(r, t)
        return State(x, y - A @ x + s.v * (theta.beta * soft_divergence(r, t)) * A.n / A.m)  # Onsager

    def read(self, s):
        return Estimate(s.x)
