"""Which of two estimators errs more, from measurements alone. Oliveira, Lei & Tibshirani (2021), section 2.

For `y = A x + w` and fresh `v` like w, `y₁ = y + a v` and `y₂ = y - v / a` have independent noise: what is estimated
from y₁ is judged by y₂ without bias, `E‖A x_hat(y₁) - y₂‖² = E‖A (x_hat(y₁) - x)‖² + constant`.

Where there is more noise than the observation claims, `σ² + e`, the two halves have e in common, and the loss is too
small by `2 e` times how many measurements the estimator follows, `D = Σ ∂(A x_hat)_i / ∂y_i` (Stein, 1981). What e and
D are is read off how much both paths leave of y, as they do of draws with so much more noise: `noise_levels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import double
from fanfold.core.settings import Checked
from fanfold.core.streams import Stream, generator_of
from fanfold.core.units import power
from fanfold.observation import Estimate, Observation


class Halves(NamedTuple):
    """An observation in two, whose noises are independent; made by `NoiseSplit.halves`.

    Example:
        >>> import fanfold as ff, torch
        >>> obs = ff.problems.CompressedSensing(n=20, m=10).sample(3, torch.Generator().manual_seed(0))[1]
        >>> ff.guard.NoiseSplit().halves(obs, range(len(obs.y))).judge.shape
        torch.Size([3, 10])
    """

    obs: Observation  # to estimate from; its noise variance is `1 + fraction²` of that of y
    judge: Tensor  # (batch, m) to judge the estimates by


@dataclass(frozen=True)
class NoiseSplit(Checked):
    """Differences of two estimators' losses at the measurements, from a copy of y with a little more noise.

    Unbiased for `‖A (x_hat - x)‖²`, of estimates from the noisier copy, whatever the signal is, where A and the noise
    variance are right. A variance that is too small, as an error of A makes it, favours the estimator that follows the
    measurements more. With `noise="measured"` a guarded estimator takes away that favour, as far as both paths leave of
    the measurements what they leave on draws with so much more noise, and only where the network errs less on these:
    see `NoiseLevels`. With "claimed" it believes the variance. What A does not see, this does not judge.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> x, obs = problem.sample(100, torch.Generator().manual_seed(0))
        >>> split, good = ff.guard.NoiseSplit(), ff.estimators.LMMSE.of(problem)
        >>> halves = split.halves(obs, range(100))
        >>> (split.differences(halves, good(halves.obs), ff.Estimate(torch.zeros_like(x))).mean() < 0).item()
        True
    """

    fraction: float = 0.5  # deviation of the added noise over that of the noise; less is a noisier judge
    seed: int = 0  # of the added noise
    noise: Literal["measured", "claimed"] = "measured"  # what the noise is taken to be; at least what is claimed
    memory: float = 0.9  # of what both paths leave of the measurements, that is kept from call to call

    def __post_init__(self):
        if not 0 < self.fraction < float("inf"):
            raise ValueError(f"fraction is {self.fraction}; pass a positive number, such as 0.5.")
        if not 0 <= self.memory < 1:
            raise ValueError(f"memory is {self.memory}; pass a number from 0 to below 1, such as 0.9.")

    def halves(self, obs: Observation, calls: Sequence[int]) -> Halves:
        """Split the observation of some calls; the noise of each is drawn by its number alone.

        Args:
            obs: The measurements `(batch, m)` with their noise variance.
            calls: The number of each sample's call.

        Raises:
            ValueError: If the noise variance is unknown.
        """
        return self.split(obs, self.drawn(obs, calls))

    def split(self, obs: Observation, drawn: Tensor) -> Halves:
        """Split an observation by standard noise like y.

        Raises:
            ValueError: If the noise variance is unknown.
        """
        if obs.noise_var is None:
            raise ValueError("splitting the noise needs its variance; pass noise_var in the observation.")
        v, a = drawn * obs.noise_var.sqrt(), self.fraction
        return Halves(Observation.unchecked(obs.y + a * v, obs.A, (1 + a * a) * obs.noise_var), obs.y - v / a)

    def drawn(self, obs: Observation, calls: Sequence[int]) -> Tensor:
        """The standard noise of some calls, like y; that of each is drawn by its number alone."""
        each = [circular(obs.y[0].shape, generator_of(self.seed, Stream.SPLIT, n), obs.y.dtype) for n in calls]
        return torch.stack(each).to(obs.y.device)

    def differences(self, halves: Halves, network: Estimate, baseline: Estimate) -> Tensor:
        """`‖A x_network - y₂‖² - ‖A x_baseline - y₂‖²` of each sample, in double precision: `(batch,)`."""
        seen, beside = self.measured(halves.obs, network.x), self.measured(halves.obs, baseline.x)
        wide = double(halves.judge.dtype)  # before squaring: what single precision cannot hold would be no number
        gap, left = seen.to(wide) - beside.to(wide), beside.to(wide) - halves.judge.to(wide)
        return (power(gap) + 2 * (gap * left.conj()).real).flatten(1).sum(-1)

    def residuals(self, obs: Observation, estimate: Estimate) -> Tensor:
        """The mean square of `y - A x_hat` of each sample, in double precision: `(batch,)`."""
        wide = double(obs.y.dtype)
        left = obs.y.to(wide) - self.measured(obs, estimate.x).to(wide)
        return power(left).flatten(1).mean(-1)

    def heard(self, obs: Observation) -> Tensor:
        """The mean square of y of each sample, in double precision: `(batch,)`."""
        return power(obs.y.to(double(obs.y.dtype))).flatten(1).mean(-1)

    def claimed(self, obs: Observation) -> Tensor:
        """The noise variance that each observation claims, a mean over its measurements: `(batch,)`."""
        assert obs.noise_var is not None
        return obs.noise_var.double().expand(*obs.y.shape[:-1], 1).flatten(1).mean(-1)

    def measured(self, obs: Observation, x: Tensor) -> Tensor:
        """What an estimate says of the measurements; without an operator, it is of what y is."""
        if obs.A is not None:
            return obs.A @ x
        if x.shape != obs.y.shape:
            raise ValueError(
                f"there is no operator, and the estimate {tuple(x.shape)} is not of what y {tuple(obs.y.shape)} is: "
                "nothing judges it; pass a monitor and judge=None."
            )
        return x
