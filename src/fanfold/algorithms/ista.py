"""ISTA. Daubechies, Defrise & De Mol (2004); Beck & Teboulle (2009), eq. 1.4."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


class State(NamedTuple):
    """The state of an algorithm without memory."""

    x: Tensor  # (..., n) estimate


@dataclass(frozen=True)
class ISTA(Algorithm):
    """Iterative soft thresholding for `min ½‖y - A x‖² + lam ‖x‖₁`, real or complex.

    Steps of `1 / L` with `L = ‖A‖²` converge for every A, slowly. It is not scale-equivariant: `lam` is in units of
    `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.ISTA(), 300)(obs).x, x) < -15
        True
    """

    lam: float = 0.1  # weight of the l1 norm

    nominals = {
        "step": Nominal(lambda ista, obs: obs.A.norm() ** -2, POSITIVE),
        "threshold": Nominal(lambda ista, obs: ista.lam * obs.A.norm() ** -2, POSITIVE),
    }

    def __post_init__(self):
        positive(lam=self.lam)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r = s.x + theta.step * (A.H @ (y - A @ s.x))
        return State(x=soft(r, theta.threshold))

    def read(self, s):
        return Estimate(s.x)
