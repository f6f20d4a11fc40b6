"""Adapting a trained network to where it is used: from few pairs, or from measurements alone; never for the worse.

What changes is chosen by draws that nothing learned from: the receiver that measurements are corrected for, the scale
of signals, how far what was learned counts (`strength`), a few numbers, or all weights. Measurements alone choose the
strength, by the half of their noise that the network did not see: Oliveira, Lei & Tibshirani (2021), section 2.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import offers
from fanfold.core.settings import checks_arguments
from fanfold.core.table import Table
from fanfold.estimators import Recalibrated
from fanfold.estimators.base import Restrainable, TrainedInRounds, device_of
from fanfold.guard.adaptation_contest import AdaptationContest, Fitted, Folds
from fanfold.guard.adaptation_lessons import learnable, restrained, taught
from fanfold.guard.adaptation_losses import OfMeasurements, OfPairs
from fanfold.guard.answers import Pairs
from fanfold.guard.fallback import NoiseSplit
from fanfold.observation import Observation, check_finite

LEAST = 10  # samples, of which three decide on learned weights


class Adaptation(NamedTuple):
    """A network that was adapted, or a copy of the one that came where nothing was gained; made by `adapt`.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> ff.guard.adapt(net, problem.sample(20, torch.Generator().manual_seed(0))).gain >= 0
        True
    """

    network: nn.Module
    level: str  # what changed: "nothing", "gains", "scale 1.41", "strength 0.5", or two, joined by "then"
    gain: float  # by how much the loss fell on the draws that decide, in `unit`; 0 if nothing changed
    unit: str  # "dB" of the error, or "of its loss" for networks that judge themselves
    tried: Table  # a row for each candidate: `level`, `gain`, its `standard_error`, and whether it is `better`

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence."""
        if self.level == "nothing":
            return f"None of {len(self.tried)} ways to change it is surely better: the network stays as it was."
        return f"Changed: {self.level}; better by {self.gain:.2f} {self.unit} on draws that it did not learn from."


