"""By what an adaptation is judged: errors of pairs, or what measurements say of estimates from the half of their noise.

An estimate that has not seen a half of the noise is judged by it without bias: Oliveira, Lei & Tibshirani (2021).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, offers
from fanfold.core.units import power
from fanfold.estimators import ReceiverModel
from fanfold.estimators.base import Classifying, SelfJudged
from fanfold.guard.fallback import NoiseSplit
from fanfold.observation import Observation

SURE = 2.0  # standard errors by which a loss has to fall
SPLITS = 8  # of the noise of each observation
SUMS = 10  # of each held-out pair with others, which say whether large errors are rare or absent
SUM_SHARE = 0.3  # of their error in a lesson
MOST_RISE = 1.25  # of their error
AT_ONCE = 512  # of them, in one call of the network


class Gain(NamedTuple):
    """How much better a network is than another; made by `Losses.gain_over`.

    Example:
        >>> from fanfold.guard.adaptation_losses import Gain
        >>> Gain(0.3, 0.2, better=False).better
        False
    """

    mean: float  # over samples and kinds of loss
    error: float  # the standard error of the mean
    better: bool  # whether that is sure


class Losses(NamedTuple):
    """How a network does on some draws; made by `OfPairs` and `OfMeasurements`.

    Example:
        >>> import torch
        >>> from fanfold.guard.adaptation_losses import Losses
        >>> before = Losses(torch.ones(3, 1), torch.ones(1), most=torch.ones(1))
        >>> Losses(torch.zeros(3, 1), torch.ones(1)).gain_over(before)
        Gain(mean=1.0, error=0.0, better=True)
    """

    loss: Tensor  # (batch, kinds): the mean of none rises where a network becomes better, and that of one surely falls
    bounded: Tensor  # (any,), each of which has a bound
    most: Tensor = torch.empty(0)  # (any,), the bounds that this network sets to others

    @classmethod
    def joined(cls, parts: "Sequence[Losses]") -> "Losses":
        """Those of several sets of draws, as of one."""
        loss, bounded, most = zip(*parts, strict=True)
        return cls(torch.cat(loss), torch.stack(bounded).sum(0), torch.stack(most).sum(0))

    def gain_over(self, before: "Losses") -> Gain:
        """How much less these are than those of the network before."""
        fall = before.loss - self.loss
        means, errors = fall.mean(0), fall.std(0) / len(fall) ** 0.5
        within = (self.bounded <= before.most).all()  # which NaN is not
        better = within & (means >= 0).all() & (means > SURE * errors).any()
        return Gain(means.mean().item(), fall.mean(1).std().item() / len(fall) ** 0.5, bool(better))


class OfPairs(NamedTuple):
    """Losses of a network by pairs.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.adaptation_losses import OfPairs
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> judge = OfPairs(*problem.sample(5, torch.Generator().manual_seed(0)))
        >>> judge.losses(ff.unfold(ff.algorithms.ISTA(), problem, 3)).loss.shape
        torch.Size([5, 2])
    """

    x: Tensor
    obs: Observation
    seed: int = 0
    receiver: ReceiverModel | None = None  # what measured, where it is not what the network believes

    def part(self, which: slice | Tensor) -> "OfPairs":
        """Some of the pairs."""
        return self._replace(x=self.x[which], obs=self.obs[which])

    def through(self, receiver: ReceiverModel | None) -> "OfPairs":
        """The same pairs, whose measurements are corrected for a receiver before the network has them."""
        return self._replace(receiver=receiver)

    def lesson(self, network: nn.Module, step: int) -> Tensor:
        """What a step of learning minimises: the network's own loss, or logarithms of squared errors."""
        if (judge := ability(network, SelfJudged)) is not None:
            return judge.losses(self._given(network), self.x).mean()
        errors = self._errors(network)
        loss = (errors.log10().mean() + errors.mean().log10()) / 2
        if self.linear and len(self.x) > 1:
            loss = loss + SUM_SHARE * self._sums(1 + step % (len(self.x) - 1))._errors(network).mean().log10()
        return loss

    def losses(self, network: nn.Module) -> Losses:
        """Of pairs, and of pairs with their sums, in dB; or the network's own.

        A network that draws at random as it judges itself draws the same each time.
        """
        judge = ability(network, SelfJudged)
        if judge is not None and offers(network, Classifying):
            return Losses(self._judged(judge, network)[:, None], torch.zeros(1), torch.ones(1))
        errors = self._errors(network).double()
        bounded = errors.sum()[None]
        if judge is not None:
            return Losses(self._judged(judge, network)[:, None], bounded, bounded)
        loss = 10 * errors.log10()[:, None]
        if not self.linear:
            return Losses(loss, bounded, bounded)
        of_sums = self._errors_of_sums(network, range(1, min(SUMS + 1, len(self.x))))
        loss = torch.cat([loss, 10 * (errors + of_sums).log10()[:, None]], 1)
        bounded = torch.stack([errors.sum(), of_sums.sum()])
        return Losses(loss, bounded, bounded * torch.tensor([1.0, MOST_RISE], device=bounded.device))

    def unit(self, network: nn.Module) -> str:
        """What the losses are in."""
        return "of its loss" if offers(network, SelfJudged) else "dB"

    @property
    def linear(self) -> bool:
        """Whether sums of pairs are pairs."""
        return self.obs.A is not None and not self.obs.A.varies

    @torch.no_grad()
    def _given(self, network: nn.Module) -> Observation:
        """What the network is given."""
        return self.obs if self.receiver is None else self.receiver.corrected(self.obs, network)

    def _judged(self, judge: SelfJudged, network: nn.Module) -> Tensor:
        with torch.random.fork_rng([self.x.device] if self.x.is_cuda else []):
            torch.manual_seed(self.seed)
            return judge.losses(self._given(network), self.x).double()

    def _errors(self, network: nn.Module) -> Tensor:
        """Squared errors over the mean energy of x, never below rounding."""
        estimate = network(self._given(network))
        if self.receiver is not None:
            estimate = self.receiver.restored(estimate)
        errors, energy = (power(a).flatten(1).sum(-1) for a in (estimate.x - self.x, self.x))
        floor = torch.finfo(errors.dtype)
        return errors / energy.mean().clamp_min(floor.tiny) + floor.eps**2

    def _errors_of_sums(self, network: nn.Module, by: Sequence[int]) -> Tensor:
        """Their mean for each pair, `(batch,)`; sums go through the network together, as many as `AT_ONCE` allows."""
        count = max(1, AT_ONCE // len(self.x))
        errors = []
        for first in range(0, len(by), count):
            sums = [self._sums(k) for k in by[first : first + count]]
            y, x = torch.cat([s.obs.y for s in sums]), torch.cat([s.x for s in sums])
            each = [s.obs.noise_var for s in sums]
            var = each[0]
            if var is not None and var.ndim:
                var = torch.cat([v.expand(*self.obs.y.shape[:-1], 1) for v in each if v is not None])
            joined = self._replace(x=x, obs=Observation.unchecked(y, self.obs.A, var))
            errors += joined._errors(network).double().split(len(self.x))
        return torch.stack(errors).mean(0)

    def _sums(self, by: int) -> "OfPairs":
        """Each pair and the one so many places on, added: of `y = A x + w`, these are pairs too."""
        x, obs = self.x + self.x.roll(by, 0), self.obs
        var = obs.noise_var
        if var is not None:
            var = var + (var.roll(by, 0) if var.ndim else var)
        return self._replace(x=x, obs=Observation.unchecked(obs.y + obs.y.roll(by, 0), obs.A, var))


class OfMeasurements(NamedTuple):
    """Losses of a network by measurements alone, each judged by the half of its noise that it has not seen.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.adaptation_losses import OfMeasurements
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> obs = problem.sample(5, torch.Generator().manual_seed(0))[1]
        >>> OfMeasurements(obs, ff.guard.NoiseSplit()).losses(ff.unfold(ff.algorithms.ISTA(), problem, 3)).loss.shape
        torch.Size([5, 1])
    """

    obs: Observation
    split: NoiseSplit

    def losses(self, network: nn.Module) -> Losses:
        """How much more each estimate errs at its measurements than silence, and whether that is surely less or more.

        Of `‖A (x_hat - x)‖² - ‖A x‖²` it is an unbiased estimate, in units of the mean energy of y.
        """
        count = len(self.obs.y)
        excess = torch.zeros(count, dtype=torch.float64, device=self.obs.y.device)
        for k in range(SPLITS):
            halves = self.split.halves(self.obs, range(k * count, (k + 1) * count))
            seen = self.split.measured(halves.obs, network(halves.obs).x)
            excess += (power(seen) - 2 * (seen * halves.judge.conj()).real).double().sum(-1)
        excess /= SPLITS * power(self.obs.y).double().sum(-1).mean().clamp_min(torch.finfo(torch.float64).tiny)
        mean, error = excess.mean(), excess.std() / count**0.5
        worse_than_silence = mean - SURE * error > 0
        return Losses(excess[:, None], mean[None], torch.where(worse_than_silence, 0.0, -torch.inf)[None])

    def unit(self, network: nn.Module) -> str:
        """What the losses are in."""
        return "of the energy of y"
