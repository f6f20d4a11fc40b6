"""Error variances that are true on average: the variance that an estimator carries, scaled or bent on held-out draws.

Guo, Pleiss, Sun & Weinberger (2017), section 4.2 (temperature); Levi, Gispan, Giladi & Fetaya (2022)
(variances that equal the errors made with them); Zadrozny & Elkan (2002) (monotone maps).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.core.units import power
from fanfold.guard.answers import Pairs, answers, calibration_draws, checked_var, widened
from fanfold.observation import Estimate, Estimator, Observation, check_finite, takes_measurements
from fanfold.problems import Problem

Map = Literal["scale", "monotone"]
LEAST_VAR = 1e-150  # what a variance of zero counts as: its reciprocal is finite
MIN_ERRORS_PER_BIN = 200  # so that the mean of their squares is known to a tenth


@checks_arguments
def calibrate_variance(
    estimator: Estimator,
    draws: Problem | Pairs,
    map: Map = "scale",  # noqa: A002 - its name in the mathematics
    *,
    bins: int = 50,
    samples: int = 2000,
    batch: int = 4096,
    seed: int = 0,
) -> "CalibratedVariance":
    """An estimator whose variance is the error that it makes, on draws that it was not trained on.

    The estimate stays as it is. "scale" multiplies all variances by one temperature,
    `mean |x - x_hat|² / mean var`: the total is right. "monotone" is a rising map from the variance that the estimator
    says to the mean squared error made there, by isotonic regression: right at each size. A variance is no interval:
    where the posterior is not Gaussian, `x_hat ± 1.64 √var` does not cover 90 % however right var is; that is what
    `conformal` is for.

    Args:
        estimator: An estimator whose estimates have a variance.
        draws: A problem, or pairs of x `(samples, ...)` and their observation.
        map: "scale" or "monotone".
        bins: The number of bins of equal counts of variances, which a monotone map is fitted to; fewer on few draws.
        samples: The number of calibration draws, of a problem.
        batch: How many observations the estimator sees at a time.
        seed: The seed of the draws.

    Raises:
        ValueError: If the estimator has no variance or the map is unknown.

    Example:
        >>> import fanfold as ff
        >>> oamp = ff.iterate(ff.algorithms.OAMP(), 10)
        >>> ff.guard.calibrate_variance(oamp, ff.problems.CompressedSensing(n=40, m=20), samples=200).knots
        tensor([1.])
    """
    x, obs = calibration_draws(draws, samples, seed)
    estimate = answers(estimator, obs, batch)
    if estimate.var is None:
        raise ValueError("there is no variance to calibrate: this estimator's estimates have var None.")
    check_finite("the estimator's x", estimate.x)
    error, var = power(widened(x) - widened(estimate.x)).double().flatten(), checked_var(estimate).double().flatten()
    if not error.any():  # of exact answers, no map but one is the error
        return CalibratedVariance(estimator, torch.ones(1), torch.zeros(1))
    if map == "scale":
        if not var.any():
            raise ValueError("every variance is 0 and errors are not, which no scale mends; pass map='monotone'.")
        return CalibratedVariance(estimator, torch.ones(1), (error.mean() / var.mean()).reshape(1))
    knots, factors = monotone_ratios(var, error, bins)
    bent = CalibratedVariance(estimator, knots, factors)
    total = bent.calibrated(var).mean()  # lines between knots lie beside the means that they join
    return CalibratedVariance(estimator, knots, factors * error.mean() / total)


@dataclass(frozen=True)
class CalibratedVariance:
    """An estimator whose `var` is multiplied by a factor that goes with it; made by `calibrate_variance`.

    Attributes:
        estimator: The estimator whose estimates these are.
        knots: Variances, rising, `(knots,)`.
        factors: The factor at each knot, `(knots,)`; linear in the logarithm of the variance between them.

    Example:
        >>> import fanfold as ff, torch
        >>> sure_of_itself = lambda obs: ff.Estimate(obs.y, var=torch.full_like(obs.y, 0.01))
        >>> honest = ff.guard.CalibratedVariance(sure_of_itself, knots=torch.ones(1), factors=torch.tensor([4.0]))
        >>> round(honest(ff.Observation(torch.ones(1))).var.item(), 6)
        0.04
    """

    estimator: Estimator
    knots: Tensor
    factors: Tensor

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate, with its variance calibrated."""
        estimate = self.estimator(obs)
        assert estimate.var is not None
        return Estimate(estimate.x, self.calibrated(checked_var(estimate)))

    def calibrated(self, var: Tensor) -> Tensor:
        """The variances times their factors; a variance of zero counts as the least that has a factor."""
        return (var.double().clamp_min(LEAST_VAR) * self.factor(var.double())).to(var.dtype)

    def factor(self, var: Tensor) -> Tensor:
        """The factor on each variance, of any shape."""
        knots, factors = (t.to(var.device, torch.float64) for t in (self.knots, self.factors))
        if len(knots) == 1:
            return factors[0].to(var.dtype).expand(var.shape)
        at, where = torch.log(knots), torch.log(var.double().clamp(knots[0], knots[-1]))
        above = torch.searchsorted(at, where.contiguous()).clamp(1, len(knots) - 1)
        share = (where - at[above - 1]) / (at[above] - at[above - 1])
        return torch.exp(torch.lerp(factors.log()[above - 1], factors.log()[above], share)).to(var.dtype)

    def as_dict(self) -> dict[str, Any]:
        """The calibration as plain data for a run directory: everything but the estimator."""
        return {"knots": self.knots.tolist(), "factors": self.factors.tolist()}

    @classmethod
    def from_dict(cls, estimator: Estimator, data: dict[str, Any]) -> "CalibratedVariance":
        """The calibration that `as_dict` wrote, around the same estimator."""
        return cls(estimator, *(torch.tensor(data[k], dtype=torch.float64) for k in ("knots", "factors")))


def monotone_ratios(var: Tensor, error: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The knots and factors of the rising map from variances `(N,)` to mean squared errors `(N,)`."""
    var = var.clamp_min(LEAST_VAR)
    order = var.argsort()
    parts = order.tensor_split(max(1, min(bins, len(var) // MIN_ERRORS_PER_BIN)))
    predicted = torch.stack([var[rows].mean() for rows in parts])
    measured = isotonic(torch.stack([error[rows].mean() for rows in parts])).clamp_min(LEAST_VAR)
    rising = torch.cat([predicted.new_ones(1, dtype=torch.bool), predicted.diff() > 1e-9 * predicted[1:]])
    return predicted[rising], (measured / predicted)[rising]


def isotonic(values: Tensor) -> Tensor:
    """The nearest rising sequence in least squares, by pooling adjacent violators; `(N,)`. Ayer et al. (1955)."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (mean * count + before * n) / (count + n), count + n
        blocks.append((mean, count))
    return values.new_tensor([mean for mean, count in blocks for _ in range(count)])
