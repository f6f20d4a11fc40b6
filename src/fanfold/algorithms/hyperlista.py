"""HyperLISTA. Chen, Liu, Wang & Yin (2021), section 4: ALISTA with momentum, all of it from three numbers."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fanfold.algorithms.alista import analytic_matrix
from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive
from fanfold.observation import Estimate
from fanfold.shrinkage import soft


class State(NamedTuple):
    """The state of HyperLISTA."""

    x: Tensor  # (..., n) estimate
    before: Tensor  # (..., n) the estimate before


def select(r: Tensor, t: Tensor, count: Tensor) -> Tensor:
    """The soft threshold that leaves the `count` largest entries as they are, where they exceed `t`.

    `count` `(..., 1)` need not be whole: the entry at its edge goes part of the way, so that the count can learn.
    """
    magnitude = r.abs()
    ranked = magnitude.detach().sort(-1, descending=True)[0]
    ranked = torch.cat([torch.full_like(ranked[..., :1], torch.inf), ranked], -1)
    count = count.clamp(0, r.shape[-1] - 1)
    whole = count.detach().floor()
    inner, outer = ranked.gather(-1, whole.long()), ranked.gather(-1, whole.long() + 1)
    share = torch.where(magnitude >= inner, torch.ones_like(count), (count - whole) * (magnitude >= outer))
    return torch.lerp(soft(r, t), r, (share * (magnitude > t)).to(r.dtype))


@dataclass(frozen=True)
class HyperLISTA(Algorithm):
    """ALISTA that reads threshold, momentum and support off each sample's residual; three numbers are tuned.

    With `e = mean |W (y - A x)|` the threshold is `c1 e`, the momentum `c2` times the share of x that is not zero, and
    the share of trusted entries `c3 log(e at x = 0 / e)`; the numbers take in the paper's mutual coherence. A search
    finds them without backpropagation; they may also be learned. It is scale-equivariant.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.HyperLISTA(), 100)(obs).x, x) < -35
        True
    """

    c1: float = 2.0  # threshold, in mean magnitudes of the corrected residual
    c2: float = 1.0  # momentum, in shares of x that are not zero
    c3: float = 0.02  # share of trusted entries, for each factor e by which the residual has fallen

    one_matrix = True
    nominals = {
        "c1": Nominal(lambda hyper, obs: hyper.c1, POSITIVE),
        "c2": Nominal(lambda hyper, obs: hyper.c2, POSITIVE, vector=False),
        "c3": Nominal(lambda hyper, obs: hyper.c3, POSITIVE, vector=False),
    }

    def __post_init__(self):
        positive(c1=self.c1, c2=self.c2, c3=self.c3)

    def start(self, obs):
        x = obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n))
        return State(x=x, before=x)

    def step(self, s, obs, theta):
        A, y, W, seen = obs.A, obs.y, analytic_matrix(obs.A), obs.A.seen()
        towards = linear(y - A @ s.x, W)
        e, first = (seen.mean(v.abs()).clamp_min(torch.finfo(A.dtype).tiny) for v in (towards, linear(y, W)))
        active = seen.mean((s.x.abs() > 0).to(e.dtype))
        r = s.x + towards + theta.c2 * active * (s.x - s.before)
        return State(select(r, theta.c1 * e, theta.c3 * torch.log(first / e) * seen.count), s.x)

    def read(self, s):
        return Estimate(s.x)
