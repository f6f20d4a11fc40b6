"""A natural exponential family of measurements given parameters, fitted to draws, and the posterior that it gives."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.cumulant import Cumulant, Squares
from fanfold.estimators.posterior.features import Features

WAVES = 128  # ridge functions of a cumulant function
MOST_STEPS, MEMBER_STEPS = 4000, 5000  # of a fit: of each member, and of all together
BATCH, RATE = 256, 0.1
SCOUT_STEPS = 100  # after which a single member tells whether the others are worth their time
STATISTICS_RATE = 0.5  # of the rate, times the mean size of the entries
WARM_UP = 0.1  # of the steps
CLIP = 10.0  # the norm of a member's gradient
FREEDOM = 8.0  # degrees of freedom of the law that it is fitted by
NEAREST = 3.0  # precision of the weights of draws about the centre of the parameters, at most
DRAWS_A_TERM = 3.0  # of a local fit, effective ones
FEWEST_DRAWS, MOST_MEASUREMENTS, MOST_PARAMETERS = 500, 256, 32
PRIOR_LOAD = 1e-9  # of the variances of the parameters, that is added to them
NIL = 1e-6  # of the largest variance of the noise, that others are at least
BEYOND = 10.0  # times the range of the measurements, that one may lie beyond it
STEPS, SHARED_STEPS = 8, 5  # of Newton, and how many of them the first member takes for all
LEAST_GROWTH = 1e-6  # of exponents, below which a step is whole


def may_be_of_family(features: Features, d: int) -> bool:
    """Whether an observation is a vector of no fewer numbers than parameters, and both are few."""
    return features.kind == "vector" and d <= MOST_PARAMETERS and d <= features.mean.numel() <= MOST_MEASUREMENTS


class ExponentialFamily(nn.Module):
    """`p(y | u) = h(y) exp(uᵀ Cᵀ y - A(u))` by a learned C and a learned convex A, and the posterior mean of u.

    Generalised linear models with their canonical link are of this form, whatever the number of their rows, as long as
    y holds their sufficient statistics linearly (McCullagh & Nelder, 1989, section 2.2). As mean and covariance of
    `Cᵀ y` given u are gradient and Hessian of A, few draws tell A. The fit is that of quasi-likelihood (Wedderburn,
    1974), by Student's law in place of the Gaussian, as single draws may be far. The prior counts as a Gaussian. The
    mode of the posterior is found by Newton's method, damped where exponentials grow (Bach, 2010, "Self-concordant
    analysis for logistic regression"), and its mean to third order by Laplace's method (Tierney & Kadane, 1986).

    Members are fitted to all draws but a fold each.

    Args:
        m: The number of measurements.
        d: The number of parameters.
        members: The number of families.
        seed: The seed of the start.
        dtype: The precision.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.exponential_family import ExponentialFamily
        >>> family = ExponentialFamily(m=4, d=3, members=2, seed=0)
        >>> [part.shape for part in family(torch.ones(5, 4))]
        [torch.Size([2, 5, 3]), torch.Size([2, 5, 3])]
    """

    C: Tensor
    centre: Tensor
    root: Tensor
    middle: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, m: int, d: int, members: int, seed: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.seed, self.members = seed, members
        self.register_buffer("C", torch.zeros(members, m, d))
        for name, part in zip(Cumulant._fields, Cumulant.started(members, d, WAVES, seed)):
            self.register_buffer(name, part)
        for name, start in (("centre", torch.zeros(d)), ("root", torch.eye(d))):  # of the parameters
            self.register_buffer(name, start)
        for name in ("middle", "unit", "low", "high"):  # of the measurements, the last two in these units
            self.register_buffer(name, torch.full((m,), float(name == "unit")))
        self.to(dtype)

    @property
    def cumulant(self) -> Cumulant:
        """A, of parameters of unit covariance."""
        return Cumulant(*(self.get_buffer(name) for name in Cumulant._fields))

    def cost(self) -> int:
        """The number of weights that an answer multiplies by."""
        d = len(self.centre)
        of_step = WAVES * d * (d + 3)
        return self.C.numel() + (SHARED_STEPS + self.members * (STEPS - SHARED_STEPS)) * of_step

    def standardise(self, y: Tensor, u: Tensor) -> None:
        """Take the moments of parameters `(draws, d)` and the range of measurements `(draws, m)`, double each."""
        covariance = torch.cov(u.mT).reshape(u.shape[1], -1)
        self.centre.copy_(u.mean(0))
        self.root.copy_(torch.linalg.cholesky(covariance + PRIOR_LOAD * covariance.diagonal().diag_embed()))
        middle = y.median(0).values
        unit = (y - middle).abs().median(0).values  # of most of them: heavy tails would tell of themselves alone
        spread = y.std(0)
        unit = torch.where(unit > NIL * spread, unit, torch.where(spread > 0, spread, 1.0))
        self.middle.copy_(middle)
        self.unit.copy_(unit)
        y = (y - middle) / unit
        margin = BEYOND * (y.amax(0) - y.amin(0))
        self.low.copy_(y.amin(0) - margin)
        self.high.copy_(y.amax(0) + margin)

    def scout(self, y: Tensor, u: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, as `fit` gives them, of the first fold by a member that is fitted for a short while."""
        return self._left_out(y, fold, *self._fitted(y, u, fold, 1, SCOUT_STEPS))

    def fit(self, y: Tensor, u: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        """Fit each member to the draws that are not of its fold.

        Args:
            y: Measurements `(draws, m)`, double.
            u: Parameters `(draws, d)` on their unbounded scale, double.
            fold: That of each draw, `(draws,)`.

        Returns:
            Mean and variance of the parameters by the member that left a draw out, `(draws, d)` each; NaN where none
            did.
        """
        steps = min(MOST_STEPS, max(SCOUT_STEPS, MEMBER_STEPS // self.members))
        C, A = self._fitted(y, u, fold, self.members, steps)
        self.C.copy_(C)
        for name, part in zip(Cumulant._fields, A):
            self.get_buffer(name).copy_(part)
        return self._left_out(y, fold, C, A)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each parameter on its unbounded scale, `(members, batch, d)` each, of `(batch, m)`.

        Measurements of their own for each member, `(members, batch, m)`, are looked at by each member alone.
        """
        return self._posterior(self._seen(y), self.C, self.cumulant)

    def _seen(self, y: Tensor) -> Tensor:
        y = (y.to(self.middle.dtype) - self.middle) / self.unit
        return torch.minimum(torch.maximum(y, self.low), self.high)

    def _whitened(self, u: Tensor) -> Tensor:
        away = (u - self.centre).mT.to(self.root.dtype)
        return torch.linalg.solve_triangular(self.root, away, upper=False).mT

    def _posterior(self, y: Tensor, C: Tensor, A: Cumulant) -> tuple[Tensor, Tensor]:
        """Means and variances, by Newton's method from the mean of the prior."""
        s = y @ C
        identity = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)

        def step(a: Tensor, A: Cumulant, s: Tensor, squares: Squares) -> Tensor:
            at = A.derivatives(a)
            uphill = s - A.slope(a, at, squares) - a
            change = (torch.linalg.inv(A.curvature(at, squares) + identity) @ uphill.unsqueeze(-1)).squeeze(-1)
            growth = A.growth(change).clamp_min(LEAST_GROWTH)
            return a + change * (torch.log1p(growth) / growth)

        squares, shared = A.squares(), SHARED_STEPS if y.ndim == 2 else 0
        a = torch.zeros_like(s[:1] if shared else s)
        for _ in range(shared):
            a = step(a, A.first_member(), s[:1], Squares(*(part[:1] for part in squares)))
        a = a.expand_as(s)
        for _ in range(STEPS - shared):
            a = step(a, A, s, squares)
        at = A.derivatives(a)
        covariance = torch.linalg.inv(A.curvature(at, squares) + identity)
        a = a - 0.5 * (covariance @ A.skewness(at, covariance, squares).unsqueeze(-1)).squeeze(-1)
        var = ((self.root @ covariance) * self.root).sum(-1)
        return self.centre + a @ self.root.mT, var

    def _left_out(self, y: Tensor, fold: Tensor, C: Tensor, A: Cumulant) -> tuple[Tensor, Tensor]:
        y = self._seen(y)
        mean, var = (y.new_full((len(y), len(self.centre)), torch.nan) for _ in range(2))
        for member in range(len(C)):
            mine, alone = fold == member, slice(member, member + 1)
            said = self._posterior(y[mine], C[alone], Cumulant(*(part[alone] for part in A)))
            mean[mine], var[mine] = (part[0] for part in said)
        return mean, var

    def _fitted(self, y: Tensor, u: Tensor, fold: Tensor, members: int, steps: int) -> tuple[Tensor, Cumulant]:
        """C and A of members that are each fitted to the draws that are not of their fold, by Adam."""
        y, a = self._seen(y), self._whitened(u)
        rows = [(fold != member).nonzero().squeeze(1) for member in range(members)]
        d = a.shape[1]
        T, start = _local_statistics(y.double(), a.double())
        s = y @ T.to(y)
        unit = s.abs().median(0).values
        unit = torch.where(unit > 0, unit, 1.0)
        s, start = s / unit, start.to(s) * unit[:, None]
        A = Cumulant(*(part.to(s) for part in Cumulant.started(members, d, WAVES, self.seed)))
        learned = Cumulant(*(part.requires_grad_() for part in A))
        C = start.repeat(members, 1, 1).requires_grad_()
        scale = s.new_zeros(members, 1, 1).requires_grad_()  # logarithm, of C and A together
        slower = STATISTICS_RATE * start.abs().mean().item()
        groups: list[dict[str, Any]] = [
            {"params": [*learned, scale], "lr": RATE},
            {"params": [C], "lr": RATE * slower},
        ]
        optimiser = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [group["lr"] for group in groups], total_steps=steps, pct_start=WARM_UP
        )
        generator = torch.Generator().manual_seed(self.seed)
        with torch.enable_grad():
            for _ in range(steps):
                at = torch.stack([own[torch.randint(len(own), (BATCH,), generator=generator)] for own in rows])
                loss = _quasi_likelihood(s[at], a[at], C, learned, scale).mean(1).sum()
                optimiser.zero_grad()
                loss.backward()
                if nn.utils.clip_grad_norm_([*learned, scale, C], CLIP * members**0.5).isfinite():
                    optimiser.step()
                    schedule.step()
        with torch.no_grad():
            together = scale.exp()
            return T.to(y) / unit @ C * together, learned.times(together)


def _quasi_likelihood(s: Tensor, a: Tensor, C: Tensor, A: Cumulant, scale: Tensor) -> Tensor:
    """Minus the logarithm of Student's law of statistics `(members, batch, d)` given parameters, `(members, batch)`."""
    d, at, squares = s.shape[-1], A.derivatives(a), A.squares()
    L = torch.linalg.cholesky_ex(A.curvature(at, squares)).L  # no numbers where there is none
    white = torch.linalg.solve_triangular(L, (s @ C - A.slope(a, at, squares)).unsqueeze(-1), upper=False).squeeze(-1)
    log_scale = scale.squeeze(-1)
    distance = white.square().sum(-1) * log_scale.exp()
    volume = torch.linalg.slogdet(C).logabsdet[:, None] + d / 2 * log_scale
    return L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - volume + (FREEDOM + d) / 2 * torch.log1p(distance / FREEDOM)


def _local_statistics(y: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics with white noise near the centre of the parameters, and their slopes there.

    A quadratic fit, weighed about the centre, tells slopes and noise; slopes over the noise's covariance are C.

    Args:
        y: Measurements `(draws, m)`.
        a: Parameters of unit covariance, `(draws, d)`.

    Returns:
        A map `(m, d)` from measurements to statistics, and `(d, d)`, by which these are `Cᵀ y`.
    """
    d = a.shape[1]
    pairs = list(itertools.combinations_with_replacement(range(d), 2))
    first, second = torch.tensor(pairs, device=a.device).mT
    terms = torch.cat([torch.ones_like(a[:, :1]), a, a[:, first] * a[:, second]], 1)
    weights = _about_centre(a, DRAWS_A_TERM * terms.shape[1]).unsqueeze(-1)
    gram = terms.mT @ (weights * terms)
    gram = gram + NIL * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    fit = torch.linalg.solve(gram, terms.mT @ (weights * y))
    left = y - terms @ fit
    values, V = torch.linalg.eigh(left.mT @ (weights * left) / weights.sum())
    values = values.clamp_min(NIL * values[-1]).clamp_min(torch.finfo(y.dtype).tiny)
    white = V / values.sqrt() @ V.mT
    U, sizes, turned = torch.linalg.svd(white @ fit[1 : d + 1].mT, full_matrices=False)
    sizes = sizes.clamp_min(NIL * sizes[0]).clamp_min(torch.finfo(y.dtype).tiny)
    return white @ U, sizes[:, None] * turned


def _about_centre(a: Tensor, wanted: float) -> Tensor:
    """Weights `(draws,)` of draws, the nearer the centre the larger, that leave so many effective ones."""
    distances, precision = a.square().sum(-1), NEAREST
    while True:
        weights = (-0.5 * precision * distances).exp()
        if precision < NIL or weights.sum().square() >= wanted * weights.square().sum():
            return weights
        precision *= 0.8
