"""A few channels, as they are measured at a new place. To turn, delay and add them up: fanfold's own idea."""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from fanfold.core.streams import generator_of
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Nested
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.propagation import Layout, Part

SUM_SHARE = 0.5  # of varied channels, that are sums of two
TILT_DEVIATION = 0.1  # of the change of a direction cosine, along the columns and along the rows
DELAY_DEVIATION_S = 200e-9  # of the change of the delay, in seconds

Draws = tuple[Tensor, Observation]


@dataclass(frozen=True)
class FewChannels(Nested):
    """`count` channels of an OFDM problem, of which a fifth is held out: what is measured at a new place.

    Known channels are observed anew each time. Where they are not known there is one observation of each, which
    `sample` returns together with the channel for whoever wants to compare. Those to train on are varied: half of them
    are sums of two, and all come from a little elsewhere and a little later or sooner.

    Raises:
        ValueError: If there are fewer than five, or, when they are drawn, fewer are stored.

    Example:
        >>> import fanfold as ff
        >>> few = ff.problems.FewChannels(ff.problems.OFDMChannel("umi"), count=100)
        >>> [len(part.drawn()[0]) for part in (few, few.held_out())]
        [80, 20]
    """

    problem: OFDMChannel = field(default_factory=OFDMChannel)  # the problem that the channels are of
    count: int = 100  # number of channels, with those held out
    known: bool = True  # whether the channels are known; else their noisy pilots alone
    seed: int = 0  # seed of the choice of channels
    part: Part = "train"  # train, or the fifth that is held out
    varied: bool = True  # whether the channels to train on are varied

    def __post_init__(self):
        if self.count < 5:
            raise ValueError(f"{self.count} channels; pass at least five, a fifth of them is held out.")

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The operator of the OFDM problem, from a channel to its pilots."""
        return self.problem.A

    @property
    def layout(self) -> Layout:
        """Shape and numerology of a channel."""
        return self.problem.layout

    @property
    def mask(self) -> Tensor:
        """Where the pilots are: `(symbols, subcarriers)`, boolean."""
        return self.problem.mask

    @property
    def fingerprint(self) -> str | None:
        """The hash of the channels that are stored; None if all are drawn afresh."""
        return self.problem.fingerprint

    def drawn(self) -> Draws:
        """The channels of this part, each once and as they are, and one observation of each."""
        x, obs = _chosen(self.problem, self.count, self.seed, self.fingerprint)
        held_out = max(1, self.count // 5)
        rows = slice(0, self.count - held_out) if self.part == "train" else slice(self.count - held_out, None)
        return x[rows], obs[rows]

    def sample(self, n: int, generator: torch.Generator) -> Draws:
        """Draw `n` of the channels at random, varied if this is so wished, and their observation."""
        x, obs = self.drawn()
        pick = torch.randint(len(x), (n,), generator=generator)
        x, obs = x[pick], obs[pick]
        if self.varied and self.part == "train":
            other = torch.randint(len(x), (n,), generator=generator)
            x, obs = self._vary((x, obs), (x[other], obs[other]), generator)
        return x, self.problem.observe(x, generator) if self.known else obs

    def distinct(self, n: int, generator: torch.Generator) -> Draws:
        """Draw `n` of the channels as they are, none twice, and their observation.

        Raises:
            ValueError: If there are fewer.
        """
        x, obs = self.drawn()
        if n > len(x):
            raise ValueError(f"{n} different channels are wanted and {len(x)} are there; leave simulations at 0.")
        pick = torch.randperm(len(x), generator=generator)[:n]
        return x[pick], self.problem.observe(x[pick], generator) if self.known else obs[pick]

    def _vary(self, one: Draws, two: Draws, generator: torch.Generator) -> Draws:
        """Channels and observations turned alike, which leaves the noise as white as it was, and half of them added."""
        (x, obs), (x2, obs2) = one, two
        turn = turns(self.problem.layout, len(x), generator)
        share = torch.rand(len(x), 1, generator=generator)
        share = torch.where(torch.rand(len(x), 1, generator=generator) < SUM_SHARE, share, torch.ones(()))
        phase = torch.polar((1 - share).sqrt(), 2 * math.pi * torch.rand(len(x), 1, generator=generator))
        noise_var = obs.noise_var
        if noise_var is not None and obs2.noise_var is not None:
            noise_var = share * noise_var + (1 - share) * obs2.noise_var
        y = (self.A @ turn) * (share.sqrt() * obs.y + phase * obs2.y)
        return turn * (share.sqrt() * x + phase * x2), Observation(y, obs.A, noise_var)

    def held_out(self) -> Self:
        """The fifth that is kept."""
        return replace(self, part="test")


@lru_cache(maxsize=4)
def _chosen(problem: OFDMChannel, count: int, seed: int, fingerprint: str | None) -> Draws:
    """The channels of both parts; other stored channels, by their fingerprint, are chosen anew."""
    # No stream: the count stands in its place, so that each count has a choice of its own. From five to eight channels
    # it is the number of a stream, whose first draw then has the same seed; a stream would move all that was adapted.
    return problem.distinct(count, generator_of(seed, count))


def turns(layout: Layout, n: int, generator: torch.Generator) -> Tensor:
    """Phases `(n, layout.n)` of a small change of direction and of delay, alike in all polarisations and symbols.

    Columns and rows are taken to be half a wavelength apart.
    """
    phase = torch.zeros(n, *layout.array, 1, layout.subcarriers)
    for axis, size in list(enumerate(layout.array, start=1))[-2:]:
        steps = math.pi * TILT_DEVIATION * torch.randn(n, 1, generator=generator) * torch.arange(size)
        phase = phase + steps.reshape(n, *(size if k == axis else 1 for k in range(1, phase.ndim)))
    late = DELAY_DEVIATION_S * layout.spacing_hz * torch.randn(n, 1, generator=generator)
    late = late * torch.arange(layout.subcarriers)
    phase = phase - 2 * math.pi * late.reshape(n, *[1] * (phase.ndim - 2), layout.subcarriers)
    phase = phase.expand(n, *layout.array, layout.symbols, layout.subcarriers).reshape(n, layout.n)
    return torch.polar(torch.ones_like(phase), phase)
