"""Adapting a trained network to where it is used: from few pairs, or from measurements alone; never for the worse.

How much is learned anew is chosen by a part that is held out: how far what was learned counts (`strength`), a few
numbers, or all weights. Without x, a network learns from one half of the noise what the other half says: Pang, Zheng,
Quan & Ji (2021), and is judged so: Oliveira, Lei & Tibshirani (2021).
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.settings import checks_arguments
from fanfold.core.table import Table
from fanfold.core.units import power
from fanfold.estimators.base import Restrainable, SelfJudged
from fanfold.guard.answers import Pairs
from fanfold.guard.fallback import NoiseSplit
from fanfold.observation import Observation, check_finite
from fanfold.training.objective import LossTerms

STRENGTHS = (0.0, 0.25, 0.5, 0.75)  # of what was learned
FEW = 256  # numbers that are learned at the middle level: those of the smallest parameters, as many as fit
RATES = {"few numbers": 2e-2, "all weights": 1e-3}
STOPS = (50, 150, 400)  # steps after which a training is judged
SURE = 2.0  # standard errors by which the held-out error has to fall
LEAST = 10  # samples, of which three are held out

Judge = Callable[[nn.Module], Tensor]  # the loss of each held-out sample


class Adaptation(NamedTuple):
    """A network that was adapted, or the one that came where nothing was gained; made by `adapt`.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> ff.guard.adapt(net, problem.sample(20, torch.Generator().manual_seed(0))).gain_db >= 0
        True
    """

    network: nn.Module
    level: str  # what changed: "nothing", "strength 0.5", "few numbers" or "all weights"
    gain_db: float  # by how much the held-out loss fell, in dB of its sum; 0 if nothing changed
    tried: Table  # a row for each candidate

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence."""
        if self.level == "nothing":
            return (
                f"Nothing of {len(self.tried.rows)} ways to change it lowered the held-out loss by more than {SURE:g} "
                "standard errors: the network stays as it was."
            )
        return f"Changed: {self.level}; the held-out loss fell by {self.gain_db:.2f} dB."


@checks_arguments
def adapt(
    network: nn.Module, draws: Pairs | Observation, *, held_out: float = 0.3, seed: int = 0, all_weights: bool | None = None
) -> Adaptation:
    """Adapt a copy of a network to draws of another place; the one that came is never changed.

    Args:
        network: Any trained network.
        draws: Pairs of x `(samples, n)` and their observation, or an observation alone, whose noise variance and
            operator are then known.
        held_out: The share of the samples, from the end, that decides.
        seed: The seed of the noise that splits measurements.
        all_weights: Whether all weights may be learned anew; by default with x, and not without, as what is not
            measured would be free to become anything.

    Raises:
        ValueError: If there are fewer than 10 samples, the shapes do not fit, or measurements alone lack their noise
            variance.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
        >>> net = ff.unfold(ff.algorithms.ISTA(lam=0.1), problem, 8, {"step": "per-layer", "threshold": "per-layer"})
        >>> there = problem.shifted(snr_db=0.0)
        >>> adapted = ff.guard.adapt(net, there.sample(100, torch.Generator().manual_seed(0)))
        >>> x, obs = there.sample(500, torch.Generator().manual_seed(1))
        >>> bool((adapted.network(obs).x - x).square().sum() < (net(obs).x - x).square().sum())
        True
    """
    x, obs = draws if isinstance(draws, tuple) else (None, draws)
    count = len(obs.y)
    if count < LEAST:
        raise ValueError(f"there are {count} samples to adapt to; pass at least {LEAST}.")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; pass the share of the samples that decides, between 0 and 1.")
    if x is not None:
        check_finite("x", x)
        if len(x) != count:
            raise ValueError(f"x has {len(x)} samples and y has {count}; pass as many of each.")
    first = min(max(round(count * (1 - held_out)), 1), count - 3)
    if x is None:
        lessons: Lessons = OfMeasurements(obs[:first], NoiseSplit(seed=seed))
        judge: Judge = OfMeasurements(obs[first:], NoiseSplit(seed=seed + 1)).losses
    else:
        lessons = OfPairs(x[:first], obs[:first])
        judge = OfPairs(x[first:], obs[first:]).errors
    return _chosen(network, lessons, judge, labelled=x is not None, all_weights=x is not None if all_weights is None else all_weights)


