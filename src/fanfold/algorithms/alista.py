"""ALISTA. Liu, Chen, Wang & Yin (2019), section 3: x ← soft(x + step W (y - A x), threshold), W from A alone."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, positive
from fanfold.algorithms.lista_cpss import State, select, selected
from fanfold.core.precision import double
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate


def analytic_matrix(A: LinearOperator) -> Tensor:
    """The matrix `argmin ‖W A‖_F` with `(W A)_ii = 1`, `(n, m)`: the rows of the pseudo-inverse, scaled.

    Rows of unknowns that A does not see are zero.
    """

    def closed_form() -> Tensor:
        matrix = A.matrix().to(double(A.dtype))
        inverse, seen = torch.linalg.pinv(matrix), A.seen()
        diagonal = seen.only((inverse * matrix.mT).sum(-1), 1)
        return seen.only((inverse / diagonal[:, None]).mT, 0).mT.to(A.dtype)

    return A.once("alista.W", closed_form)


def safe_step(A: LinearOperator) -> float:
    """The step `1 / ‖W A‖`, with which the untrained iteration converges."""
    return A.once("alista.step", lambda: 1 / torch.linalg.matrix_norm(analytic_matrix(A) @ A.matrix(), 2).item())


@dataclass(frozen=True)
class ALISTA(Algorithm):
    """LISTA that learns two numbers a layer, a step and a threshold; its matrix follows from A in closed form.

    With `p` above zero the largest entries pass unshrunk, as in LISTA-CPSS. It is not scale-equivariant: `lam` is in
    the units of x.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.ALISTA(), 100)(obs).x, x) < -15
        True
    """

    lam: float = 0.1  # threshold at a step of one
    p: float = 0.0  # share of the entries that each step trusts more than the last; 0 trusts none
    p_max: float = 0.1  # largest share that is trusted

    one_matrix = True
    nominals = {
        "W": Nominal(lambda alista, obs: analytic_matrix(obs.A), FREE, lr_scale=1.0),
        "step": Nominal(lambda alista, obs: safe_step(obs.A), POSITIVE),
        "threshold": Nominal(lambda alista, obs: alista.lam * safe_step(obs.A), POSITIVE),
    }

    def __post_init__(self):
        positive(lam=self.lam, p_max=self.p_max)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), k=0)

    def step(self, s, obs, theta):
        A, y, k = obs.A, obs.y, s.k + 1
        r = s.x + theta.step * linear(y - A @ s.x, theta.W)
        return State(select(r, theta.threshold, selected(self.p, self.p_max, k, A.seen().count)), k)

    def read(self, s):
        return Estimate(s.x)
