"""Candidates for the place of a network, judged by draws that they did not learn from: closed forms by cross-fitting.

Of pairs that closed forms are fitted to, each judges those that were fitted without it: Stone (1974). The one that is
taken is then fitted to all.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, offers
from fanfold.estimators import ReceiverModel
from fanfold.estimators.base import ScaleAware, SelfJudged
from fanfold.guard.adaptation_losses import Losses, OfPairs
from fanfold.guard.recalibration import receivers_of

FOLDS = 5
SCALES = tuple(2 ** (k / 2) for k in range(-8, 9))  # of signals over those that a network believes in


class Fitted(NamedTuple):
    """A receiver that was fitted several times.

    Example:
        >>> import torch
        >>> from fanfold.estimators import ReceiverModel
        >>> from fanfold.guard.adaptation_contest import Fitted
        >>> Fitted(ReceiverModel(torch.ones(3)), ReceiverModel(torch.ones(3)), ()).of_lessons.gains
        tensor([1., 1., 1.])
    """

    of_all: ReceiverModel
    of_lessons: ReceiverModel  # to the pairs that weights learn from
    without: tuple[ReceiverModel, ...]  # to the pairs that are not in each fold

    def before_weights(self) -> "Fitted":
        """The same before weights that were learned behind it: of the scale that they have met."""
        scale = self.of_lessons.scale
        return self._replace(of_all=self.of_all.of_scale(None if scale is None else scale.item()))

    def of_scales(self, of_all: float, of_lessons: float, without: tuple[float, ...]) -> "Fitted":
        """The same, of signals of these scales."""
        folds = tuple(fit.of_scale(scale) for fit, scale in zip(self.without, without, strict=True))
        return Fitted(self.of_all.of_scale(of_all), self.of_lessons.of_scale(of_lessons), folds)


class Folds:
    """Pairs of which each judges what was fitted without it, and of which the first ones teach weights.

    Args:
        pairs: All pairs.
        lessons: How many of them teach weights.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.adaptation_contest import Folds
        >>> from fanfold.guard.adaptation_losses import OfPairs
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> folds = Folds(OfPairs(*problem.sample(20, torch.Generator().manual_seed(0))), 14)
        >>> [len(judge.x) for judge in folds.judges]
        [4, 4, 4, 4, 4]
    """

    def __init__(self, pairs: OfPairs, lessons: int):
        self.pairs, self.lessons, self.held_out = pairs, pairs.part(slice(lessons)), pairs.part(slice(lessons, None))
        parts = torch.arange(len(pairs.x)).tensor_split(FOLDS)
        self.judges = [pairs.part(part) for part in parts]
        self.others = [pairs.part(torch.cat([*parts[:k], *parts[k + 1 :]])) for k in range(len(parts))]

    def judged(self, network: nn.Module, fitted: Fitted | None) -> Losses:
        """Losses of all pairs, each through the receiver that was fitted without it."""
        receivers = [None] * len(self.judges) if fitted is None else fitted.without
        return Losses.joined([j.through(r).losses(network) for j, r in zip(self.judges, receivers, strict=True)])

    def receivers(self) -> list[tuple[str, Fitted]]:
        """What may be changed of the receiver, by name, from the least to the most.

        Where a fold tells less than all pairs do, it takes the most that it tells.
        """
        of_all, of_lessons, *without = (
            dict(receivers_of(pairs.x, pairs.obs)) for pairs in (self.pairs, self.lessons, *self.others)
        )
        if not all((of_lessons, *without)):
            return []

        def of(fits: dict[str, ReceiverModel], level: str) -> ReceiverModel:
            return fits[level] if level in fits else [*fits.values()][-1]

        return [
            (level, Fitted(fit, of(of_lessons, level), tuple(of(fits, level) for fits in without)))
            for level, fit in of_all.items()
        ]

    @torch.no_grad()
    def of_another_scale(self, network: nn.Module, fitted: Fitted | None) -> tuple[str, Fitted] | None:
        """The receiver before a network that believes in signals of another scale; None where it is best as it is.

        One number is chosen, so that a few values are tried. Where the scale is that which the others ask for, each
        fold judges what was chosen without it. A network with a loss of its own has that in units of its own.
        """
        aware = ability(network, ScaleAware)
        equivariant = aware is not None and aware.scale_equivariant
        if equivariant or offers(network, SelfJudged) or not self.pairs.linear or self.pairs.obs.y.ndim != 2:
            return None
        if fitted is None:
            as_it_is = ReceiverModel(torch.ones_like(self.pairs.obs.y[0]))
            fitted = Fitted(as_it_is, as_it_is, (as_it_is,) * len(self.judges))

        def lost(pairs: OfPairs, receiver: ReceiverModel) -> Tensor:
            each = [pairs.through(receiver.of_scale(scale)).lesson(network, 0) for scale in SCALES]
            return torch.stack(each).double().nan_to_num(torch.inf, torch.inf)

        of_folds = torch.stack([lost(j, r) for j, r in zip(self.judges, fitted.without, strict=True)])
        of_all = SCALES[int(of_folds.mean(0).argmin())]
        if of_all == 1:
            return None
        without = [SCALES[int(torch.cat([of_folds[:k], of_folds[k + 1 :]]).mean(0).argmin())] for k in range(FOLDS)]
        of_lessons = SCALES[int(lost(self.lessons, fitted.of_lessons).argmin())]
        return f"scale {of_all:.3g}", fitted.of_scales(of_all, of_lessons, tuple(without))


class AdaptationContest:
    """Candidates for a network's place, of which the one that is surely better by most takes it.

    Args:
        network: The network.
        before: Its losses.
        unit: What they are in.

    Example:
        >>> import torch
        >>> from fanfold.guard.adaptation_contest import AdaptationContest
        >>> from fanfold.guard.adaptation_losses import Losses
        >>> net = torch.nn.Identity()
        >>> contest = AdaptationContest(net, Losses(torch.ones(9, 1), torch.ones(1), torch.ones(1)), "dB")
        >>> contest.enter("twice as good", net, Losses(torch.full((9, 1), 0.5), torch.ones(1)))
        >>> contest.level
        'twice as good'
    """

    def __init__(self, network: nn.Module, before: Losses, unit: str):
        self.before, self.unit = before, unit
        self.best: Losses | None = None  # of the best so far, where it was judged by other draws
        self.gain, self.level, self.network = 0.0, "nothing", copy.deepcopy(network)
        self.lead = 0.0  # what a candidate has to gain
        self.fitted: Fitted | None = None
        self.rows: list[dict[str, Any]] = []

    def enter(self, level: str, network: nn.Module, losses: Losses, fitted: Fitted | None = None) -> None:
        """Judge a candidate, of which a copy is kept where it is the best so far."""
        gain = losses.gain_over(self.before)
        better = gain.better and (self.best is None or losses.gain_over(self.best).better)
        self.rows.append({"level": level, "gain": gain.mean, "standard_error": gain.error, "better": better})
        if better and gain.mean > self.lead:
            self.gain = self.lead = gain.mean
            self.level, self.network, self.fitted = level, copy.deepcopy(network), fitted

    def decided_by(self, before: Losses, best: Losses) -> None:
        """Let other draws decide from here on, by which a candidate has to be surely better than the best so far.

        Sums of squared errors, which a few samples make, are held against those of the network before alone.

        Args:
            before: The losses of the network before.
            best: Those of the best so far.
        """
        if self.level != "nothing":
            self.best, self.lead = (
                best._replace(most=torch.full_like(best.most, torch.inf)),
                best.gain_over(before).mean,
            )
        self.before = before
