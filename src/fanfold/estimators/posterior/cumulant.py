"""Cumulant functions as sums of ridge functions, with their derivatives written out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SIZES = (0.25, 0.5, 1.0, 2.0)  # deviations of what ridge functions are of, at the start
START = -2.0  # logarithm of the weights
OFFSET = 0.5  # deviation of the offsets
ROOT = 0.3  # of the quadratic part
LARGEST_EXPONENT = 15.0  # beyond which an exponential goes on as its largest value
LOAD, LOAD_SHARE = 1e-5, 1e-6  # that is added to a curvature, and of its diagonal: rounding leaves no inverse else


class Derivatives(NamedTuple):
    """Weights of the ridge functions in the first three derivatives, `(members, batch, waves)` each."""

    first: Tensor
    second: Tensor
    third: Tensor


class Squares(NamedTuple):
    """What slopes and curvatures take of a cumulant function, at whatever parameters."""

    outer: Tensor  # (members, waves, d * d), of directions with themselves
    square: Tensor  # (members, d, d), of Q


class Cumulant(NamedTuple):
    """`A(u) = Σ_k exp(v_k) ψ_k(a_kᵀ u + b_k) + |Q u|² / 2 + cᵀ u` of members side by side, convex for any numbers.

    Half of the ψ are exponentials, the others `log(1 + exp t)`: the cumulant functions of Poisson and of Bernoulli
    variables, sums of which are those of sums (McCullagh & Nelder, 1989, section 2.2). The quadratic part is that of
    Gaussian ones.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.cumulant import Cumulant
        >>> A = Cumulant.started(members=2, d=3, waves=8, seed=0)
        >>> u = torch.zeros(5, 3)
        >>> A.slope(u, A.derivatives(u), A.squares()).shape
        torch.Size([2, 5, 3])
    """

    a: Tensor  # (members, waves, d)
    b: Tensor  # (members, 1, waves)
    v: Tensor  # (members, 1, waves)
    Q: Tensor  # (members, d, d)
    c: Tensor  # (members, 1, d)

    @classmethod
    def started(cls, members: int, d: int, waves: int, seed: int) -> "Cumulant":
        """One for parameters `(batch, d)` of unit variance, before it is fitted."""
        generator = torch.Generator().manual_seed(seed)
        size = torch.tensor(SIZES)[torch.arange(waves) % len(SIZES), None] / math.sqrt(d)
        return cls(
            a=size * torch.randn(members, waves, d, generator=generator),
            b=OFFSET * torch.randn(members, 1, waves, generator=generator),
            v=torch.full((members, 1, waves), START),
            Q=ROOT * torch.eye(d).repeat(members, 1, 1),
            c=torch.zeros(members, 1, d),
        )

    @property
    def exponentials(self) -> int:
        """How many of the ridge functions are, the first ones."""
        return self.a.shape[1] // 2

    def times(self, scale: Tensor) -> "Cumulant":
        """The function times positive numbers, `(members, 1, 1)`."""
        return self._replace(v=self.v + scale.log(), Q=self.Q * scale.sqrt(), c=self.c * scale)

    def first_member(self) -> "Cumulant":
        """That of the first member alone."""
        return Cumulant(*(part[:1] for part in self))

    def derivatives(self, u: Tensor) -> Derivatives:
        """At parameters `(batch, d)` or `(members, batch, d)`."""
        at = torch.baddbmm(self.b, u.expand(len(self.a), *u.shape[-2:]), self.a.mT)
        exponent, logit = at[..., : self.exponentials], at[..., self.exponentials :]
        grown = exponent.clamp_max(LARGEST_EXPONENT).exp()
        share = torch.sigmoid(logit)
        spread, weight = share * (1 - share), self.v.exp()
        parts = (share, spread, spread * (1 - 2 * share))
        return Derivatives(*(weight * torch.cat([grown, part], -1) for part in parts))

    def squares(self) -> Squares:
        """What `slope` and `curvature` take."""
        outer = self.a.unsqueeze(-1) * self.a.unsqueeze(-2)
        return Squares(outer.flatten(-2), self.Q.mT @ self.Q)

    def slope(self, u: Tensor, at: Derivatives, squares: Squares) -> Tensor:
        """The gradient `(members, batch, d)`: the mean of the statistics given parameters."""
        return at.first @ self.a + u @ squares.square + self.c

    def curvature(self, at: Derivatives, squares: Squares) -> Tensor:
        """The Hessian `(members, batch, d, d)`: the covariance of the statistics given parameters."""
        d = self.a.shape[-1]
        identity = torch.eye(d, dtype=self.a.dtype, device=self.a.device)
        curvature = (at.second @ squares.outer).unflatten(-1, (d, d)) + squares.square.unsqueeze(1)
        return curvature * (1 + LOAD_SHARE * identity) + LOAD * identity

    def skewness(self, at: Derivatives, covariance: Tensor, squares: Squares) -> Tensor:
        """`Σ_jk A_ijk S_jk` of third derivatives and covariances `(members, batch, d, d)`: `(members, batch, d)`."""
        return (at.third * (covariance.flatten(-2) @ squares.outer.mT)) @ self.a

    def growth(self, step: Tensor) -> Tensor:
        """How much an exponent rises at most in steps `(members, batch, d)`: `(members, batch, 1)`."""
        return (step @ self.a[:, : self.exponentials].mT).amax(-1, keepdim=True)
