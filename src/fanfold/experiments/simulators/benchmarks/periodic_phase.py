"""A sinusoid in noise and two readings of its phase. Kay (1993), example 3.14; Mardia & Jupp (2000), section 3.5.4."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fanfold.core.truncated import Truncated, truncated_gaussian
from fanfold.experiments.simulators.benchmarks.moments import Weighed, halved_cells, in_parts
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described

AMPLITUDES, FREQUENCIES = (0.3, 2.0), (0.05, 0.45)  # the latter in cycles a sample


@dataclass(frozen=True)
class PeriodicPhase(Described):
    """`y_t = amplitude cos(2 pi frequency t + phase) + w_t`, and angles from von Mises's law about two of the phases.

    All three parameters are uniform, the phase on the circle; the samples are `t = 0 … samples - 1`, the two phases
    those of a third and of two thirds of them, wrapped to [-pi, pi).

    Example:
        >>> import torch
        >>> from fanfold.experiments.simulators.benchmarks import PeriodicPhase
        >>> x, obs = PeriodicPhase().sample(3, torch.Generator().manual_seed(0))
        >>> PeriodicPhase().posterior(obs).x.shape, obs.y.shape
        (torch.Size([3, 3]), torch.Size([3, 14]))
    """

    samples: int = 12
    noise: float = 0.7  # standard deviation of w
    concentration: float = 2.0  # of the readings, as von Mises's law has it
    first: int = 48  # cells along each axis at first
    keep: int = 160  # cells that are halved in a round
    rounds: int = 3
    least: float = 30.0  # effective points, below which the posterior is NaN

    A = None
    names = ("amplitude", "frequency", "phase")
    limits = (AMPLITUDES, FREQUENCIES, (-math.pi, math.pi))
    periodic = (False, False, True)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws: x `(n, 3)` and y `(n, samples + 2)`, the angles last."""
        low, high = torch.tensor(self.limits, dtype=torch.float64).mT
        x = low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, self.samples, generator=generator, dtype=torch.float64)
        turns = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        away = torch.from_numpy(turns.vonmises(0.0, self.concentration, (n, 2)))
        phases = self._phases(x[:, 1:])
        read = torch.remainder(phases[:, self._read()] + away + math.pi, 2 * math.pi) - math.pi
        return x.float(), Observation(torch.cat([x[:, :1] * phases.cos() + self.noise * noise, read], -1).float())

    def _read(self) -> list[int]:
        return [self.samples // 3, 2 * self.samples // 3]

    def _phases(self, z: Tensor) -> Tensor:
        """The phase at each sample of frequencies and phases `(..., 2)`, `(..., samples)`."""
        return 2 * math.pi * z[..., :1] * torch.arange(self.samples, dtype=z.dtype) + z[..., 1:]

    def weighed(self, y: Tensor) -> Weighed:
        """Frequencies and phases and their weights, the amplitude integrated out, for double y."""
        low, high = torch.tensor(self.limits[1:], dtype=torch.float64).mT

        def log_density(z: Tensor) -> Tensor:
            phases = self._phases(z)
            mean, deviation, cut = self._amplitude(phases, y)
            away = phases[..., self._read()] - y[:, None, self.samples :]
            known = 0.5 * (mean / deviation).square() + deviation.log() + cut.log_mass
            return known + self.concentration * away.cos().sum(-1)

        return halved_cells(log_density, low, high, (self.first, self.first), self.keep, self.rounds)

    def posterior(self, obs: Observation) -> Estimate:
        """Mean and variance, double, by quadrature over frequency and phase; the amplitude's law is in closed form.

        The phase is taken as a number in [-pi, pi), not as an angle.
        """

        def moments(y: Tensor) -> Estimate:
            angles = self.weighed(y)
            mean, deviation, cut = self._amplitude(self._phases(angles.x), y)
            x = torch.cat([(mean + deviation * cut.mean).unsqueeze(-1), angles.x], -1)
            inner = torch.nn.functional.pad((deviation.square() * cut.var).unsqueeze(-1), (0, 2))
            return Weighed(x, angles.log_weight).estimate(self.least, inner)

        return in_parts(moments, obs, 10)

    def _amplitude(self, phases: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Truncated]:
        """The amplitude given the phases: a Gaussian's mean and deviation, and how it is cut off."""
        wave = phases.cos()
        energy = wave.square().sum(-1).clamp_min(1e-9)
        mean = (wave @ y[:, : self.samples, None]).squeeze(-1) / energy
        deviation = (self.noise / energy.sqrt()).expand_as(mean)
        low, high = AMPLITUDES
        return mean, deviation, truncated_gaussian((low - mean) / deviation, (high - mean) / deviation)
