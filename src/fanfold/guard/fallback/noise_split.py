"""Which of two estimators errs more, from measurements alone. Oliveira, Lei & Tibshirani (2021), section 2.

For `y = A x + w` and fresh `v` like w, `y₁ = y + a v` and `y₂ = y - v / a` have independent noise: what is estimated
from y₁ is judged by y₂ without bias, `E‖A x_hat(y₁) - y₂‖² = E‖A (x_hat(y₁) - x)‖² + constant`.

Where there is more noise than the observation claims, `σ² + e`, the two halves have e in common, and the loss is too
small by `2 e` times how many measurements the estimator follows, `D = Σ ∂(A x_hat)_i / ∂y_i` (Stein, 1981). How large e
is, estimates say themselves: one that is the mean of a posterior leaves `E‖y - A x_hat‖² = (m - D) (σ² + e)`.
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

LEAST_LEFT = 0.05  # share of a change that an estimate leaves, below which a residual says nothing of the noise
TOLERANCE = 1.2  # by which cross-validated residuals of two paths may differ, and be alike
WIDEST = 20.0  # of the logarithms of ratios of residuals, as where one path follows y to the last bit


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


class Explained(NamedTuple):
    """What both paths make of some observations, network first; made by `NoiseSplit.explained`.

    Example:
        >>> import torch
        >>> from fanfold.guard.fallback import Explained
        >>> Explained(torch.ones(3), torch.ones(3, 2), torch.zeros(3, 3), 10).unclaimed.tolist()
        [0.0, 0.0, 0.0]
    """

    noise_var: Tensor  # (batch,) that the observation claims
    residuals: Tensor  # (batch, 2) mean squares of `y - A x_hat`
    traits: Tensor  # (batch, 3) shares D over m of the measurements' changes that each follows, log ratio of residuals
    measurements: int

    @property
    def unclaimed(self) -> Tensor:
        """The variance of noise beyond the claim, `(batch,)`: what the network leaves, as far as the baseline bears.

        What the network leaves is noise if it is right. If it errs, it takes its error for noise; but the noise is no
        more than what the baseline would leave of a measurement that it was not given, by generalised
        cross-validation (Golub, Heath & Wahba, 1979).
        """
        left = self._left
        of_network = self.residuals[:, 0] / left[:, 0]
        return (torch.minimum(of_network, self._most) - self.noise_var).clamp_min(0)

    def corrected(self, differences: Tensor) -> Tensor:
        """Differences of losses, `(batch,)`, with the noise that nothing claims: `d + 2 e (D_network - D_baseline)`.

        Where that speaks for the network, it counts as far as the network would also leave less of measurements that it
        was not given, by cross-validation, which is exact to `TOLERANCE`.
        """
        m = self.measurements
        moved = differences + 2 * m * self.unclaimed * (self.traits[:, 0] - self.traits[:, 1])
        left = self._left
        ratio = self.traits[:, 2].exp() * (left[:, 1] / left[:, 0]).square()
        kept_out = m * self._most * (ratio / TOLERANCE - 1)
        return torch.where(moved < differences, torch.minimum(differences, torch.maximum(moved, kept_out)), moved)

    @property
    def _left(self) -> Tensor:
        return 1 - self.traits[:, :2].clamp(0, 1 - LEAST_LEFT)

    @property
    def _most(self) -> Tensor:
        return self.residuals[:, 1] / self._left[:, 1].square()


@dataclass(frozen=True)
class NoiseSplit(Checked):
    """Differences of two estimators' losses at the measurements, from a copy of y with a little more noise.

    Unbiased for `‖A (x_hat - x)‖²`, of estimates from the noisier copy, whatever the signal is, where A and the noise
    variance are right. A variance that is too small, as an error of A makes it, favours the estimator that follows the
    measurements more. With `noise="measured"` a guarded estimator takes away that favour, as far as the noise is what
    the network leaves of the measurements, and no more than the baseline bears: see `Explained`. That costs safety: a
    network whose own errors look like noise is believed for longer. What A does not see, this does not judge.

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
    noise: Literal["measured", "claimed"] = "claimed"  # what the noise is taken to be; at least what is claimed
    memory: float = 0.95  # of how both paths follow measurements, that is kept from call to call

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

    def explained(
        self, obs: Observation, halves: Halves, whole: tuple[Estimate, Estimate], copy: tuple[Estimate, Estimate]
    ) -> Explained:
        """What network and baseline make of y and of the noisier copy.

        Args:
            obs: The measurements with their noise variance.
            halves: What they were split into.
            whole: Estimates from the measurements, of network and baseline.
            copy: Estimates from the noisier copy.
        """
        wide, axes = double(obs.y.dtype), tuple(range(1, obs.y.ndim))
        y, added = obs.y.to(wide), halves.obs.y.to(wide) - obs.y.to(wide)
        size = power(added).sum(axes).clamp_min(torch.finfo(torch.float64).tiny)
        residuals, shares = [], []
        for at_y, at_copy in zip(whole, copy):
            seen = self.measured(obs, at_y.x).to(wide)
            moved = self.measured(obs, at_copy.x).to(wide) - seen
            residuals.append(power(y - seen).mean(axes))
            shares.append(((moved * added.conj()).real.sum(axes) / size).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1))
        assert obs.noise_var is not None
        var = obs.noise_var.to(residuals[0]).expand(*y.shape[:-1], 1).flatten(1).mean(-1)
        tiny = torch.finfo(torch.float64).tiny
        ratio = residuals[0].clamp_min(tiny).log() - residuals[1].clamp_min(tiny).log()
        traits = torch.stack([*shares, ratio.nan_to_num(WIDEST).clamp(-WIDEST, WIDEST)], -1)
        return Explained(var, torch.stack(residuals, -1), traits, y[0].numel())

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
