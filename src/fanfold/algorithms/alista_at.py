"""ALISTA whose threshold follows the residual of each sample. After Behrens, Sauder & Jung (2021), section 3."""

from dataclasses import dataclass

from torch.nn.functional import linear

from fanfold.algorithms.alista import analytic_matrix, safe_step
from fanfold.algorithms.base import FREE, POSITIVE, Algorithm, Nominal, positive
from fanfold.algorithms.lamp import level
from fanfold.algorithms.lista_cpss import State, select, selected
from fanfold.observation import Estimate


@dataclass(frozen=True)
class ALISTAAT(Algorithm):
    """ALISTA with the threshold `alpha ‖y - A x‖ / √m`: like AMP's it shrinks with the error, sample by sample.

    The paper's recurrent network reads step and threshold off the residual's norm; here one number a layer scales it.
    Scale-equivariant.
    """

    alpha: float = 1.0  # threshold, in root mean squares of the residual
    p: float = 0.0  # share of the entries that each step trusts more than the last; 0 trusts none
    p_max: float = 0.1  # largest share that is trusted

    nominals = {
        "W": Nominal(lambda alista, obs: analytic_matrix(obs.A), FREE, lr_scale=1.0),
        "step": Nominal(lambda alista, obs: safe_step(obs.A), POSITIVE),
        "alpha": Nominal(lambda alista, obs: alista.alpha, POSITIVE),
    }

    def __post_init__(self):
        positive(alpha=self.alpha, p_max=self.p_max)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), k=0)

    def step(self, s, obs, theta):
        A, k = obs.A, s.k + 1
        e = obs.y - A @ s.x
        r, t = s.x + theta.step * linear(e, theta.W), theta.alpha * level(e)
        return State(select(r, t, selected(self.p, self.p_max, k, A.n)), k)

    def read(self, s):
        return Estimate(s.x)
