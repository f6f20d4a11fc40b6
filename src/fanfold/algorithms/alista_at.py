"""ALISTA with adaptive thresholds. Li, Wu, Guo & Zhang (2021); firm shrinkage: Gao & Bruce (1997)."""

from dataclasses import dataclass

import torch

from fanfold.algorithms.amp import refuse_other_columns
from fanfold.algorithms.base import POSITIVE, UNIT, Algorithm, Nominal, positive
from fanfold.algorithms.ista import State
from fanfold.core.units import power, rms
from fanfold.observation import Estimate
from fanfold.shrinkage import firm


@dataclass(frozen=True)
class ALISTAAT(Algorithm):
    """ALISTA with thresholds `alpha ‖y - A x‖ / √m`, which shrink with each sample's error, and firm shrinkage.

    Firm shrinkage selects the support by magnitude. The matrix is `argmin ‖W A‖_F² + ridge ‖W‖_F²` with `(W A)_ii = 1`:
    ALISTA's where the ridge is zero, the matched filter where it is large, which lets less noise in. It is
    scale-equivariant.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.ALISTAAT(), 100)(obs).x, x) < -40
        True
    """

    alpha: float = 2.5  # threshold, in root mean squares of the residual
    concavity: float = 0.5  # entries above 1 / concavity thresholds pass unshrunk; below 1
    ridge: float = 1.0  # noise against interference, in squares of A's singular values; 0 for no noise

    one_matrix = by_svd = True
    nominals = {
        "step": Nominal(lambda alista, obs: 1.0, POSITIVE),
        "alpha": Nominal(lambda alista, obs: alista.alpha, POSITIVE),
        "concavity": Nominal(lambda alista, obs: alista.concavity, UNIT),
        "ridge": Nominal(lambda alista, obs: alista.ridge, POSITIVE, vector=False),
    }

    def __post_init__(self):
        positive(alpha=self.alpha, concavity=self.concavity)

    def start(self, obs):
        refuse_other_columns(obs.A, "ALISTAAT")
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        A, (U, d, V) = obs.A, obs.A.svd()
        e, w = obs.y - A @ s.x, d / (d**2 + theta.ridge)
        diagonal = torch.mv(A.once("alista.V2", lambda: power(V.matrix())), w * d)  # of V diag(w) Uᴴ A
        r = s.x + theta.step * (V @ (w * (U.H @ e))) / A.seen().only(diagonal, 1)
        return State(firm(r, theta.alpha * rms(e), theta.concavity))

    def read(self, s):
        return Estimate(s.x)
