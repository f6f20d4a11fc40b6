"""Adapting a trained channel network to where it is deployed, from few channels, or from their noisy pilots alone.

Without channels the risk at the pilots is estimated without bias, Stein (1981), with a probed divergence, Ramani, Blu &
Unser (2008).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.draws import generator_of
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.problems.ofdm_channel import OFDMChannel
from fanfold.propagation import Part
from fanfold.units import power

STEP = 0.05  # of the probe, in standard deviations of the noise


@dataclass(frozen=True)
class FewChannels:
    """A problem whose channels are `count` draws of another; a fifth is held out.

    Known channels are observed anew each time. Where they are not known there is one observation of each, which
    `sample` returns together with the channel for whoever wants to compare.

    Raises:
        ValueError: If there are fewer than five.
    """

    problem: OFDMChannel
    count: int
    known: bool = True  # the channels
    seed: int = 0
    part: Part = "train"

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
        x, obs = self.problem.sample(self.count, generator_of(self.seed, self.count))
        held_out = max(1, self.count // 5)
        rows = slice(0, self.count - held_out) if self.part == "train" else slice(self.count - held_out, None)
        return x[rows], obs[rows]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` of the channels, at random, and their observation."""
        x, obs = self.pairs
        pick = torch.randint(len(x), (n,), generator=generator)
        return x[pick], self.problem.observe(x[pick], generator) if self.known else obs[pick]

    def shifted(self, **changes: Any) -> "FewChannels":
        """The same number of draws of a changed problem."""
        return replace(self, problem=self.problem.shifted(**changes))

    def held_out(self) -> "FewChannels":
        """The fifth that is kept."""
        return replace(self, part="test")


class Adapted(nn.Module):
    """A trained network that goes on training elsewhere; what it learned in closed form stays.

    Args:
        net: With `forward(obs)` and `losses(obs, x)`.
        known: Whether channels are known there; if not, pilots and the noise variance are.
        seed: Of the probes.
    """

    def __init__(self, net: nn.Module, known: bool, seed: int = 0):
        super().__init__()
        self.net, self.known = net, known
        self._generator = torch.Generator().manual_seed(seed)

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
        return unbiased_risk(self.net, obs, self._generator)


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
