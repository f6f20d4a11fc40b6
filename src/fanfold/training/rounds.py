"""Rounds of simulations near one observation. Deistler, Gonçalves & Macke (2022), algorithm 1.

The first round draws from the prior. What it learned gives a box that holds the posterior at the observation, and the
next round draws from the prior within that box; earlier draws that lie in it are draws of the same, and are kept. A box
whose draws the observation is unlike has lost the posterior: it is left, and the next one is wider. With
a store, a sequence that stopped goes on where it was:

store/rounds.json   what decides the sequence, and the boxes so far
store/round-2       the simulations of a round
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability, offers
from fanfold.core.data_files import json_object
from fanfold.core.files import check_same, sole_writer, write_whole
from fanfold.core.settings import checked_value
from fanfold.core.streams import Stream, generator_of
from fanfold.core.strict_json import revived, strict_json
from fanfold.estimators.base import Region, TrainedInRounds
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.base import Described
from fanfold.problems.draws import draw
from fanfold.problems.kinds import Kind
from fanfold.problems.protocols import Restrictable, Stored, kind_of
from fanfold.problems.simulators import Simulations
from fanfold.training.events import Event, RoundStarted
from fanfold.training.simulate import numbered, simulation_events

FILE = "rounds.json"
FEWEST = 20  # simulations of a round
MOST_THROWN_AWAY = 1000  # draws outside the box for each one that is wanted, of a problem without a prior of its own
MOST_AT_ONCE = 10_000  # of these
LOST = 0.01  # p-value of the observation among the draws of a box, below which the box has lost the posterior
LITTLE_NARROWED = 0.3  # of the prior, that the last box still holds

Train = Callable[[nn.Module, Problem], Iterator[Event]]  # a network and the draws that it is trained on


@dataclass(frozen=True)
class Gathered(Described):
    """The draws of several rounds that lie in one box, as a problem to train on.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.training.rounds import Gathered
        >>> draws = Gathered(torch.ones(4, 2), torch.ones(4, 3), "vector")
        >>> draws.sample(5, torch.Generator().manual_seed(0))[1].y.shape
        torch.Size([5, 3])
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    kind: Kind

    A = None

    def every(self) -> tuple[Tensor, Observation]:
        """All draws, each once."""
        return self.x, Observation(self.y)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws picked at random, with replacement."""
        rows = torch.randint(len(self.x), (n,), generator=generator)
        return self.x[rows], Observation(self.y[rows])


def round_events(
    estimator: TrainedInRounds,
    problem: Problem,
    *,
    simulations: int,
    seed: int,
    store: Path | None,
    train: Train,
) -> Iterator[Event]:
    """All rounds of a training, one event at a time; the estimator becomes what the last round learned.

    Args:
        estimator: An estimator that is trained in rounds.
        problem: What draws from the prior; a `Restrictable` one draws from a part of it too, of another one those draws
            that lie outside are thrown away.
        simulations: How many in all, the same number in each round but for a remainder in the first.
        seed: The seed of the draws.
        store: A folder for the simulations, or None to keep none.
        train: Trains the network of a round.

    Raises:
        ValueError: If the simulations are too few or stored ones, the store holds others, or a box cannot be drawn
            from.
    """
    counts = _counts(simulations, estimator.rounds)
    if offers(problem, Stored):
        raise ValueError(
            "rounds near one observation simulate anew, and the pairs of this problem are stored: pass the simulator "
            "itself, or leave observed out."
        )
    history = _History(store, {} if store is None else _identity(estimator, problem, counts, seed))
    x, y, held = torch.empty(0), torch.empty(0), estimator.everywhere
    share, wider, trained = 1.0, 1.0, False  # of the prior; than usual; on the draws that there are
    with history.held():
        for number, count in enumerate(counts):
            region = estimator.everywhere if number == 0 else history.region(number)
            if region is None:
                region = estimator.narrowed(generator_of(seed, Stream.POSTERIOR, number), wider)
                history.add(region)
            restricted = problem if number == 0 else _restricted(problem, region)
            new_x, new_y = _drawn(restricted, count, seed, number, store)
            if lost := number > 0 and estimator.likeness(Observation(new_y)) < LOST:
                _warn_of_lost(number + 1)
                wider *= 2
            elif number:
                inside = ((x.double() >= region.low) & (x.double() <= region.high)).all(-1)
                share *= inside.double().mean().item()
                x, y = torch.cat([x[inside], new_x]), torch.cat([y[inside], new_y])
            else:
                x, y = new_x, new_y
            held = held if lost else region
            low, high = (tuple(end.tolist()) for end in held)
            thrown_away = restricted.thrown_away if offers(restricted, Rejecting) else 0
            yield RoundStarted(number + 1, len(counts), len(new_x), len(x), share, low, high, thrown_away)
            trained = trained and lost
            if history.region(number + 1) is None and not trained:  # else this round came to its end before
                yield from train(estimator.renewed(), Gathered(x, y, kind_of(problem)))
                trained = True
            estimator.settle(held, Observation(y))
    if len(counts) > 1 and share > LITTLE_NARROWED:
        warnings.warn(
            f"The box of the last round still holds {100 * share:.0f} % of the prior: rounds gained little over one "
            "training on all, as the observation tells little, or the networks have not seen enough like it. Pass more "
            "simulations, or more rounds.",
            stacklevel=4,
        )


def _warn_of_lost(number: int) -> None:
    warnings.warn(
        f"The observation is unlike the draws of round {number}: its box has lost the posterior. They are left out, "
        "and what was learned before stays. Pass more simulations, so that the first rounds see where it is.",
        stacklevel=5,
    )


def _counts(simulations: int, rounds: int) -> list[int]:
    """How many simulations each round has."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; pass a positive number, such as 3.")
    if simulations < FEWEST * rounds:
        raise ValueError(
            f"simulations is {simulations} for {rounds} rounds near one observation; pass at least {FEWEST} for each, "
            "ff.fit(net, simulator, simulations=3000)."
        )
    each = simulations // rounds
    return [simulations - each * (rounds - 1)] + [each] * (rounds - 1)


