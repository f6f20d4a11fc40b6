"""Receivers that are not what they were: gains, phases, dead sensors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.streams import Stream, generator_of
from fanfold.core.units import from_db
from fanfold.guard.shifts.altered import Altered
from fanfold.observation import Observation

RESPONSES, LOSSES = 0, 1  # what is drawn once, by its number


@dataclass(frozen=True)
class Boosted(Altered):
    """Measurements, noise included, `gain_db` stronger: an amplifier that is not as it was; nothing says so.

    Example:
        >>> import fanfold as ff, torch
        >>> tone = ff.problems.Tone()
        >>> both = tone, ff.guard.Boosted(tone, 20.0)
        >>> y, louder = (p.sample(3, torch.Generator().manual_seed(0))[1].y for p in both)
        >>> torch.allclose(louder, 10 * y)
        True
    """

    gain_db: float = 0.0

    @property
    def nil(self) -> bool:
        """Whether the gain is 0 dB."""
        return self.gain_db == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws, stronger."""
        return x, Observation(obs.y * from_db(self.gain_db) ** 0.5, obs.A, obs.noise_var)


@dataclass(frozen=True)
class PhaseTurned(Altered):
    """Measurements turned by one phase, as by a reference oscillator that is off, or by half a turn: a wrong sign.

    Where signals and noise are circular, or symmetric, the law of y is what it was: nothing that looks at y sees it.

    Raises:
        ValueError: If measurements are real and the phase is no half turn, when they are drawn.

    Example:
        >>> import fanfold as ff, torch
        >>> imaging = ff.problems.RFImaging(scene=(8, 8), elements=(6, 6))
        >>> both = imaging, ff.guard.PhaseTurned(imaging, 90.0)
        >>> y, turned = (p.sample(3, torch.Generator().manual_seed(0))[1].y for p in both)
        >>> torch.allclose(turned, 1j * y, atol=1e-5)
        True
    """

    phase_deg: float = 0.0

    @property
    def nil(self) -> bool:
        """Whether the phase is zero."""
        return self.phase_deg == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws, turned."""
        half_turns, rest = divmod(self.phase_deg, 180.0)
        if rest == 0:
            return x, Observation(-obs.y if half_turns % 2 else obs.y, obs.A, obs.noise_var)
        if not obs.y.is_complex():
            raise ValueError(f"y is {obs.y.dtype}, and real measurements have no phase but 180 degrees; pass that.")
        angle = torch.tensor(math.radians(self.phase_deg), dtype=torch.float64)
        return x, Observation(obs.y * torch.polar(torch.ones_like(angle), angle).to(obs.y.dtype), obs.A, obs.noise_var)


@dataclass(frozen=True)
class CalibrationDrift(Altered):
    """Measurements each with a gain and a phase of their own, Gaussian, that nobody knows; the same for all draws.

    Raises:
        ValueError: If a deviation is negative, or real measurements are to have phases.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.CalibrationDrift(ff.problems.CompressedSensing(n=40, m=20), gain_db=1.0)
        >>> problem.responses(20, torch.float32).log10().mul(20).std() < 2
        tensor(True)
    """

    gain_db: float = 0.0  # standard deviation of the gain of each
    phase_deg: float = 0.0  # and of its phase
    drift_seed: int = 0  # seed of both

    def __post_init__(self):
        if not (0 <= self.gain_db < math.inf and 0 <= self.phase_deg < math.inf):
            raise ValueError(f"gain_db {self.gain_db} and phase_deg {self.phase_deg} are deviations: not negative.")

    @property
    def nil(self) -> bool:
        """Whether there is no drift."""
        return self.gain_db == self.phase_deg == 0

    def responses(self, m: int, dtype: torch.dtype) -> Tensor:
        """What each of so many measurements is multiplied by, `(m,)`."""
        if self.phase_deg and not dtype.is_complex:
            raise ValueError(f"y is {dtype}, and real measurements have no phase; leave phase_deg at 0.")
        generator = generator_of(self.drift_seed, Stream.SHIFTED, RESPONSES)
        gain, phase = torch.randn(2, m, generator=generator, dtype=torch.float64)
        gains = 10 ** (self.gain_db * gain / 20)
        return (torch.polar(gains, math.radians(self.phase_deg) * phase) if self.phase_deg else gains).to(dtype)

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws, as the receiver that has drifted gives them."""
        y = obs.y.flatten(1)
        y = y * self.responses(y.shape[1], y.dtype)
        return x, Observation(y.reshape(obs.y.shape), obs.A, obs.noise_var)


@dataclass(frozen=True)
class Dead(Altered):
    """Sensors that give zero, `dead` of them, the same for all draws.

    Raises:
        ValueError: If more are to be dead than there are, or y is not so many numbers for each, when it is drawn.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.Dead(ff.problems.CompressedSensing(n=40, m=20), dead=3)
        >>> (problem.sample(5, torch.Generator().manual_seed(0))[1].y == 0).sum(-1)
        tensor([3, 3, 3, 3, 3])
    """

    dead: int = 0  # number of dead sensors
    each: int = 1  # successive measurements of a sensor
    dead_seed: int = 0  # seed of which ones

    def __post_init__(self):
        if self.dead < 0 or self.each < 1:
            raise ValueError(f"{self.dead} dead sensors of {self.each} measurements; pass 0 or more, and 1 or more.")

    @property
    def nil(self) -> bool:
        """Whether all sensors live."""
        return self.dead == 0

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws without what the dead sensors would have measured."""
        sensors, rest = divmod(obs.y[0].numel(), self.each)
        if rest or self.dead > sensors:
            raise ValueError(
                f"{obs.y[0].numel()} measurements are not more than {self.dead} sensors of {self.each}; pass fewer."
            )
        gone = torch.randperm(sensors, generator=generator_of(self.dead_seed, Stream.SHIFTED, LOSSES))[: self.dead]
        y = obs.y.reshape(len(obs.y), sensors, self.each).clone()
        y[:, gone] = 0
        return x, Observation(y.reshape(obs.y.shape), obs.A, obs.noise_var)
