"""How much the study of the comparison table draws, and what is learned of so many pairs: networks and statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.core.settings import Checked
from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.estimators.ofdm import ChannelCovariance
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import Pairs, Problem
from fanfold.problems.draws import draw
from fanfold.training.fit import fit
from fanfold.training.settings import TrainingOptions

GUESS = BernoulliGaussian(0.3)  # of those who have seen nothing; the truth is 0.1
MOST = 1000  # pairs that a supply counts
FRESH = 5000  # draws that statistics are taken of where pairs are without limit


@dataclass(frozen=True)
class Size(Checked):
    """How much is drawn, trained and timed.

    Example:
        >>> from fanfold.experiments.comparison.supply import Size
        >>> Size.quick().tests < Size.full().tests
        True
    """

    counts: tuple[int, ...]  # pairs of the learning curves, beside fresh draws
    few: tuple[int, ...]  # the same, that networks are not trained with
    sparse_steps: int
    perceptron_steps: int
    channel_steps: int
    scene_steps: int
    tests: int  # draws of an error
    slow_tests: int  # the same, of what is slow: scenes
    calibration: int  # draws that conformal intervals are calibrated on
    shifted: int  # draws of a shift
    slow_shifted: int  # the same of scenes
    shifts: int | None  # every so many of the shifts; all if None
    calls: int  # that are timed
    backends: tuple[str, ...]  # the first of these that an estimator runs in

    @classmethod
    def quick(cls) -> "Size":
        """What runs in seconds."""
        return cls((0, 100), (10,), 40, 40, 40, 30, 400, 40, 150, 30, 8, 7, 10, ("eager",))

    @classmethod
    def full(cls) -> "Size":
        """What runs in minutes."""
        return cls(
            (0, 30, 100, 300, 1000), (10,), 150, 300, 250, 150, 2000, 200, 1000, 100, 50, None, 300, ("c", "eager")
        )


@dataclass(frozen=True)
class Supply:
    """What an estimator may learn from: so many pairs, none if 0, or fresh draws without end if None.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.experiments.comparison.supply import Supply
        >>> few = Supply(ff.problems.CompressedSensing(n=40, m=20), count=10, seed=0)
        >>> len(few.signals()), len(few.problem.rows())  # a fifth is for validation
        (10, 8)
    """

    on: Problem
    count: int | None
    seed: int

    def pairs(self) -> tuple[Tensor, Observation]:
        """The pairs; those of a smaller supply of this seed are among those of a larger one's."""
        x, obs = draw(self.on, MOST, self.seed, Stream.TUNING, 20)
        return x[: self.count], obs[: self.count]

    def signals(self) -> Tensor:
        """What statistics are taken of, `(pairs, n)`."""
        return draw(self.on, FRESH, self.seed, Stream.TUNING, 21)[0] if self.count is None else self.pairs()[0]

    @property
    def problem(self) -> Problem:
        """What networks train on; the last fifth of stored pairs chooses the weights."""
        if self.count is None:
            return self.on
        x, obs = self.pairs()
        return Pairs(x=x, y=obs.y, A=obs.A, noise_var=obs.noise_var)


def trained(net: nn.Module, supply: Supply, name: str, watch: Watcher, options: TrainingOptions) -> nn.Module:
    """The network after its training, or untrained where there are no pairs.

    Args:
        net: The untrained network; changed in place.
        supply: What it learns from.
        name: What whoever watches is told.
        watch: Who watches.
        options: How it is trained, with the number of steps.
    """
    if supply.count == 0:
        return net
    count = "fresh draws" if supply.count is None else f"{supply.count} pairs"
    how: TrainingOptions = {"validate_every": max(1, options["steps"] // 3), "validation_samples": 200, "threads": 1}
    with torch.enable_grad():
        return fit(net, supply.problem, seed=supply.seed, on_event=watch(f"{name}, {count}"), **how, **options)


def prior_of_signals(supply: Supply) -> BernoulliGaussian:
    """The prior whose share of non-zeros, and their mean power, are those of the signals; a guess without any."""
    if supply.count == 0:
        return GUESS
    size = power(supply.signals())
    points = size[size > 0]
    return BernoulliGaussian(max(1, len(points)) / size.numel(), points.mean().item() if len(points) else 1.0)


def covariance_of(h: Tensor, antennas: int) -> ChannelCovariance:
    """The covariance of channels `(pairs, n)`: the mean over grid and pairs, and over antennas and pairs."""
    h = h.unflatten(1, (antennas, -1)).to(torch.complex128)
    factors = (torch.einsum("nai,nbi->ab", h, h.conj()), torch.einsum("nai,naj->ij", h, h.conj()))
    return ChannelCovariance(*(factor * len(factor) / factor.trace() for factor in factors))
