"""LISTA. Gregor & LeCun (2010), section 3: x ← soft(W1 y + W2 x, threshold)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, positive
from fanfold.algorithms.ista import State
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


def input_matrix(A: LinearOperator) -> Tensor:
    """The matrix `W1 = Aᴴ / L` of ISTA, `(n, m)`."""
    return A.once("lista.W1", lambda: A.matrix().mH / A.norm() ** 2)


def recurrent_matrix(A: LinearOperator) -> Tensor:
    """The matrix `W2 = I - AᴴA / L` of ISTA, `(n, n)`."""
    identity = torch.eye(A.n, dtype=A.dtype, device=A.device)
    return A.once("lista.W2", lambda: identity - input_matrix(A) @ A.matrix())


@dataclass(frozen=True)
class LISTA(Algorithm):
    """ISTA with its two matrices written out, so that they can be learned; untrained it is ISTA to rounding.

    `W1` is `(n, m)` and `W2` is `(n, n)`: with one pair a layer, `n (n + m) + 1` parameters each.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=200, m=100)
        >>> net = ff.unfold(ff.algorithms.LISTA(), problem, 16, {"W1": "tied", "threshold": "per-layer"})
        >>> net.deviations["W1"].shape
        torch.Size([1, 200, 100])
    """

    lam: float = 0.1  # weight of the l1 norm

    one_matrix = True
    nominals = {
        "W1": Nominal(lambda lista, obs: input_matrix(obs.A), FREE, lr_scale=1.0),
        "W2": Nominal(lambda lista, obs: recurrent_matrix(obs.A), FREE, lr_scale=1.0),
        "threshold": Nominal(lambda lista, obs: lista.lam * obs.A.norm() ** -2, POSITIVE),
    }

    def __post_init__(self):
        positive(lam=self.lam)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        r = linear(obs.y, theta.W1) + linear(s.x, theta.W2)
        return State(x=soft(r, theta.threshold))

    def read(self, s):
        return Estimate(s.x)
