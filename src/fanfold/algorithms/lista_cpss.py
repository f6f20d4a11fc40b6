"""LISTA-CPSS. Chen, Liu, Wang & Yin (2018), section 3: LISTA-CP with support selection."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.base import Algorithm, positive
from fanfold.algorithms.lista_cp import LISTACP
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


class State(NamedTuple):
    """The state of an algorithm that selects supports."""

    x: Tensor  # (..., n) estimate
    k: int  # steps taken


def select(r: Tensor, t: Tensor, count: int) -> Tensor:
    """The soft threshold that leaves the `count` largest entries as they are, where they exceed `t`."""
    if count == 0:
        return soft(r, t)
    magnitude = r.abs()
    smallest = magnitude.detach().topk(count).values[..., -1:]  # of the selected
    return torch.where((magnitude >= smallest) & (magnitude > t), r, soft(r, t))


def selected(p: float, p_max: float, k: int, n: int) -> int:
    """The number of entries that step k leaves alone: `min(p k, p_max) n`."""
    return round(min(p * k, p_max) * n)


@dataclass(frozen=True)
class LISTACPSS(Algorithm):
    """LISTA-CP whose largest entries pass the threshold unshrunk, as they are surely not zero.

    Step k trusts `min(p k, p_max) n` entries; untrained it is ISTA that debiases them. Choose `p_max` a little above
    the share of non-zeros. It is not scale-equivariant: `lam` is in units of `Aᴴy`.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.LISTACPSS(), 100)(obs).x, x) < -20
        True
    """

    lam: float = 0.1  # weight of the l1 norm
    p: float = 0.01  # share of the entries that each step trusts more than the last
    p_max: float = 0.1  # largest share that is trusted

    one_matrix = True
    nominals = LISTACP.nominals

    def __post_init__(self):
        positive(lam=self.lam, p=self.p, p_max=self.p_max)

    def start(self, obs):
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), k=0)

    def step(self, s, obs, theta):
        A, y, k = obs.A, obs.y, s.k + 1
        r = s.x + linear(y - A @ s.x, theta.W)
        return State(select(r, theta.threshold, selected(self.p, self.p_max, k, A.seen().count)), k)

    def read(self, s):
        return Estimate(s.x)
