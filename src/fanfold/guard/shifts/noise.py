"""Other noise: more of it, with or without the receiver's knowledge, or a wrong belief in the noise that there is."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db
from fanfold.guard.shifts.altered import Altered
from fanfold.observation import Observation
from fanfold.problems.protocols import noise_var_of


@dataclass(frozen=True)
class Noisier(Altered):
    """Noise whose standard deviation is `factor` times as large; unless `known`, observations say the old variance.

    Raises:
        ValueError: If the factor is below one, or the noise variance of a draw is not known.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> obs = ff.guard.Noisier(problem, factor=10.0).sample(3, torch.Generator().manual_seed(0))[1]
        >>> obs.noise_var == torch.tensor(problem.noise_var)
        tensor(True)
    """

    factor: float = 1.0  # of the standard deviation: 2 is 6 dB
    known: bool = False  # whether observations carry the new variance

    def __post_init__(self):
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}; pass 1 or more, of the standard deviation.")

    @property
    def nil(self) -> bool:
        """Whether the factor is one."""
        return self.factor == 1

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with more noise."""
        var = torch.as_tensor(noise_var_of(self.problem)) if obs.noise_var is None else obs.noise_var
        more = circular(tuple(obs.y.shape), generator, obs.y.dtype, (self.factor**2 - 1) * var.to(obs.y.real.dtype))
        said = obs.noise_var
        if said is not None and self.known:
            said = self.factor**2 * said
        return x, Observation(obs.y + more, obs.A, said)


@dataclass(frozen=True)
class Added(Altered):
    """White noise on top of the measurements, `level_db` over the power of each sample's; nothing says so.

    For measurements whose noise variance is not known, such as those of a simulator.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.Added(ff.problems.ReceiverChain(), level_db=-10.0)
        >>> problem.sample(3, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([3, 32])
    """

    level_db: float = -math.inf  # power of the added noise over that of a sample's measurements

    @property
    def nil(self) -> bool:
        """Whether there is none."""
        return self.level_db == -math.inf

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with noise on top."""
        y = obs.y
        white = circular(tuple(y.shape), generator, y.dtype) * size_of(y) * from_db(self.level_db) ** 0.5
        return x, Observation(y + white, obs.A, obs.noise_var)


@dataclass(frozen=True)
class NoiseClaimed(Altered):
    """The same measurements with a wrong noise variance beside them, `factor` times the true one.

    The law of y is what it was: only what holds y against the claim sees it.

    Raises:
        ValueError: If the factor is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.guard.NoiseClaimed(ff.problems.CompressedSensing(n=40, m=20), factor=0.25)
        >>> obs = problem.sample(3, torch.Generator().manual_seed(0))[1]
        >>> round((obs.noise_var / problem.problem.noise_var).item(), 3)
        0.25
    """

    factor: float = 1.0  # of the variance: 0.25 claims 6 dB too little

    def __post_init__(self):
        if not 0 < self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}; pass a positive one, of the variance.")

    @property
    def nil(self) -> bool:
        """Whether the factor is one."""
        return self.factor == 1

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The draws with the wrong variance beside them."""
        return x, Observation(obs.y, obs.A, None if obs.noise_var is None else self.factor * obs.noise_var)


def size_of(y: Tensor) -> Tensor:
    """The root mean square of each sample of y `(n, ...)`, with as many axes as y."""
    mean = y.abs().square().flatten(1).mean(-1).sqrt()
    return mean.reshape(-1, *[1] * (y.ndim - 1))
