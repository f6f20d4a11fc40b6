"""An ensemble for one observation, by truncated proposals. Deistler, Gonçalves & Macke (2022), algorithm 1.

Each round draws from the prior, given that the parameters lie in a box that holds the posterior at the observation. As
the prior within the box is only cut and not reweighed, squared error still gives the posterior mean.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fanfold.core.arrays import tensor_of
from fanfold.estimators.base import Region, Settings
from fanfold.estimators.posterior.ensemble import Ensemble
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.scales import BOUNDED, Limits
from fanfold.measurements import Measurements, takes_measurements
from fanfold.observation import Estimate, Estimator, Observation, check_finite
from fanfold.problems.base import Problem

DRAWS = 10_000  # of the posterior, whose quantiles make a box
OUTSIDE = 1e-3  # share of these that lies outside, before the margin
REACH = 3.3  # standard deviations on either side of the estimate that the box holds too
MARGIN = 1.0  # standard deviation that is added at either end
EDGE = 1e-5  # of the range of a bounded parameter, nearer to whose end the box ends there
NEIGHBOURS, MOST_COMPARED = 5, 4000  # of an observation, and of draws among which they are looked for
SLACK = 0.1  # of the range of an entry of y among draws, beyond which an observation is unlike them


class Focused(nn.Module):
    """An `Ensemble` that is trained for one observation, in rounds; made by `ff.neural(problem, observed=y)`.

    After each round a box holds all but a small share of draws from the posterior that it learned, with a margin, and
    the next round simulates there alone; a box whose draws the observation is unlike is left. Estimates are right as
    long as the box holds the posterior's mass. Other observations are estimated too, with a warning where they lie
    outside the range of what the box gives.

    Args:
        make: Makes an untrained ensemble.
        observed: The observation, a batch of one.
        limits: The least and the largest value of each parameter.
        rounds: The number of rounds.

    Attributes:
        rounds: The number of rounds.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> ff.neural(problem, observed=torch.ones(3)).rounds
        3
    """

    scale_equivariant: ClassVar[bool] = False
    observed: Tensor
    low: Tensor
    high: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, make: Callable[[], Ensemble], observed: Observation, limits: Limits, rounds: int):
        super().__init__()
        self.rounds, self._make, self._limits, self.net = rounds, make, limits, make()
        low, high = self.everywhere
        y = _real(observed.y)
        self.register_buffer("observed", observed.y)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())
        self.register_buffer("least", torch.full_like(y[0], -torch.inf))  # entry by entry, of the draws in the box
        self.register_buffer("most", torch.full_like(y[0], torch.inf))

    @property
    def settings(self) -> Settings | None:
        """What builds it again, with the sizes that it has taken."""
        return self.net.settings

    @property
    def origin(self) -> tuple[str, Estimator]:
        """The best linear estimator of the draws in the box."""
        return self.net.origin

    @property
    def strength(self) -> float:
        """In [0, 1], scales the deviation from the best linear estimator."""
        return self.net.strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self.net.strength = strength

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean and variance of the posterior, `(..., n)`."""
        self._look_at(obs)
        return self.net(obs)

    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Draws `(count, ..., n)` from the posterior, as the ensemble gives them."""
        self._look_at(obs)
        return self.net.sample(obs, count, generator)

    # Rounds

    @property
    def everywhere(self) -> Region:
        """The limits of the prior, which the first round draws from."""
        low, high = torch.tensor(self._limits, dtype=torch.float64).mT
        return Region(low, high)

    def renewed(self) -> Ensemble:
        """The ensemble that a round trains, untrained."""
        self.net = self._make().to(self.observed.device)
        return self.net

    @torch.no_grad()
    def narrowed(self, generator: torch.Generator, wider: float = 1.0) -> Region:
        """The part of the box that holds all but a small share of the posterior at the observation, with a margin.

        It is found on the unbounded scale of each parameter, and so many times as wide as usual. Where the posterior
        has left the box, the box stays.
        """
        scales, obs = self.net.scales, Observation(self.observed)
        draws = scales.free(self.net.sample(obs, DRAWS, generator)[:, 0]).double()
        middle, width = scales.free(self.net(obs).x[0]).double(), draws.std(0)
        levels = draws.new_tensor([OUTSIDE / 2, 1 - OUTSIDE / 2])
        low, high = middle + wider * (torch.quantile(draws, levels, dim=0) - middle)
        width = wider * width
        low = torch.minimum(low, middle - REACH * width) - MARGIN * width
        high = torch.maximum(high, middle + REACH * width) + MARGIN * width
        # in the precision of the parameters, so that rounding moves none out of the box
        low, high = (scales.back(end.to(scales.low)).double() for end in (low, high))
        span = EDGE * (scales.high - scales.low).double()
        bounded = scales.kind == BOUNDED
        low = torch.where(bounded & (low - scales.low < span), self.low, torch.maximum(low, self.low))
        high = torch.where(bounded & (scales.high - high < span), self.high, torch.minimum(high, self.high))
        apart = low < high
        return Region(torch.where(apart, low, self.low).cpu(), torch.where(apart, high, self.high).cpu())

    def settle(self, region: Region, obs: Observation) -> None:
        """Take the box of a round, and the range of y that its draws give."""
        self.low.copy_(region.low)
        self.high.copy_(region.high)
        y = _real(obs.y)
        slack = SLACK * (y.amax(0) - y.amin(0))
        self.least.copy_(y.amin(0) - slack)
        self.most.copy_(y.amax(0) + slack)

    @torch.no_grad()
    def likeness(self, draws: Observation) -> float:
        """The share of draws whose nearest others lie no nearer than the observation's, a p-value.

        What counts is the mean distance of the five nearest; of too few draws it is 1.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is said of draws, training has said
            features = Features(draws, self.net.features.kind, adaptive=self.net.features.adaptive)
            features.prepare(draws)
        z, observed = (features(obs).flatten(1) for obs in (draws[:MOST_COMPARED], Observation(self.observed)))
        if len(z) <= NEIGHBOURS:
            return 1.0
        apart = torch.cdist(z, z).fill_diagonal_(torch.inf)
        own, other = (d.topk(NEIGHBOURS, largest=False).values.mean(-1) for d in (apart, torch.cdist(observed, z)))
        return (1 + int((own >= other).sum())) / (len(z) + 1)

    def _look_at(self, obs: Observation) -> None:
        """Warn of observations that no draws from the box are like."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # values are not there yet
            return
        y = _real(obs.y).flatten(0, obs.y.ndim - self.observed.ndim)
        unlike = ((y < self.least) | (y > self.most)).flatten(1).any(1)
        if unlike.any():
            warnings.warn(
                f"{int(unlike.sum())} of {len(y)} observations lie outside the range of those that parameters in the "
                "box give: the network was made for one observation, and knows nothing of these. Make another one with "
                "observed=y, or one for all with observed=None.",
                stacklevel=3,
            )


def numbers_of_one(observed: Measurements, problem: Problem) -> tuple[float, ...]:
    """One observation as plain numbers, real and imaginary parts in turn where it is complex.

    Args:
        observed: The observation, of the shape of one sample or a batch of one.
        problem: Says, by two draws, which shape that is.

    Raises:
        ValueError: If it has another shape, or an entry is not finite.
    """
    y = observed.y if isinstance(observed, Observation) else tensor_of(observed, "observed")
    like = problem.sample(2, torch.Generator().manual_seed(0))[1].y
    if tuple(y.shape) not in (tuple(like.shape[1:]), (1, *like.shape[1:])) or (
        y.is_complex() and not like.is_complex()
    ):
        raise ValueError(
            f"observed is {y.dtype} of shape {tuple(y.shape)} and an observation of the problem {like.dtype} of shape "
            f"{tuple(like.shape[1:])}; pass one observation, without the batch."
        )
    check_finite("observed", y)
    return tuple(_real(y.detach().to(like.dtype)).flatten().tolist())


def observation_of(numbers: Sequence[float], x: Tensor, obs: Observation) -> Observation:
    """The observation that has these numbers, as a batch of one.

    Args:
        numbers: As `numbers_of_one` gives them.
        x: Parameters as they are drawn, `(..., n)`.
        obs: Observations as they are drawn.

    Raises:
        ValueError: If they are too few or too many, or the problem has complex parameters, an operator or a noise
            variance for each draw.
    """
    like = _real(obs.y[:1])
    if len(numbers) != like.numel():
        raise ValueError(f"observed has {len(numbers)} numbers, and an observation of the problem {like.numel()}.")
    if x.is_complex() or obs.A is not None or (obs.noise_var is not None and obs.noise_var.ndim):
        raise ValueError(
            "rounds near one observation are for real parameters and problems without an operator or a noise variance "
            "of each draw; leave observed out."
        )
    y = torch.tensor(numbers, dtype=like.dtype).reshape(like.shape)
    return Observation(torch.view_as_complex(y) if obs.y.is_complex() else y)


def _real(y: Tensor) -> Tensor:
    return torch.view_as_real(y) if y.is_complex() else y
