"""Adapting a trained network to where it is used: from few pairs, or from measurements alone; never for the worse.

What changes is chosen by draws that nothing learned from: the receiver that measurements are corrected for, how far
what was learned counts (`strength`), a few numbers, or all weights. Measurements alone choose the strength, by the half
of their noise that the network did not see: Oliveira, Lei & Tibshirani (2021), section 2.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, offers
from fanfold.core.settings import checks_arguments
from fanfold.core.table import Table
from fanfold.estimators import Recalibrated, ReceiverModel
from fanfold.estimators.base import Grouped, Restrainable, TrainedInRounds, device_of
from fanfold.guard.adaptation_losses import OfMeasurements, OfPairs
from fanfold.guard.answers import Pairs
from fanfold.guard.fallback import NoiseSplit
from fanfold.guard.recalibration import receivers_of
from fanfold.observation import Observation, check_finite

STRENGTHS = (0.0, 0.25, 0.5, 0.75)  # of what was learned
FEW = 256  # numbers that are learned at the middle level: those of the smallest parameters, as many as fit
RATES = {"few numbers": 1e-2, "all weights": 3e-3}
STEPS = 150  # of a training, after which it is judged
LEAST = 10  # samples, of which three decide


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
    level: str  # what changed: "nothing", "gains", "strength 0.5", "few numbers, 150 steps", or two, joined by "then"
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

    With x, what has changed of the receiver is estimated first: the noise variance, a gain (and phase) of each
    measurement, an error of A. Where that helps, the network is put behind it (`Recalibrated`). The strength, a few
    numbers or all weights change, of the network by itself and of that behind its receiver. A candidate counts as
    better where the loss of held-out samples falls by two standard errors, and the sum of their squared errors falls
    too: the loss is the logarithm of a sample's squared error, or the network's own. Where the model is linear, sums of
    two pairs are pairs again: they teach and judge too, since few samples do not show that a network errs without
    bounds on one in a thousand. Then either loss may fall surely, that of pairs or that of pairs with their sums, and
    the other must not rise.

    Without x the strength alone changes, and only where the network errs more at the measurements than silence would:
    less than that says little of x, of which they see a part. Nothing is learned, so that all samples decide.

    Args:
        network: Any trained network.
        draws: Pairs of x `(samples, n)` and their observation; or an observation `(samples, m)` alone, whose noise
            variance is known.
        held_out: The share of the pairs, from the end, that decides.
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
            contest = _Contest(network, OfMeasurements(obs, NoiseSplit(seed=seed)))
            for level, candidate in _restrained(network):
                contest.enter(level, candidate, contest.judge)
            return contest.adaptation()
        x = x.to(obs.y.device)
        first = min(max(round(len(x) * (1 - held_out)), 1), len(x) - 3)
        return _by_pairs(network, OfPairs(x[:first], obs[:first], seed), OfPairs(x[first:], obs[first:], seed))


def _check(network: nn.Module, x: Tensor | None, obs: Observation, held_out: float) -> None:
    """Refuse what cannot be adapted, and draws that cannot teach it."""
    kind = type(network).__name__
    if offers(network, TrainedInRounds):
        raise ValueError(f"{kind} is for one observation; fit one anew for another, instead of adapting it.")
    if not offers(network, Restrainable) and not _learnable(network):
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


def _by_pairs(network: nn.Module, lessons: OfPairs, judge: OfPairs) -> Adaptation:
    """The best of all candidates: another receiver; another network; and another network behind the best receiver."""
    contest = _Contest(network, judge)
    for level, receiver in receivers_of(lessons.x, lessons.obs):
        contest.enter(level, network, judge.through(receiver), receiver)
    before, chosen = contest.level, contest.receiver
    for receiver in (None,) if chosen is None else (None, chosen):
        for level, candidate in _candidates(network, lessons.through(receiver)):
            named = level if receiver is None else f"{before}, then {level}"
            contest.enter(named, candidate, judge.through(receiver), receiver)
    return contest.adaptation()


class _Contest:
    """Candidates for a network's place, of which the one that is surely better by most takes it.

    Args:
        network: The network.
        judge: What it is judged by.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, judge: OfPairs | OfMeasurements):
        self.judge, self.unit, self.before = judge, judge.unit(network), judge.losses(network)
        self.gain, self.level, self.network = 0.0, "nothing", copy.deepcopy(network)
        self.receiver: ReceiverModel | None = None
        self.rows: list[dict] = []

    @torch.no_grad()
    def enter(
        self,
        level: str,
        network: nn.Module,
        judge: OfPairs | OfMeasurements,
        receiver: ReceiverModel | None = None,
    ) -> None:
        """Judge a candidate, of which a copy is kept where it is the best so far."""
        gain = judge.losses(network).gain_over(self.before)
        self.rows.append({"level": level, "gain": gain.mean, "standard_error": gain.error, "better": gain.better})
        if gain.better and gain.mean > self.gain:
            self.gain, self.level, self.network, self.receiver = gain.mean, level, copy.deepcopy(network), receiver

    def adaptation(self) -> Adaptation:
        """What came of it."""
        network = self.network if self.receiver is None else Recalibrated(self.network, self.receiver)
        return Adaptation(network, self.level, self.gain, self.unit, Table(self.rows))


