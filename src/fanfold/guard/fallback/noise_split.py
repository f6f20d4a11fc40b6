"""Which of two estimators errs more, from measurements alone. Oliveira, Lei & Tibshirani (2021), section 2.

For `y = A x + w` and fresh `v` like w, `y₁ = y + a v` and `y₂ = y - v / a` have independent noise: what is estimated
from y₁ is judged by y₂ without bias, `E‖A x_hat(y₁) - y₂‖² = E‖A (x_hat(y₁) - x)‖² + constant`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.noise import circular
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
    measurements less: it speaks for a cautious baseline. What A does not see, this does not judge.

    Raises:
        ValueError: If the fraction is not positive.

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

    def __post_init__(self):
        if not 0 < self.fraction < float("inf"):
            raise ValueError(f"fraction is {self.fraction}; pass a positive number, such as 0.5.")

    def halves(self, obs: Observation, calls: Sequence[int]) -> Halves:
        """Split the observation of some calls; the noise of each is drawn by its number alone.

        Args:
            obs: The measurements `(batch, m)` with their noise variance.
            calls: The number of each sample's call.

        Raises:
            ValueError: If the noise variance is unknown.
        """
        if obs.noise_var is None:
            raise ValueError("splitting the noise needs its variance; pass noise_var in the observation.")
        drawn = [circular(obs.y[0].shape, generator_of(self.seed, Stream.SPLIT, n), obs.y.dtype) for n in calls]
        v = torch.stack(drawn).to(obs.y.device) * obs.noise_var.sqrt()
        a = self.fraction
        return Halves(Observation.unchecked(obs.y + a * v, obs.A, (1 + a * a) * obs.noise_var), obs.y - v / a)

    def differences(self, halves: Halves, network: Estimate, baseline: Estimate) -> Tensor:
        """`‖A x_network - y₂‖² - ‖A x_baseline - y₂‖²` of each sample, in double precision: `(batch,)`."""
        seen, beside = self.measured(halves.obs, network.x), self.measured(halves.obs, baseline.x)
        gap = seen - beside
        return (power(gap) + 2 * (gap * (beside - halves.judge).conj()).real).double().sum(-1)

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