def _identity(estimator: TrainedInRounds, problem: Problem, counts: list[int], seed: int) -> dict[str, Any]:
    """What decides a sequence, but for how its networks are trained."""
    y = estimator.observed
    numbers = (torch.view_as_real(y) if y.is_complex() else y).flatten().tolist()
    return {"observed": numbers, "counts": counts, "seed": seed, "problem": numbered(problem).identity()}


def _restricted(problem: Problem, region: Region) -> Problem:
    """A problem with parameters in a box alone."""
    low, high = (tuple(end.tolist()) for end in region)
    able = ability(problem, Restrictable)
    return Rejected(problem, low, high) if able is None else able.restricted(low, high)


def _drawn(problem: Problem, count: int, seed: int, number: int, store: Path | None) -> tuple[Tensor, Tensor]:
    """The simulations of a round, those that succeeded; the first are what one training without rounds would draw."""
    if store is None:
        stream = (Stream.ROUNDS, number) if number else (Stream.TRAINING, 0)
        x, obs = draw(problem, count, seed, *stream)
        return x, obs.y
    folder = store / f"round-{number + 1}"
    of_draws = generator_of(seed, Stream.ROUNDS, number).initial_seed()
    with closing(simulation_events(problem, count, folder, seed=of_draws)) as events:
        for _ in events:
            pass
    x, y = Simulations(str(folder), held_out_share=0.5).contents.arrays()
    return torch.from_numpy(x), torch.from_numpy(y)


@runtime_checkable
class Rejecting(Protocol):
    """A problem that throws draws away, and counts them."""

    @property
    def thrown_away(self) -> int: ...


@dataclass(frozen=True)
class Rejected(Described):
    """The draws of a problem whose parameters lie in a box; the others are thrown away, and counted.

    Raises:
        ValueError: In `sample`, if more than 1000 draws for each one that is wanted lie outside.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.training.rounds import Rejected
        >>> positive = Rejected(ff.problems.LinearGaussian(n=1, m=2), low=(0.0,), high=(9.0,))
        >>> bool((positive.sample(100, torch.Generator().manual_seed(0))[0] >= 0).all()), positive.thrown_away > 50
        (True, True)
    """

    problem: Problem
    low: tuple[float, ...]
    high: tuple[float, ...]

    A = None

    @property
    def kind(self) -> Kind:
        """The kind of the problem's observations."""
        return kind_of(self.problem)

    @property
    def thrown_away(self) -> int:
        """How many draws lay outside since this object was made."""
        return self._outside.total()

    @cached_property
    def _outside(self) -> Counter[str]:
        return Counter()

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` draws in the box."""
        low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (self.low, self.high))
        xs, ys, kept, tried, block = list[Tensor](), list[Tensor](), 0, 0, n
        while kept < n:
            x, obs = self.problem.sample(block, generator)
            inside = ((x.double() >= low) & (x.double() <= high)).all(-1)
            xs.append(x[inside])
            ys.append(obs.y[inside])
            self._outside["box"] += block - int(inside.sum())
            kept, tried, block = kept + int(inside.sum()), tried + block, min(2 * block, max(n, MOST_AT_ONCE))
            if tried > MOST_THROWN_AWAY * max(n, 100) and kept < n:
                raise ValueError(
                    f"only {kept} of {tried} draws of {type(self.problem).__name__} lie in the box of the next round: "
                    "it draws from its prior alone. Give it a method `restricted(low, high)` that draws from the box, "
                    "or pass a Simulator with a prior."
                )
        return torch.cat(xs)[:n], Observation(torch.cat(ys)[:n])


class _History:
    """The boxes of a sequence, in memory and, where there is a store, on disk.

    Args:
        store: The folder.
        identity: What decides the sequence.
    """

    def __init__(self, store: Path | None, identity: Mapping[str, Any]):
        self.store, self.identity = store, identity
        self.boxes: list[Region] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the store for this process alone, and read what it holds."""
        if self.store is None:
            yield
            return
        with sole_writer(self.store):
            file = self.store / FILE
            kept = json_object(file) if file.exists() else None
            boxes = None if kept is None else revived(kept.pop("boxes", None))
            check_same(self.store, kept, self.identity)
            for box in checked_value(str(file), "boxes", boxes, list[dict[str, list[float]]]) if kept else []:
                self.boxes.append(Region(*(torch.tensor(box[end], dtype=torch.float64) for end in ("low", "high"))))
            if kept is None:
                self._write()
            yield

    def region(self, number: int) -> Region | None:
        """The box of a round, counted from 0; None where no round before it has come to its end."""
        return self.boxes[number - 1] if 1 <= number <= len(self.boxes) else None

    def add(self, region: Region) -> None:
        """Keep the box of the next round."""
        self.boxes.append(region)
        if self.store is not None:
            self._write()

    def _write(self) -> None:
        assert self.store is not None
        boxes = [{"low": box.low.tolist(), "high": box.high.tolist()} for box in self.boxes]
        write_whole(self.store / FILE, strict_json(dict(self.identity) | {"boxes": boxes}).encode(), follow=False)
