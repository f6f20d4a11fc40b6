"""Estimators of `crlb-still-holds`: shrinkage of two kinds, and a network that corrects the likelihood's peak.

James & Stein (1961), with the positive part of Baranchik (1964). Rife & Boorstyn (1974) for the peak.
"""

import math

import torch
from torch import Tensor, nn

from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.evaluation.evaluate import Estimator
from fanfold.networks import ResidualMLP
from fanfold.observation import Estimate, Observation
from fanfold.problems import LinearGaussian, Problem, Tone
from fanfold.problems.draws import draw

GRID, POLISH = 65, 4  # points of the search for a peak, and Newton steps from the best


class Shrunk:
    """Another estimator times the one number that serves draws of a problem best, `Σ x x_hat / Σ x_hat²`."""

    def __init__(self, estimator: Estimator, problem: Problem, seed: int, draws: int = 4000):
        self.estimator = estimator
        x, obs = draw(problem, draws, seed, Stream.TUNING, 0)
        x_hat = estimator(obs).x
        self.factor = ((x * x_hat).sum() / x_hat.square().sum()).item()

    def __call__(self, obs: Observation) -> Estimate:
        return Estimate(self.factor * self.estimator(obs).x)


class LeastSquares:
    """The MLE of the linear Gaussian model, `(Aᵀ A)⁻¹ Aᵀ y`, where A has full column rank."""

    def __init__(self, problem: LinearGaussian):
        self.A = problem.operator.matrix().double()
        self.noise_var = problem.noise_var

    def __call__(self, obs: Observation) -> Estimate:
        return Estimate(torch.linalg.lstsq(self.A, obs.y.double().mT).solution.mT.to(obs.y.dtype))


class JamesStein(LeastSquares):
    """Least squares times `max(0, 1 - (n - 2) noise_var / ‖A x_hat‖²)`: it knows no prior and is never worse, n > 2.

    Never worse in `‖A (x_hat - x)‖²`, for each x.
    """

    def __call__(self, obs: Observation) -> Estimate:
        x_hat = super().__call__(obs).x
        energy = power(x_hat.double() @ self.A.mT).sum(-1, keepdim=True)
        factor = (1 - (x_hat.shape[-1] - 2) * self.noise_var / energy).clamp_min(0)
        return Estimate(x_hat * factor.to(x_hat.dtype))


class CorrectedPeak(nn.Module):
    """The MLE of a tone's frequency, `argmax |Σ y_t e^{-i x t}|`, plus what a perceptron adds; untrained the MLE.

    The perceptron sees y with the MLE's frequency and phase taken out, the MLE, and the noise variance; it answers
    in units of the standard deviation that a Gaussian prior and noise would leave.
    """

    training_defaults = {"batch": 512, "lr": 5e-3, "clip": 10.0}

    def __init__(self, problem: Tone, width: int = 64, seed: int = 0):
        super().__init__()
        self.limit, self.n = problem.limit, problem.n
        self.prior_var = problem.limit**2 * (1 / 3 - 2 / math.pi**2)  # of a raised cosine
        self.perceptron = ResidualMLP(2 * self.n + 2, 1, width, depth=2, seed=seed)

    def forward(self, obs: Observation) -> Estimate:
        """The frequency, `(batch, 1)`, of y `(batch, n)` with noise_var."""
        peak, unit, correction = self._parts(obs)
        return Estimate(peak + unit * correction)

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Squared error in units of `unit²`, which makes every SNR count."""
        peak, unit, correction = self._parts(obs)
        return ((x - peak) / unit - correction).square().sum(-1)

    @torch.no_grad()
    def _features(self, obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
        assert obs.noise_var is not None
        var = obs.noise_var.expand(len(obs.y), 1)
        peak = periodogram_peak(obs.y, self.limit)
        phase = peak * torch.arange(self.n, dtype=peak.dtype)
        still = obs.y * torch.complex(phase.cos(), -phase.sin())
        still = still * torch.polar(torch.ones_like(peak), -still.sum(-1, keepdim=True).angle())
        unit = (1 / (1 / self.prior_var + self.n * (self.n**2 - 1) / 6 / var)).sqrt()
        still = still / (1 + var).sqrt()
        return peak, unit, torch.cat([still.real, still.imag, peak, var.log() / 4], -1)

    def _parts(self, obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
        peak, unit, features = self._features(obs)
        return peak, unit, self.perceptron(features)


def periodogram_peak(y: Tensor, limit: float) -> Tensor:
    """Where `|Σ_t y_t e^{-i x t}|²` is largest within `±limit`: y `(batch, n)` -> `(batch, 1)`, by grid and Newton."""
    n = y.shape[-1]
    lags = torch.fft.ifft(power(torch.fft.fft(y, 2 * n)))[:, 1:n]  # Σ_t y_{t+l} conj(y_t)
    order = torch.arange(1, n, dtype=lags.real.dtype)

    def waves(x: Tensor) -> tuple[Tensor, Tensor]:
        phase = x.unsqueeze(-1) * order
        return phase.cos(), phase.sin()

    grid = torch.linspace(-limit, limit, GRID, dtype=order.dtype)
    cos, sin = waves(grid)
    x = grid[(lags.real @ cos.mT + lags.imag @ sin.mT).argmax(-1)]
    low, high = x - 2 * limit / (GRID - 1), x + 2 * limit / (GRID - 1)
    for _ in range(POLISH):
        cos, sin = waves(x)
        slope = (order * (lags.imag * cos - lags.real * sin)).sum(-1)
        bend = (order.square() * (lags.real * cos + lags.imag * sin)).sum(-1)
        step = torch.where(bend > 0, slope / bend, 0.0)
        x = torch.maximum(torch.minimum(x + step, high), low).clamp(-limit, limit)
    return x.unsqueeze(-1)
