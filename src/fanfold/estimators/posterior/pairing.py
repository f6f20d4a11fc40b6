"""Whether the posterior mean is a gradient, as it is of exponential families, and whether it is a straight line."""

from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.estimators.posterior.features import heavy_tailed

MOST_ROWS = 5000  # that are looked at
ROWS_A_FEATURE = 2.5  # of a fit, at least
FEWEST_WAVES, WAVES = 200, 600  # ridge functions of a fit
JUDGING_WAVES = 800  # of the judgement
FINENESS = (0.5, 1.0, 2.0)  # of ridge functions, over standard deviations
ROUNDS = 4  # of fits, each about the statistics of the one before
FIT_WEIGHT = 1e-6  # of ridge regression, over the mean of the diagonal
WEIGHTS = (1e-6, 1e-4, 1e-2, 1e-1, 1.0)  # of those that are judged
MARGIN = 0.99  # of the error of free functions, that the gradient has to be below
MOST_LEFT = 0.9  # of the power of x, by a linear fit that tells of it
NIL = 1e-9  # of the largest variance, that others are at least


class Pairing(NamedTuple):
    """Whether `E[x | y] = R ∇φ(R Cᵀ z)` for some C, up to a part that is linear in z.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.pairing import Pairing
        >>> Pairing(2 * torch.eye(2).double(), holds=True).risk(torch.ones(5, 2))
        0.25
    """

    R: Tensor  # `(d, d)`, the symmetric root of the mean covariance of the posterior; of few draws the prior's spread
    holds: bool
    least: float = torch.inf  # mean square of `R⁻¹` times the errors of draws left out, by the best of three fits
    straight: bool = False  # whether that is a linear one, by which something is told of x without heavy tails

    def risk(self, errors: Tensor) -> float:
        """The mean square of errors `(samples, d)` in these units; infinite where one is no number."""
        return torch.linalg.solve(self.R, errors.double().mT).square().mean().nan_to_num(torch.inf).item()


def paired(z: Tensor, x: Tensor) -> Pairing:
    """Tell from draws whether the posterior mean is a gradient with respect to linear statistics of features.

    Where the likelihood is an exponential family, `p(y | x) = h(y) exp(xᵀ Cᵀ y - A(x))`, the posterior mean is the
    gradient of `log ∫ exp(xᵀ s - A(x)) p(x) dx` at `s = Cᵀ y`, whatever the prior is (Efron, 2011, "Tweedie's formula
    and selection bias", section 2): of linear measurements in Gaussian noise, and of generalised linear models with
    their canonical link. Its slope there is `C Cov[x | y]`, so that the mean slope of a fit by random ridge functions,
    over the covariance of its errors, tells C. It is judged by two-fold cross-validation: of what the linear fit
    leaves, a gradient of ridge functions has to explain more than free ones do.

    Args:
        z: Features `(samples, m)`, linear in y.
        x: Real parameters `(samples, d)`.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.pairing import paired
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4000, 6, generator=generator).sign()
        >>> y = x + torch.randn(4000, 6, generator=generator)
        >>> paired(y, x).holds
        True
    """
    z, x = (values[:MOST_ROWS].double() - values[:MOST_ROWS].double().mean(0) for values in (z, x))
    m = z.shape[1]
    count = min(WAVES, int(len(z) / ROWS_A_FEATURE) - m)
    if count < FEWEST_WAVES:
        return Pairing(x.std(0).clamp_min(torch.finfo(x.dtype).tiny).diag(), holds=False)
    generator = torch.Generator().manual_seed(0)
    identity = torch.eye(m).to(z)
    C, R = _slope_over_errors(x, z, identity)
    for _ in range(ROUNDS):
        directions = C @ R @ _directions(z @ C @ R, count, generator)
        waves = torch.tanh(z @ directions + torch.randn(count, generator=generator).to(z))
        slopes = directions * (1 - waves.square()).mean(0)
        C, R = _slope_over_errors(x, torch.cat([z, waves - waves.mean(0)], 1), torch.cat([identity, slopes], 1))
    gradient, free, linear = _judged(z, torch.linalg.solve(R, x.mT).mT, z @ C @ R, generator)
    least = min(gradient, free, linear)
    told = linear < MOST_LEFT * torch.linalg.solve(R, x.mT).square().mean().item()
    straight = linear == least and told and not heavy_tailed(x.mT).any()
    return Pairing(R, gradient < MARGIN * min(free, linear), least, straight)


def _slope_over_errors(x: Tensor, seen: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """C and R of a regression of x on what is seen, `(samples, k)`, whose mean slopes in z are `(m, k)`."""
    fit = _ridge(seen.mT @ seen, seen.mT @ x, FIT_WEIGHT)
    left = x - seen @ fit
    values, V = torch.linalg.eigh(left.mT @ left / (len(seen) - seen.shape[1]))
    values = values.clamp_min(NIL * values[-1]).clamp_min(torch.finfo(x.dtype).tiny)
    return slopes @ fit @ (V / values) @ V.mT, V * values.sqrt() @ V.mT


def _directions(s: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random directions `(d, count)`, along which statistics `(samples, d)` have the deviations of `FINENESS`."""
    directions = torch.randn(s.shape[1], count, generator=generator).to(s)
    spread = (s @ directions).std(0).clamp_min(torch.finfo(s.dtype).tiny)
    return directions / spread * torch.tensor(FINENESS).to(s)[torch.arange(count) % len(FINENESS)]


def _judged(z: Tensor, x: Tensor, s: Tensor, generator: torch.Generator) -> tuple[float, float, float]:
    """Errors of x on the other half of the draws: of a gradient with respect to s, of free functions, of none.

    A gradient of ridge functions is `Σ_j a_j w_j h_j(w_jᵀ s)` with a number a_j each, where free ones have d of them.
    The best linear fit is taken off both before.
    """
    directions = _directions(s, JUDGING_WAVES, generator)
    waves = torch.tanh(s @ directions + torch.randn(JUDGING_WAVES, generator=generator).to(s))
    one = torch.ones_like(z[:, :1])
    totals = torch.zeros(len(WEIGHTS), 3, dtype=z.dtype)
    for learned, judged in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        plain = torch.cat([z, one], 1)
        both = torch.cat([waves, x], 1)
        fit = _ridge(plain[learned].mT @ plain[learned], plain[learned].mT @ both[learned], FIT_WEIGHT)
        h, left = (both - plain @ fit).split([JUDGING_WAVES, x.shape[1]], 1)
        gram, target = h[learned].mT @ h[learned], h[learned].mT @ left[learned]
        among, along = directions.mT @ directions * gram, (directions.mT * target).sum(1, keepdim=True)
        for row, weight in enumerate(WEIGHTS):
            gradient = _ridge(among, along, weight) * directions.mT
            for column, coefficients in enumerate((gradient, _ridge(gram, target, weight), torch.zeros_like(target))):
                totals[row, column] += (left[judged] - h[judged] @ coefficients).square().mean() / 2
    gradient, free, linear = totals.min(0).values.tolist()
    return gradient, free, linear


def _ridge(gram: Tensor, target: Tensor, weight: float) -> Tensor:
    """Coefficients of ridge regression, with a weight over the mean of the diagonal."""
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + (weight * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny) * eye, target)
