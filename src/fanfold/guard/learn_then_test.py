"""Settings whose risk is proved under declared shifts. Angelopoulos, Bates, Candès, Jordan & Lei, LTT (2021).

A setting is a strength of the network and a distance at which the baseline answers instead. Of each the hypothesis
"its risk is above the limit in some cell" is tested: the largest of the cells' p-values is one for it, and the
procedure of Holm (1979) keeps the chance of a single wrong rejection among all settings below the level, whatever they
have in common.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from fanfold.core.abilities import ability
from fanfold.core.settings import checks_arguments
from fanfold.estimators.base import Restrainable
from fanfold.guard.answers import answers, independent_draws
from fanfold.guard.fallback.samples import distance, trailing
from fanfold.guard.monitoring import Monitor
from fanfold.guard.shifts import Shift
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import Problem

Loss = Callable[[Tensor, Tensor], Tensor]
HOME = "none"  # the name of the cell without a shift
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DISTANCES = (0.1, 0.3, 1.0, 3.0, math.inf)  # over the norm of the baseline's estimate
P_VALUES = (0.0, 0.001, 0.01, 0.1)
FIRST_DRAW = 2**20  # number of the first cell's draws of a seed: monitors and guards are calibrated on those before


def clipped_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """The squared error of each sample over the power of its signal, at most 1: `(batch, ...)` -> `(batch,)`."""
    error, size = distance(x_hat - x), distance(x)
    return torch.where(size > 0, error / size, (error > 0).double()).square().nan_to_num(nan=1.0).clamp_max(1.0)


class TriedSetting(NamedTuple):
    """One setting, and what was proved of it.

    Example:
        >>> from fanfold.guard.learn_then_test import TriedSetting
        >>> TriedSetting(0.5, 1.0, (0.02, 0.04), 1e-6, True).worst
        0.04
    """

    strength: float  # of the network
    threshold: float  # the distance above which, or p-value up to which, the baseline answers
    risks: tuple[float, ...]  # mean loss on the draws of each cell
    p_value: float  # of "the risk is above the limit in some cell"
    proved: bool  # that it is not, with all others that are proved

    @property
    def worst(self) -> float:
        """The largest of the risks."""
        return max(self.risks)


class LearnThenTest(NamedTuple):
    """The settings that were tested; made by `learn_then_test`.

    Example:
        >>> from fanfold.guard.learn_then_test import LearnThenTest, TriedSetting
        >>> tested = LearnThenTest(("none",), (TriedSetting(1.0, 0.3, (0.2,), 0.4, False),), 0.1, 0.05, 500)
        >>> tested.best is None, tested.verdict[:36]
        (True, 'None of 1 settings is proved to have')
    """

    cells: tuple[str, ...]  # names, the one without a shift first
    settings: tuple[TriedSetting, ...]
    at_most: float  # the limit on the risk in each cell
    delta: float  # the chance of any wrong proof
    samples: int  # of each cell

    @property
    def proved(self) -> tuple[TriedSetting, ...]:
        """Those whose risk is proved to be at most the limit in every cell."""
        return tuple(setting for setting in self.settings if setting.proved)

    @property
    def best(self) -> TriedSetting | None:
        """The proved one with the least mean risk over the cells; None if there is none."""
        return min(self.proved, key=lambda setting: sum(setting.risks), default=None)

    @property
    def verdict(self) -> str:
        """What is proved, and under what, in a sentence."""
        cells, least = len(self.cells), min(self.settings, key=lambda setting: setting.worst)
        if self.best is None:
            worst = self.cells[int(np.argmax(least.risks))]
            return (
                f"None of {len(self.settings)} settings is proved to have a risk of at most {self.at_most:g} in each "
                f"of {cells} cells; the least that was seen in a worst cell is {least.worst:.3g}, in {worst}."
            )
        return (
            f"{len(self.proved)} of {len(self.settings)} settings have a risk of at most {self.at_most:g} in each of "
            f"{cells} cells, all of them at once but for a chance of {self.delta:g}, from {self.samples} draws of "
            f"each: it holds for these shifts and no others. The best has strength {self.best.strength:g} and "
            f"threshold {self.best.threshold:g}."
        )


class Switched:
    """A network at one strength, with a baseline that answers what is too strange.

    Args:
        estimator: The network, at its strength.
        baseline: What answers instead.
        threshold: The distance between both, over the norm of the baseline's estimate, above which it does; with a
            monitor the p-value up to which it does.
        monitor: What gives p-values, around the network at the strength that it was tested with; None takes the
            distance.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 10), ff.iterate(ff.algorithms.FISTA(lam=0.1), 50)
        >>> x, obs = problem.sample(5, torch.Generator().manual_seed(0))
        >>> torch.equal(ff.guard.Switched(net, safe, threshold=0.0)(obs).x, safe(obs).x)
        True
    """

    def __init__(self, estimator: Estimator, baseline: Estimator, threshold: float, monitor: Monitor | None = None):
        self.estimator, self.baseline, self.threshold, self.monitor = estimator, baseline, threshold, monitor

    @takes_measurements
    @torch.no_grad()
    def __call__(self, obs: Observation) -> Estimate:
        """The estimates `(batch, n)` of a batch of measurements."""
        network, beside = answers(self.estimator, obs), answers(self.baseline, obs)
        p = None if self.monitor is None else self.monitor.p_values(obs)
        return Estimate(_chosen(network.x, beside.x, p, self.threshold))


@checks_arguments
def learn_then_test(
    estimator: Estimator,
    baseline: Estimator,
    problem: Problem,
    at_most: float,
    *,
    cells: Sequence[Shift] = (),
    strengths: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
    monitor: Monitor | None = None,
    loss: Loss = clipped_error,
    delta: float = 0.05,
    samples: int = 1000,
    seed: int = 0,
) -> LearnThenTest:
    """The strengths and thresholds whose risk is proved to be small at home and under each declared shift.

    The promise: with a probability of `1 - delta` over the draws every setting that is called proved has a risk, the
    mean loss, of at most `at_most` in each cell, whatever network, baseline and loss are. It needs independent draws of
    the cells, and says nothing of what is not declared.

    Args:
        estimator: The network. Strengths other than 1 ask for one that can be restrained.
        baseline: What answers where the network is too far from it, or the observation too strange.
        problem: What the network is for; the first cell.
        at_most: The limit on the risk, in units of the loss.
        cells: The declared shifts, such as some of `shifts(problem)`.
        strengths: Those to test; None takes quarters from 0 to 1, or 1 alone where the network has none.
        thresholds: Those to test; None takes distances of 0.1 to 3 times the norm of the baseline's estimate and one
            that is never passed or, with a monitor, p-values of 0 to 0.1.
        monitor: What gives p-values, made by `ff.guard.monitor` for this estimator; None takes the distance to the
            baseline.
        loss: From x_hat and x, `(batch, n)` each, to losses between 0 and 1, `(batch,)`.
        delta: The chance that any setting is called proved and is not.
        samples: Draws of each cell.
        seed: The seed of the draws.

    Raises:
        ValueError: If a number is out of range, losses are not one a sample between 0 and 1, the draws could not prove
            a setting that never errs, or the network has no strength and one is asked for.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 10), ff.iterate(ff.algorithms.FISTA(lam=0.1), 100)
        >>> few = [s for s in ff.guard.shifts(problem) if s.family == "gain"]
        >>> ff.guard.learn_then_test(net, safe, problem, at_most=0.5, cells=few, samples=300).best is not None
        True
    """
    network = ability(estimator, Restrainable)
    strengths = ((1.0,) if network is None else STRENGTHS) if strengths is None else tuple(strengths)
    thresholds = (DISTANCES if monitor is None else P_VALUES) if thresholds is None else tuple(thresholds)
    _check(at_most, delta, strengths, thresholds)
    if network is None and set(strengths) != {1.0}:
        raise ValueError("the network has no strength, so that only strengths=(1.0,) can be tested; pass these.")
    count = len(strengths) * len(thresholds)
    needed = math.ceil(math.log(count / delta) / -math.log1p(-at_most))
    if samples < needed:
        raise ValueError(
            f"{samples} draws could not prove a risk of {at_most:g} of {count} settings, even if nothing ever erred: "
            f"pass samples={needed} or more, fewer settings, or a larger limit."
        )
    around = None if monitor is None else monitor.around(estimator, None)
    networks = [_at(estimator, strength) for strength in strengths]
    named = [(HOME, problem), *((shift.name, shift.problem) for shift in cells)]
    losses = torch.empty(count, len(named), samples, dtype=torch.float64)
    for number, (name, drawn) in enumerate(named):
        x, obs = independent_draws(drawn, samples, seed, FIRST_DRAW + number)
        if len(x) < samples:
            raise ValueError(f"the cell {name} has {len(x)} draws and {samples} are wanted; pass samples={len(x)}.")
        beside, p = answers(baseline, obs).x, None if around is None else around.p_values(obs)
        for i, restrained in enumerate(networks):
            said = answers(restrained, obs).x
            for j, threshold in enumerate(thresholds):
                losses[i * len(thresholds) + j, number] = _checked(loss(_chosen(said, beside, p, threshold), x), len(x))
    p_values = cells_p_values(losses, at_most)
    proved = holm(p_values, delta)
    pairs = [(s, t) for s in strengths for t in thresholds]
    tested = (
        TriedSetting(s, t, tuple(risks), p_value, yes)
        for (s, t), risks, p_value, yes in zip(pairs, losses.mean(-1).tolist(), p_values.tolist(), proved.tolist())
    )
    return LearnThenTest(tuple(name for name, _ in named), tuple(tested), at_most, delta, samples)


def cells_p_values(losses: Tensor, at_most: float) -> Tensor:
    """P-values of "the mean loss is above the limit in some cell", losses `(settings, cells, draws)` -> `(settings,)`.

    That of each cell is the smaller of Hoeffding's and Bentkus' for means of independent numbers in [0, 1]; the
    hypothesis is a union, so that the largest of them is one for it (Berger, 1982).
    """
    count, mean = losses.shape[-1], losses.double().mean(-1).numpy()
    low = np.minimum(mean, at_most)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(low > 0, low * np.log(low / at_most), 0.0)
    hoeffding = np.exp(-count * (first + (1 - low) * np.log((1 - low) / (1 - at_most))))
    bentkus = math.e * binom.cdf(np.ceil(np.round(count * mean, 9)), count, at_most)
    return torch.from_numpy(np.minimum(np.minimum(hoeffding, bentkus), 1.0).max(-1))


def holm(p_values: Tensor, delta: float) -> Tensor:
    """Which hypotheses are rejected, `(count,)`, with a chance of `delta` at most that any of them is true."""
    order = p_values.argsort()
    level = delta / torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    rejected = (p_values[order] <= level).long().cumprod(0).bool()
    return torch.zeros(len(p_values), dtype=torch.bool).index_put((order,), rejected)


def _chosen(network: Tensor, beside: Tensor, p: Tensor | None, threshold: float) -> Tensor:
    """The network's estimates, or the baseline's where these are too far away, or too strange."""
    if p is not None:
        strange = p.to(beside.device) <= threshold
    else:
        apart, size = distance(network - beside), distance(beside)
        strange = ~(apart <= threshold * size) if threshold < math.inf else ~torch.isfinite(apart)
    return torch.where(trailing(strange, beside), beside, network)


def _checked(losses: Tensor, count: int) -> Tensor:
    """Losses of so many samples, `(count,)`, in double precision."""
    if tuple(losses.shape) != (count,):
        raise ValueError(f"losses are {tuple(losses.shape)} for {count} samples; pass a loss that gives one for each.")
    values = losses.double()
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise ValueError(
            f"a loss is {values[outside][0].item():g}; pass one between 0 and 1, such as an error over the largest "
            "that counts, clipped."
        )
    return values


def _at(estimator: Estimator, strength: float) -> Estimator:
    """The network at a strength; the given one stays as it is."""
    if ability(estimator, Restrainable) is None:
        return estimator
    copy = deepcopy(estimator)
    restrained = ability(copy, Restrainable)
    assert restrained is not None
    restrained.strength = strength
    return copy


def _check(at_most: float, delta: float, strengths: Sequence[float], thresholds: Sequence[float]) -> None:
    for name, value in (("at_most", at_most), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; pass a number between 0 and 1.")
    for name, values in (("strengths", strengths), ("thresholds", thresholds)):
        if not values:
            raise ValueError(f"{name} is empty; pass at least one to test.")
        for value in values:
            if not value >= 0 or (name == "strengths" and value > 1):
                raise ValueError(f"{name} has {value}; pass strengths from 0 to 1, and thresholds from 0 on.")
