"""AMP. Donoho, Maleki & Montanari (2009), eqs. 1-2; complex: Maleki, Anitori, Yang & Baraniuk (2013)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.algorithms.base import POSITIVE, Algorithm, Nominal, positive
from fanfold.core.units import power, rms
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate
from fanfold.shrinkage import soft, soft_divergence


def refuse_other_columns(A: LinearOperator, who: str) -> None:
    """Refuse columns that are far from unit norm; nothing is refused while a graph is traced.

    Raises:
        ValueError: Says how long they are and what to do.
    """
    if torch.compiler.is_compiling():
        return
    length = A.once("column length", lambda: (power(A.probed()).sum(-1) / A.n).sqrt().max().item())
    if not 1e-3 < length < 1e3:
        raise ValueError(
            f"{who} takes columns of unit norm, and those of {A} have about {length:.0e}; divide A and y by that (x "
            "stays as it is), or take OAMP or GAMP."
        )


class State(NamedTuple):
    """The state of AMP."""

    x: Tensor  # (..., n) estimate
    v: Tensor  # (..., m) corrected residual


@dataclass(frozen=True)
class AMP(Algorithm):
    """Approximate message passing with a soft threshold, for `y = A x + w` with iid A and unit columns.

    It is scale-equivariant: the threshold follows the residual. It diverges where A is far from iid, already at a
    condition number of 5.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=200, m=100).sample(8, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(ff.iterate(ff.algorithms.AMP(), 100)(obs).x, x) < -30
        True
    """

    alpha: float = 1.5  # threshold, in standard deviations of the effective noise

    nominals = {"alpha": Nominal(lambda amp, obs: amp.alpha, POSITIVE)}

    def __post_init__(self):
        positive(alpha=self.alpha)

    def start(self, obs):
        refuse_other_columns(obs.A, "AMP")
        return State(x=obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)), v=obs.y)

    def step(self, s, obs, theta):
        A, y = obs.A, obs.y
        r, t = s.x + A.H @ s.v, theta.alpha * rms(s.v)
        x = soft(r, t)
        return State(x, y - A @ x + s.v * soft_divergence(r, t) * A.n / A.m)  # Onsager

    def read(self, s):
        return Estimate(s.x)