class OfPairs(NamedTuple):
    """Losses of a network by pairs.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.adaptation import OfPairs
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> OfPairs(*problem.sample(5, torch.Generator().manual_seed(0))).errors(ff.iterate(ff.algorithms.ISTA(), 3)).shape
        torch.Size([5])
    """

    x: Tensor
    obs: Observation

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """What a step of learning minimises: the network's own loss, or the logarithm of the error."""
        if ability(network, SelfJudged) is not None:
            return LossTerms(network)(self.obs, 0, x=self.x)[0].mean()
        return self.errors(network).sum().log()

    def errors(self, network: Callable) -> Tensor:
        """The squared error of each sample, `(batch,)`."""
        return power(network(self.obs).x - self.x).flatten(1).sum(-1).double()


class OfMeasurements(NamedTuple):
    """Losses of a network by measurements alone, each judged by the half of its noise that it has not seen.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.adaptation import OfMeasurements
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> obs = problem.sample(5, torch.Generator().manual_seed(0))[1]
        >>> OfMeasurements(obs, ff.guard.NoiseSplit()).losses(ff.iterate(ff.algorithms.ISTA(), 3)).shape
        torch.Size([5])
    """

    obs: Observation
    split: NoiseSplit

    def loss(self, network: nn.Module, step: int) -> Tensor:
        """What a step of learning minimises; the noise is split anew at every step."""
        return self._losses(network, range(step * len(self.obs.y), (step + 1) * len(self.obs.y))).mean()

    def losses(self, network: Callable) -> Tensor:
        """The loss at the measurements, of each sample, less that of silence, which has a mean of its own: `(batch,)`."""
        repeated = [self._losses(network, range(k * len(self.obs.y), (k + 1) * len(self.obs.y))) for k in range(8)]
        return torch.stack(repeated).mean(0).double()

    def _losses(self, network: Callable, calls: range) -> Tensor:
        halves = self.split.halves(self.obs, calls)
        seen = self.split.measured(halves.obs, network(halves.obs).x)
        return power(seen - halves.judge).sum(-1) - power(halves.judge).sum(-1)


Lessons = OfPairs | OfMeasurements


def _chosen(network: nn.Module, lessons: Lessons, judge: Judge, *, labelled: bool, all_weights: bool) -> Adaptation:
    """The candidate with the least held-out loss, if that is surely less than the network's."""
    with torch.no_grad():
        before = judge(network)
    rows, best = [], (0.0, "nothing", network, before)
    for level, candidate in _candidates(network, lessons, all_weights=all_weights):
        with torch.no_grad():
            after = judge(candidate)
        gain = before.log10() - after.log10() if labelled else before - after
        error = gain.std().item() / len(gain) ** 0.5
        print(level, 10*gain.mean().item(), 10*error, 10*(before.sum()/after.sum()).log10().item())
        sure = bool(torch.isfinite(after).all()) and gain.mean().item() > SURE * error
        rows.append({"level": level, "gain": gain.mean().item(), "standard_error": error, "sure": sure})
        if sure and gain.mean().item() > best[0]:
            best = (gain.mean().item(), level, copy.deepcopy(candidate), after)
    _, level, chosen, after = best
    return Adaptation(chosen, level, _fall_db(before, after), Table(rows))


def _fall_db(before: Tensor, after: Tensor) -> float:
    ratio = before.sum() / after.sum()
    return 10 * ratio.log10().item() if ratio > 0 else float("nan")


def _candidates(network: nn.Module, lessons: Lessons, *, all_weights: bool) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the network, from the least that may change to the most."""
    copied = copy.deepcopy(network)
    if (knob := ability(copied, Restrainable)) is not None:
        full = knob.strength
        for strength in STRENGTHS:
            knob.strength = full * strength
            yield f"strength {strength:g}", copied
    yield from _learned(network, lessons, "few numbers", _few)
    if all_weights:
        yield from _learned(network, lessons, "all weights", lambda net: list(net.parameters()))


def _learned(
    network: nn.Module, lessons: Lessons, level: str, which: Callable[[nn.Module], list[nn.Parameter]]
) -> Iterator[tuple[str, nn.Module]]:
    """The network as it is after some steps on these parameters."""
    net = copy.deepcopy(network)
    parameters = which(net)
    if not parameters:
        return
    optimiser = torch.optim.Adam(parameters, lr=RATES[level])
    for step in range(max(STOPS)):
        optimiser.zero_grad()
        loss = lessons.loss(net, step)
        if not torch.isfinite(loss):
            return
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step + 1 in STOPS:
            yield f"{level}, {step + 1} steps", net


def _few(network: nn.Module) -> list[nn.Parameter]:
    """The smallest parameters, as many as have `FEW` numbers together; none where these are all there are."""
    ordered, few, numbers = sorted(network.parameters(), key=lambda p: p.numel()), [], 0
    for parameter in ordered:
        if numbers + parameter.numel() > FEW:
            break
        few.append(parameter)
        numbers += parameter.numel()
    return few