@checks_arguments
def adapt(network: nn.Module, draws: Pairs | Observation, *, held_out: float = 0.3, seed: int = 0) -> Adaptation:
    """Adapt a copy of a network to draws of another place; the one that came is never changed.

    With x, what has a closed form is estimated first: of the receiver the noise variance, a gain (and phase) of each
    measurement, an error of A; then the scale of signals, over that which the network believes in. Where that helps,
    the network is put behind it (`Recalibrated`). The strength is tried with it and without. All this is judged by all
    pairs: in five folds, each by what the others say, and what is chosen is fitted to all of them. Then a few numbers
    or all weights learn, of the network by itself and behind what was chosen, and held-out pairs decide.

    A candidate counts as better where the loss falls by two standard errors, and the sum of squared errors falls too:
    the loss is the logarithm of a sample's squared error, or the network's own. What has learned has to be better in
    this sense than the network that came and than the best closed form. Where the model is linear, sums of two pairs
    are pairs again: they teach and judge too, since few samples do not show that a network errs without bounds on one
    in a thousand. Then either loss may fall surely, that of pairs or that of pairs with their sums, and the other must
    not rise.

    Without x the strength alone changes, and only where the network errs more at the measurements than silence would:
    less than that says little of x, of which they see a part. Nothing is learned, so that all samples decide.

    Args:
        network: Any trained network.
        draws: Pairs of x `(samples, n)` and their observation; or an observation `(samples, m)` alone, whose noise
            variance is known.
        held_out: The share of the pairs, from the end, that decides on what the others have taught.
        seed: The seed of the noise that splits measurements, and of what the network draws as it learns.

    Raises:
        ValueError: If there is nothing to adapt, there are fewer than 10 samples, shapes do not fit, or measurements
            alone lack their noise variance or a network whose strength they could choose.

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
    _check(network, x, obs, held_out)
    obs = obs.to(device_of(network))
    devices = [obs.y.device] if obs.y.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        if x is None:
            return _alone(network, OfMeasurements(obs, NoiseSplit(seed=seed)))
        lessons = min(max(round(len(x) * (1 - held_out)), 1), len(x) - 3)
        return _by_pairs(network, Folds(OfPairs(x.to(obs.y.device), obs, seed), lessons))


def _check(network: nn.Module, x: Tensor | None, obs: Observation, held_out: float) -> None:
    """Refuse what cannot be adapted, and draws that cannot teach it."""
    kind = type(network).__name__
    if offers(network, TrainedInRounds):
        raise ValueError(f"{kind} is for one observation; fit one anew for another, instead of adapting it.")
    if not offers(network, Restrainable) and not learnable(network):
        raise ValueError(f"{kind} has no weights and no strength: there is nothing to adapt.")
    count = len(obs.y)
    if obs.y.ndim < 2 or count < LEAST:
        raise ValueError(f"y is {tuple(obs.y.shape)}; pass at least {LEAST} samples to adapt to, (samples, ...).")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; pass the share of the samples that decides, between 0 and 1.")
    if x is not None:
        check_finite("x", x)
        if x.ndim < 2 or len(x) != count:
            raise ValueError(f"x is {tuple(x.shape)} for {count} observations; pass (samples, n) for as many.")
    elif not offers(network, Restrainable):
        raise ValueError(
            f"{kind} has no strength, the one thing that measurements alone may choose: pass pairs, (x, observation)."
        )
    elif obs.noise_var is None or obs.A is None:
        lacking = "noise variance" if obs.noise_var is None else "operator"
        raise ValueError(
            f"the observation has no {lacking}, and without x its measurements judge by it: pass Observation(y, A, "
            "noise_var), or pairs."
        )


@torch.no_grad()
def _alone(network: nn.Module, judge: OfMeasurements) -> Adaptation:
    """The best strength."""
    contest = AdaptationContest(network, judge.losses(network), judge.unit(network))
    for level, candidate in restrained(network):
        contest.enter(level, candidate, judge.losses(candidate))
    return _adaptation(contest)


def _by_pairs(network: nn.Module, folds: Folds) -> Adaptation:
    """The best of all candidates: what has a closed form first, judged by all pairs, and then what learned."""
    with torch.no_grad():
        contest = AdaptationContest(network, folds.judged(network, None), folds.pairs.unit(network))
        for level, fitted in folds.receivers():
            contest.enter(level, network, folds.judged(network, fitted), fitted)
        for before, fitted in _behind(contest):
            if (scaled := folds.of_another_scale(network, fitted)) is not None:
                level, fitted = scaled
                contest.enter(before + level, network, folds.judged(network, fitted), fitted)
        behind = _behind(contest)
        for before, fitted in behind:
            for level, candidate in restrained(network):
                contest.enter(before + level, candidate, folds.judged(candidate, fitted), fitted)
        judge, best = folds.held_out, contest.fitted
        of_best = judge.through(None if best is None else best.of_lessons).losses(contest.network)
        contest.decided_by(judge.losses(network), of_best)
    for before, fitted in behind:
        receiver = None if fitted is None else fitted.of_lessons
        deployed = None if fitted is None else fitted.before_weights()
        for level, candidate in taught(network, folds.lessons.through(receiver)):
            with torch.no_grad():
                losses = judge.through(receiver).losses(candidate)
            contest.enter(before + level, candidate, losses, deployed)
    return _adaptation(contest)


def _behind(contest: AdaptationContest) -> list[tuple[str, Fitted | None]]:
    """The receivers that networks are tried behind, with the first words of such levels: none, and the best so far."""
    return [("", None)] if contest.fitted is None else [("", None), (f"{contest.level}, then ", contest.fitted)]


def _adaptation(contest: AdaptationContest) -> Adaptation:
    """What came of it."""
    network, fitted = contest.network, contest.fitted
    network = network if fitted is None else Recalibrated(network, fitted.of_all)
    return Adaptation(network, contest.level, contest.gain, contest.unit, Table(contest.rows))