def _candidates(network: nn.Module, lessons: OfPairs) -> Iterator[tuple[str, nn.Module]]:
    """Copies of the network, from the least that may change to the most."""
    yield from _restrained(network)
    every, few = _learnable(network), _few(network)
    if few:
        yield from _learned(network, lessons, "few numbers", few)
    if len(few) < len(every):
        yield from _learned(network, lessons, "all weights", every)


def _restrained(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A copy at lesser strengths, where the network has one."""
    copied = copy.deepcopy(network)
    if (knob := ability(copied, Restrainable)) is None or knob.strength == 0:
        return
    full = knob.strength
    for share in STRENGTHS:
        knob.strength = full * share
        yield f"strength {knob.strength:g}", copied


def _learned(network: nn.Module, lessons: OfPairs, level: str, names: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """A copy as it is after some steps on these parameters, or none where the lesson is not finite.

    The rate falls to nothing: one that learns within so few steps would end anywhere around its goal, by more than the
    held-out pairs tell apart.
    """
    copied = copy.deepcopy(network)
    by_name = dict(copied.named_parameters())
    learned = [by_name[name] for name in names]
    optimiser = torch.optim.Adam(_groups(copied, learned, RATES[level]))
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / STEPS)
    for step in range(1, STEPS + 1):
        with torch.enable_grad():
            loss = lessons.lesson(copied, step)
            if not torch.isfinite(loss) or not loss.requires_grad:
                return
            gradients = torch.autograd.grad(loss, learned, allow_unused=True)  # what is not learned gets none
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        falling.step()
    optimiser.zero_grad()
    yield f"{level}, {STEPS} steps", copied


def _groups(network: nn.Module, learned: list[nn.Parameter], lr: float) -> list[dict]:
    """Parameter groups of what is learned, at the network's own rates where it has some."""
    if (grouped := ability(network, Grouped)) is None:
        return [{"params": learned, "lr": lr}]
    wanted = {id(p) for p in learned}
    groups = [
        {"params": [p for p in group["params"] if id(p) in wanted], "lr": group["lr"]}
        for group in grouped.parameter_groups(lr)
    ]
    return [group for group in groups if group["params"]]


def _learnable(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.requires_grad and p.numel()]


def _few(network: nn.Module) -> list[str]:
    """The smallest parameters, as many as have `FEW` numbers together; none where the smallest has more."""
    sizes, few, numbers = {name: p.numel() for name, p in network.named_parameters()}, [], 0
    for name in sorted(_learnable(network), key=lambda name: sizes[name]):
        numbers += sizes[name]
        if numbers > FEW:
            break
        few.append(name)
    return few
