"""LISTA-CP. Chen, Liu, Wang & Yin (2018), eq. 12: x ← soft(x + W (y - A x), threshold)."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, positive
from fanfold.algorithms.lista import input_matrix
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


class State(NamedTuple):
    """The state of LISTA-CP."""

    x: Tensor  # (..., n) estimate


@dataclass(frozen=True)
class LISTACP(Algorithm):
    """LISTA with its weights coupled, `W2 = I - W1 A`, which every LISTA that recovers x ends up with.

    It has one matrix `W` of shape `(n, m)` a layer instead of two; untrained it is ISTA to rounding. It is not
    scale-equivariant: `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=200, m=100)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 16, {"W": "tied", "threshold": "per-layer"})
        >>> net.deviations["W"].shape
        torch.Size([1, 200, 100])
    """

    lam: float = 0.1  # weight of the l1 norm

    one_matrix = True
    nominals = {
        "W": Nominal(lambda lista, obs: input_matrix(obs.A), FREE, lr_scale=1.0),
        "threshold": Nominal(lambda lista, obs: lista.lam * obs.A.norm() ** -2, POSITIVE),
    }

    def __post_init__(self):
        positive(lam=self.lam)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r = s.x + linear(y - A @ s.x, theta.W)
        return State(x=soft(r, theta.threshold))

    def read(self, s):
        return Estimate(s.x)
