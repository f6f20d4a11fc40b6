"""Adapting a trained channel network to where it is deployed, from few channels, or from their noisy pilots alone.

Without channels the risk at the pilots is estimated without bias, Stein (1981), with a probed divergence, Ramani, Blu &
Unser (2008). Few channels are made many: turned, delayed and added up, fanfold's own idea.
"""

import math
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.streams import generator_of
from fanfold.core.units import power
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.propagation import Layout, Part

STEP = 0.05  # of the probe, in standard deviations of the noise
SUMS = 0.5  # share of varied channels that are sums of two
TILT = 0.1  # standard deviation of the change of a direction cosine, along the columns and along the rows
LATER = 200e-9  # s, that of the change of the delay

Pairs = tuple[Tensor, Observation]


@dataclass(frozen=True)
class FewChannels:
    """A problem whose channels are `count` draws of another; a fifth is held out.

    Known channels are observed anew each time. Where they are not known there is one observation of each, which
    `sample` returns together with the channel for whoever wants to compare. Those to train on are varied: half of them
    are sums of two, and all come from a little elsewhere and a little later or sooner.

    Raises:
        ValueError: If there are fewer than five, or fewer are stored than are wanted.
    """

    problem: OFDMChannel
    count: int
    known: bool = True  # the channels
    seed: int = 0
    part: Part = "train"
    varied: bool = True  # those to train on

    def __post_init__(self):
        if self.count < 5:
            raise ValueError(f"{self.count} channels; pass at least five, a fifth of them is held out.")

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """Of the other problem."""
        return self.problem.A

    @cached_property
    def pairs(self) -> tuple[Tensor, Observation]:
        """The channels of this part and one observation of each."""
        x, obs = self.problem.distinct(self.count, generator_of(self.seed, self.count))
        held_out = max(1, self.count // 5)
        rows = slice(0, self.count - held_out) if self.part == "train" else slice(self.count - held_out, None)
        return x[rows], obs[rows]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` of the channels, at random, and their observation."""
        x, obs = self.pairs
        pick = torch.randint(len(x), (n,), generator=generator)
        x, obs = x[pick], obs[pick]
        if self.varied and self.part == "train":
            other = torch.randint(len(x), (n,), generator=generator)
            x, obs = self._vary((x, obs), (x[other], obs[other]), generator)
        return x, self.problem.observe(x, generator) if self.known else obs

    def distinct(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` of the channels as they are, none twice, and their observation.

        Raises:
            ValueError: If there are fewer.
        """
        x, obs = self.pairs
        if n > len(x):
            raise ValueError(f"{n} different channels are wanted and {len(x)} are there; leave simulations at 0.")
        pick = torch.randperm(len(x), generator=generator)[:n]
        return x[pick], self.problem.observe(x[pick], generator) if self.known else obs[pick]

    def _vary(self, one: Pairs, two: Pairs, generator: torch.Generator) -> Pairs:
        """Channels and observations turned alike, which leaves the noise as white as it was, and some of them added."""
        (x, obs), (x2, obs2) = one, two
        turn = turns(self.problem.layout, len(x), generator)
        share = torch.rand(len(x), 1, generator=generator)
        share = torch.where(torch.rand(len(x), 1, generator=generator) < SUMS, share, torch.ones(()))
        phase = torch.polar((1 - share).sqrt(), 2 * math.pi * torch.rand(len(x), 1, generator=generator))
        noise_var = obs.noise_var
        if noise_var is not None and obs2.noise_var is not None:
            noise_var = share * noise_var + (1 - share) * obs2.noise_var
        y = (self.A @ turn) * (share.sqrt() * obs.y + phase * obs2.y)
        return turn * (share.sqrt() * x + phase * x2), Observation(y, obs.A, noise_var)

    def shifted(self, **changes: Any) -> "FewChannels":
        """The same number of draws of a changed problem."""
        return replace(self, problem=self.problem.shifted(**changes))

    def held_out(self) -> "FewChannels":
        """The fifth that is kept."""
        return replace(self, part="test")


def turns(layout: Layout, n: int, generator: torch.Generator) -> Tensor:
    """Phases `(n, layout.n)` of a small change of direction and of delay, alike in all polarisations and symbols.

    Columns and rows are half a wavelength apart.
    """
    phase = torch.zeros(n, *layout.array, 1, layout.subcarriers)
    for axis, size in list(enumerate(layout.array, start=1))[-2:]:
        steps = math.pi * TILT * torch.randn(n, 1, generator=generator) * torch.arange(size)
        phase = phase + steps.reshape(n, *(size if k == axis else 1 for k in range(1, phase.ndim)))
    late = LATER * layout.spacing_hz * torch.randn(n, 1, generator=generator) * torch.arange(layout.subcarriers)
    phase = phase - 2 * math.pi * late.reshape(n, *[1] * (phase.ndim - 2), layout.subcarriers)
    phase = phase.expand(n, *layout.array, layout.symbols, layout.subcarriers).reshape(n, layout.n)
    return torch.polar(torch.ones_like(phase), phase)


class Adapted(nn.Module):
    """A trained network that goes on training elsewhere; what it learned in closed form stays.

    Args:
        net: With `forward(obs)` and `losses(obs, x)`.
        known: Whether channels are known there; if not, pilots and the noise variance are.
        seed: Of the probes.
    """

    def __init__(self, net: nn.Module, known: bool, seed: int = 0):
        super().__init__()
        self.net, self.known, self.seed = net, known, seed

    def forward(self, obs: Observation) -> Estimate:
        """As the network does."""
        return self.net(obs)

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """The network's own losses, or the estimated risk at the pilots over the noise variance.

        Raises:
            ValueError: If neither channels nor the noise variance are known.
        """
        if self.known:
            return self.net.losses(obs, x)  # type: ignore[operator]
        if obs.noise_var is None or obs.A is None:
            raise ValueError("without channels the risk takes noise_var and A; pass both in the Observation.")
        drawn = zlib.crc32(obs.y.detach().cpu().resolve_conj().numpy().tobytes())  # the same probes when a run resumes
        return unbiased_risk(self.net, obs, generator_of(self.seed, drawn))


def unbiased_risk(estimator: nn.Module, obs: Observation, generator: torch.Generator) -> Tensor:
    """An unbiased estimate of `E‖A x_hat − A x‖² / (m noise_var)` of each observation, `(batch,)`; complex y.

    `‖A x_hat(y) − y‖²/m − noise_var + 2 noise_var Re bᴴ(A x_hat(y + εb) − A x_hat(y)) / (ε m)` with `b ~ CN(0, I)`.
    """
    assert obs.A is not None
    assert obs.noise_var is not None
    noise_var = obs.noise_var.expand(len(obs.y), 1)
    b = torch.randn(obs.y.shape, generator=generator, dtype=obs.y.dtype, device=generator.device).to(obs.y.device)
    step = STEP * noise_var.sqrt()
    fitted = obs.A @ estimator(obs).x
    moved = obs.A @ estimator(Observation.unchecked(obs.y + step * b, obs.A, obs.noise_var)).x
    divergence = ((moved - fitted) * b.conj()).real.mean(-1, keepdim=True) / step
    risk = power(fitted - obs.y).mean(-1, keepdim=True) / noise_var - 1 + 2 * divergence
    return risk.flatten()
