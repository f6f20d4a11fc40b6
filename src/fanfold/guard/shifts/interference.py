"""What others send: a tone, a pulse, a second user. Levels are over the power of each sample's measurements."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.abilities import require
from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.guard.shifts.altered import Altered
from fanfold.guard.shifts.noise import size_of
from fanfold.observation import Observation
from fanfold.problems.located.direction_of_arrival import DirectionOfArrival
from fanfold.problems.protocols import ChannelProblem

Form = Literal["tone", "pulse"]
PULSE_SHARE = 0.1  # of the measurements, that a pulse lasts


@dataclass(frozen=True)
class Interfered(Altered):
    """A tone or a pulse on top of the measurements, whose power is `level_db` over that of each sample's, exactly.

    A tone is `cos(ω i + φ)` along the measurements, complex where they are: over an array, a plane wave. A pulse is
    noise on a tenth of them, side by side. Frequency, phase and place are drawn for each sample.

    Example:
        >>> import fanfold as ff, torch
        >>> sensing = ff.problems.CompressedSensing(n=40, m=20)
        >>> problem = ff.guard.Interfered(sensing, "tone", level_db=-10.0)
        >>> y, more = (p.sample(3, torch.Generator().manual_seed(0))[1].y for p in (sensing, problem))
        >>> (more - y).square().sum(-1) / y.square().sum(-1)
        tensor([0.1000, 0.1000, 0.1000])
    """

    form: Form = "tone"
    level_db: float = -math.inf  # power over that of a sample's measurements

    @property
    def nil(self) -> bool:
        """Whether there is none."""
        return self.level_db == -math.inf

    def waveforms(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One waveform for each sample of `like` `(n, m)`, of any power but zero."""
        n, m = like.shape
        place = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        turn = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        i = torch.arange(m)
        if self.form == "pulse":
            length = max(1, round(PULSE_SHARE * m))
            start = (place * (m - length + 1)).long()
            inside = (i >= start) & (i < start + length)
            return circular((n, m), generator, like.dtype) * inside
        if like.is_complex():
            angle = 2 * math.pi * place * i + turn
            return torch.polar(torch.ones_like(angle), angle).to(like.dtype)
        return torch.cos(math.pi * place * i + turn).to(like.dtype)

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with interference."""
        wave = self.waveforms(obs.y.flatten(1), generator).reshape(obs.y.shape)
        level = from_db(self.level_db) ** 0.5 * size_of(obs.y) / size_of(wave)
        return x, Observation(obs.y + level.to(obs.y.real.dtype) * wave, obs.A, obs.noise_var)


@dataclass(frozen=True)
class RadioInterfered(Interfered):
    """A tone or a pulse beside the pilots of an OFDM receiver, with one phase step from antenna to antenna.

    A tone is narrower than a subcarrier: it falls on one pilot subcarrier at all antennas. A pulse is shorter than a
    symbol: it falls on all subcarriers of one pilot symbol, its phase linear in frequency by when it comes.

    Raises:
        ValueError: If the problem is none of channels, when it is drawn.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.RadioInterfered(ff.problems.OFDMChannel("umi"), "tone", level_db=0.0)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([3, 384])
    """

    def waveforms(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One waveform for each sample of `like` `(n, antennas · pilots)`."""
        problem = require(self.nominal, ChannelProblem, type(self).__name__, "Pass a problem of channels.")
        symbols, subcarriers = problem.mask.nonzero().T
        n = len(like)
        u, v, turn = (torch.rand(n, 1, generator=generator, dtype=torch.float64) for _ in range(3))
        choices = subcarriers.unique() if self.form == "tone" else symbols.unique()
        chosen = choices[torch.randint(len(choices), (n, 1), generator=generator)]
        phase = 2 * math.pi * (turn + v * subcarriers)
        hit = (subcarriers if self.form == "tone" else symbols) == chosen
        along = 2 * math.pi * u * torch.arange(problem.layout.antennas)
        angle = along[:, :, None] + phase[:, None, :]
        return (torch.polar(torch.ones_like(angle), angle) * hit[:, None]).flatten(1).to(like.dtype)


@dataclass(frozen=True)
class SecondUser(Altered):
    """Another user on the same pilots, whose channel is a draw of the same problem, `level_db` over the first's.

    Its pilots are others: each resource element has a phase of its own, the same at all antennas.

    Raises:
        ValueError: If the problem is none of channels, when it is drawn.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.SecondUser(ff.problems.OFDMChannel("umi"), level_db=-10.0)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([3, 384])
    """

    level_db: float = -math.inf  # power of the other user's channel over that of the first, on average

    @property
    def nil(self) -> bool:
        """Whether there is none."""
        return self.level_db == -math.inf

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with the other user's pilots on top."""
        problem = require(self.nominal, ChannelProblem, type(self).__name__, "Pass a problem of channels.")
        other, _ = self.nominal.sample(len(x), generator)
        assert obs.A is not None
        antennas = problem.layout.antennas
        turn = 2 * math.pi * torch.rand(len(x), 1, obs.A.m // antennas, generator=generator)
        beside = (obs.A @ other).unflatten(-1, (antennas, -1)) * torch.polar(torch.ones_like(turn), turn)
        return x, Observation(obs.y + from_db(self.level_db) ** 0.5 * beside.flatten(1), obs.A, obs.noise_var)


@dataclass(frozen=True)
class ExtraDirection(Altered):
    """One more source in front of the array, from anywhere in the sector, whose direction nobody asks for.

    Raises:
        ValueError: If the problem is none of directions.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.ExtraDirection(ff.problems.DirectionOfArrival(sensors=4, snapshots=2), level_db=0.0)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[0].shape
        torch.Size([3, 1])
    """

    problem: DirectionOfArrival
    level_db: float = -math.inf  # power over that of the strongest source, which is one

    @property
    def nil(self) -> bool:
        """Whether there is none."""
        return self.level_db == -math.inf

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with the further source."""
        angle = self.problem.limit * (2 * torch.rand(len(x), 1, generator=generator) - 1)
        shape = len(x), 1, self.problem.snapshots
        signals = circular(shape, generator, obs.y.dtype, from_db(self.level_db))
        seen = self.problem.steering(angle).to(obs.y.dtype) @ signals
        return x, Observation(obs.y + seen.flatten(1), obs.A, obs.noise_var)
