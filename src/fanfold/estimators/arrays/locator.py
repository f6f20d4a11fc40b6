"""Where a known shape lies: matched filters, a CNN along them, and the mean of a mixture with one part for each bin.

The mixture is trained by its likelihood: Bishop (1994), "Mixture density networks", eq. 22.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fanfold.core.abilities import require
from fanfold.core.settings import Checked
from fanfold.core.units import ordinary_binade, power
from fanfold.estimators.precision import in_full_precision
from fanfold.networks.residual_mlp import ResidualMLP
from fanfold.networks.spectrum import SpectrumCNN
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import KnownWaveform

DECISIVE_NATS = 1000.0  # log ratios beyond it count as their logarithm, since nothing depends on them any more
ADDED_POWER = 1e-3  # of the filters' mean power, added to each: the log of what is far below says nothing


class FilterOutputs(NamedTuple):
    """What the matched filters say."""

    ratio: Tensor  # (..., K) log likelihood ratio of each bin against no signal
    offset: Tensor  # (..., K) to the top of the parabola, in bins
    log_scale: Tensor  # (..., K) log of the standard deviation there, in bins
    of_bins: Tensor  # (..., 7, K) what the CNN sees
    of_all: Tensor  # (..., 3) what says how much a log ratio is worth


@dataclass(frozen=True)
class LocatorSettings(Checked):
    """Matched filters, a CNN along them, and the mean of a mixture with a part for each place: a `Locator`.

    Example:
        >>> import fanfold as ff
        >>> net = ff.estimators.LocatorSettings(width=4).build(ff.problems.Tone(n=9))
        >>> net.templates.shape[1]
        9
    """

    oversampling: int = 4  # Bins in a resolution of the problem.
    margin: int = 3  # Bins beyond each end of the window.
    width: int = 16  # Channels of the CNN.
    depth: int = 2  # Residual convolutions of the CNN.
    network_seed: int = 0  # Seed of the starting weights.

    def build(self, problem: Any) -> "Locator":
        """The untrained estimator.

        Raises:
            ValueError: If the problem has no source of known shape at an unknown place.
        """
        instead = "Take tone or time-delay; in Python a Locator can be made of templates."
        located = require(problem, KnownWaveform, "Locator", instead)
        low, high = located.window
        inside = math.ceil((high - low) / located.resolution * self.oversampling)
        bins = torch.arange(-self.margin, inside + self.margin + 1, dtype=torch.float64)
        values = low + (high - low) / inside * bins
        net = Locator(
            located.waveform(values),
            values,
            positive=located.gain == "known",
            width=self.width,
            depth=self.depth,
            seed=self.network_seed,
        )
        net.settings = self
        return net


class Locator(nn.Module):
    """Posterior mean and variance of one place: a frequency, a delay, an angle.

    `x_hat = Σ_k softmax(logit)_k (value_k + offset_k)` over the bins of a bank of templates; the variance is that of a
    mixture with a normal part in each bin. Before training the logit is the log likelihood ratio with the amplitude
    that suits a bin best (and the noise variance, where that is not observed), offset and variance are those of the
    parabola through three neighbours' log powers: the periodogram, softened. Training adds corrections: of each bin by
    a CNN, of what a log ratio is worth by a perceptron, and one for each bin of what is known beforehand. `strength`
    scales them; 0 takes them away.

    `Locator.of(problem)` serves tones and delays. For one source on an array, with electrical angles for values:
    `Locator(problem.steering(values[:, None])[..., 0], values, snapshots=problem.snapshots)`. Trained with a noise
    variance it learns the amplitudes that it sees: not scale-equivariant.

    Args:
        templates: `(K, m)`, real or complex: the shape at each value. What is observed is one of them, scaled.
        values: `(K,)`, rising: the place that each template stands for.
        positive: Whether real templates are scaled by positive amplitudes only.
        snapshots: Observed amplitudes of one shape; y is `(..., m snapshots)`, the snapshots of an entry together.
        width: Channels of the CNN.
        depth: Its residual convolutions.
        seed: Seed of the starting weights.

    Raises:
        ValueError: If templates and values do not fit, or values do not rise.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.Tone(n=9)
        >>> ff.estimators.Locator.of(problem)(problem.sample(3, torch.Generator())[1]).x.shape
        torch.Size([3, 1])
    """

    scale_equivariant: ClassVar[bool] = False
    settings: LocatorSettings | None = None  # None where the templates are the user's own

    templates: Tensor
    values: Tensor
    spacing: Tensor

    training_defaults: ClassVar[dict[str, Any]] = {
        "steps": 2500,
        "batch": 256,
        "lr": 3e-3,
        "validate_every": 250,
        "validation_samples": 2000,
    }

    def __init__(
        self,
        templates: Tensor,
        values: Tensor,
        *,
        positive: bool = False,
        snapshots: int = 1,
        width: int = 16,
        depth: int = 2,
        seed: int = 0,
    ):
        super().__init__()
        if templates.ndim != 2 or values.shape != templates.shape[:1] or len(values) < 3 or (values.diff() <= 0).any():
            raise ValueError(
                f"templates are {tuple(templates.shape)} and values {tuple(values.shape)}; pass (K, m) and (K,) that "
                "rise, K at least 3."
            )
        self.positive, self.snapshots, self.strength = positive and not templates.is_complex(), snapshots, 1.0
        unit = templates / power(templates).sum(-1, keepdim=True).sqrt()
        self.register_buffer("templates", unit.to(torch.complex64 if unit.is_complex() else torch.float32))
        self.register_buffer("values", values.float())
        self.register_buffer("spacing", torch.gradient(values.double())[0].float())
        self.cnn = SpectrumCNN(7, 3, width, depth, seed=seed)
        self.worth = ResidualMLP(3, 2, width, depth=1, seed=seed + 1)
        self.known = nn.Parameter(torch.zeros(len(values)))

    @classmethod
    def of(
        cls,
        problem: KnownWaveform,
        oversampling: int = 4,
        margin: int = 3,
        *,
        width: int = 16,
        depth: int = 2,
        seed: int = 0,
    ) -> "Locator":
        """The untrained estimator for a problem with one source: a tone, a delay.

        Args:
            problem: Says the shape and the window.
            oversampling: Bins in a resolution.
            margin: Bins beyond each end of the window.
            width: Channels of the CNN.
            depth: Its residual convolutions.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the problem has no source of known shape at an unknown place.
        """
        return LocatorSettings(oversampling, margin, width, depth, seed).build(problem)

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The mixture's mean and variance, `(..., 1)` each.

        Raises:
            ValueError: If y does not have as many entries as the templates, for each snapshot.
        """
        log_weight, centre, scale = self.mixture(obs)
        weight = log_weight.exp()
        mean = (weight * centre).sum(-1, keepdim=True)
        var = (weight * ((centre - mean).square() + scale.square())).sum(-1, keepdim=True)
        return Estimate(mean.to(obs.y.real.dtype), var.to(obs.y.real.dtype))

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """Minus the log density of x, in nats, `(batch,)`; a density per width of the middle bin."""
        log_weight, centre, scale = self.mixture(obs)
        unit = self.spacing[len(self.spacing) // 2]
        square = ((x.to(centre) - centre) / scale).square()
        return -torch.logsumexp(log_weight - 0.5 * (square + math.log(2 * math.pi)) - torch.log(scale / unit), -1)

    def mixture(self, obs: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and standard deviations of the parts, `(..., K)` each."""
        said = self._filter(obs)
        batch, bins = said.of_bins.shape[:-2], len(self.values)
        worth = self.worth(said.of_all.reshape(-1, 3)).reshape(*batch, 2)
        logit, shift, stretch = self.cnn(said.of_bins.reshape(-1, 7, bins)).reshape(*batch, 3, bins).unbind(-2)
        # with amplitude a known, a bin of power r counts 2 a √r - a² and not r: both are within reach
        more = worth[..., :1] * said.ratio + worth[..., 1:] * torch.sqrt(said.ratio + 1e-3)
        log_weight = torch.log_softmax(said.ratio + self.strength * (more + logit + self.known), -1)
        centre = self.values + self.spacing * (said.offset + self.strength * torch.tanh(shift))
        return log_weight, centre, self.spacing * torch.exp(said.log_scale + self.strength * stretch)

    def _filter(self, obs: Observation) -> FilterOutputs:
        unit = self._unit(obs)
        strength, energy = self._powers(obs.y / unit)
        tiny = torch.finfo(energy.dtype).tiny  # silence too has a logarithm
        entries = obs.y.shape[-1] * (1.0 if obs.y.is_complex() else 0.5)
        if obs.noise_var is None:
            ratio = -entries * torch.log1p(-(strength / (energy + tiny)).clamp(max=1 - 1e-6))
            log_var = level = torch.zeros_like(energy)
        else:
            var = (obs.noise_var / unit / unit).to(energy).expand(energy.shape).clamp_min(tiny)
            var = torch.maximum(var, 1e-9 * energy / obs.y.shape[-1])  # 90 dB are as good as no noise
            ratio = entries / obs.y.shape[-1] * strength / var
            level = torch.log(energy / (obs.y.shape[-1] * var) + ADDED_POWER)
            log_var = torch.log(var) + 2 * torch.log(unit).to(energy)
        slope, bend = self._differences(torch.log(strength + ADDED_POWER * strength.mean(-1, keepdim=True) + tiny))
        offset = torch.where(bend < 0, (slope / (-bend).clamp_min(1e-6)).clamp(-1, 1), 0.0)
        # a peak as sharp as the parabola within a bin, all of which is as likely: variance 1 / 12
        log_scale = -0.5 * torch.log(ratio * (-bend).clamp_min(0.0) + 12)
        ratio = DECISIVE_NATS * torch.log1p(ratio / DECISIVE_NATS)
        top = ratio.amax(-1, keepdim=True)
        place = torch.linspace(-1, 1, ratio.shape[-1], dtype=ratio.dtype, device=ratio.device)
        of_bins = [torch.log1p(ratio), torch.log1p(top - ratio), offset, log_scale, level, log_var, place]
        of_bins = torch.stack([seen.expand_as(ratio) for seen in of_bins], -2)
        return FilterOutputs(ratio, offset, log_scale, of_bins, torch.cat([log_var, level, torch.log1p(top)], -1))

    def _unit(self, obs: Observation) -> Tensor:
        """What y is divided by, `(..., 1)`: one, or a power of two where squares would be no numbers."""
        self._check(obs.y)
        size = obs.y.abs().amax(-1, keepdim=True)
        return ordinary_binade(size if obs.noise_var is None else torch.maximum(size, obs.noise_var.sqrt()))

    def _check(self, y: Tensor) -> None:
        m = self.templates.shape[1]
        if y.shape[-1] != m * self.snapshots or (self.templates.is_complex() and not y.is_complex()):
            shape = f"{'complex ' if self.templates.is_complex() else ''}(..., {m * self.snapshots})"
            raise ValueError(f"y is {y.dtype} of shape {tuple(y.shape)}; pass measurements of shape {shape}.")

    def _powers(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The powers of the matched filters `(..., K)` and of y `(..., 1)`, summed over snapshots."""
        y = y.to(self.values.dtype.to_complex() if y.is_complex() else self.values.dtype)
        Y = y.reshape(*y.shape[:-1], self.templates.shape[1], self.snapshots)
        c = self.templates.conj().to(y.dtype) @ Y
        if self.positive:
            c = c.real.clamp_min(0.0)
        return power(c).sum(-1), power(y).sum(-1, keepdim=True)

    @staticmethod
    def _differences(logs: Tensor) -> tuple[Tensor, Tensor]:
        """First and second differences along the bins; zero at the ends."""
        before, middle, after = logs[..., :-2], logs[..., 1:-1], logs[..., 2:]
        return functional.pad((after - before) / 2, (1, 1)), functional.pad(after - 2 * middle + before, (1, 1))
