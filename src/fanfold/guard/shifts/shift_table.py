"""The table of what every shift does to a network, to the same network guarded, and to its classical peers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.bounds import bayes_limit_of
from fanfold.core.abilities import ability
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream
from fanfold.core.units import db
from fanfold.estimators.base import Costly
from fanfold.evaluation.evaluate import Z95, energies, ratio_of
from fanfold.evaluation.peers import peers_of
from fanfold.guard.answers import answers
from fanfold.guard.fallback import Guarded
from fanfold.guard.monitoring import Monitor
from fanfold.guard.shifts.shift import Shift, shifts
from fanfold.guard.shifts.shift_cells import Ratio, ShiftCell, ShiftTable
from fanfold.guard.shifts.specialists import specialist
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw


@torch.no_grad()
@checks_arguments
def shift_table(
    estimator: Estimator,
    problem: Problem,
    *,
    guarded: Guarded | None = None,
    baseline: Estimator | None = None,
    peers: Mapping[str, Estimator] | None = None,
    monitor: Monitor | None = None,
    cells: Sequence[Shift] | None = None,
    calls: int = 1000,
    samples: int = 200,
    between: float = 1000.0,
    specialist_steps: int = 0,
    seed: int = 0,
    on_cell: Callable[[ShiftCell], None] | None = None,
) -> ShiftTable:
    """What each shift does to an estimator, beside a baseline, peers, and the same estimator guarded and monitored.

    Every cell draws with the same seed, so that cells differ by their shift alone where it leaves chance as it is.

    Args:
        estimator: The network.
        problem: What it is for, unshifted.
        guarded: The same network with a fallback; it starts afresh in each cell, and is reset at the end.
        baseline: What risks are relative to; that of the guarded estimator, or the peer that errs least without a
            shift.
        peers: Classical estimators by name; those of `fanfold evaluate`, tuned without a shift, if None.
        monitor: A monitor of the estimator, which says what share of calls is strange and when that is sure.
        cells: The shifts; all of `shifts(problem)` if None.
        calls: Draws of each cell, one after the other.
        samples: The first so many of them, that peers see.
        between: The mean number of usual calls between false alarms, of the delay.
        specialist_steps: So many steps the network goes on training in each cell, for a specialist beside it; 0 trains
            none. A specialist costs a training, so that cells with one take much longer.
        seed: The seed of the draws.
        on_cell: Called with each cell once it is measured.

    Raises:
        ValueError: If there is nothing to compare with, a number is too small, or the guard or the monitor is around
            another estimator.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 5), ff.iterate(ff.algorithms.FISTA(lam=0.1), 50)
        >>> table = ff.guard.shift_table(net, problem, baseline=safe, peers={}, calls=100)
        >>> table.cells[0].family, table.cells[0].harmful
        ('none', False)
    """
    if specialist_steps < 0:
        raise ValueError(f"specialist_steps is {specialist_steps}; pass 0 for no specialists, or a number of steps.")
    if calls < 2 or samples < 2:
        raise ValueError(f"calls is {calls} and samples {samples}; an error with an interval takes at least 2 of both.")
    for who, around in (("guarded", guarded), ("monitor", monitor)):
        if around is not None and around.estimator is not estimator:
            raise ValueError(f"{who} is around another estimator; pass the one that it was made for.")
    if cells is not None and not cells:
        raise ValueError("there are no cells; pass some of shifts(problem), or None for all.")
    beside = _peers(estimator, problem, peers)
    named, base = _baseline(baseline, guarded, beside, problem, samples, seed)
    every = [Shift("none", "", problem), *(shifts(problem) if cells is None else cells)]
    measured = []
    for shift in every:
        x, obs = draw(shift.problem.held_out(), calls, seed, Stream.TESTING, 0)
        estimate = answers(estimator, obs)
        errors = _errors(estimate, x)
        of_base = errors if base is estimator else _errors(answers(base, obs), x)
        signal = energies(torch.zeros_like(x), x)[1]
        said, fallen = (None, None) if guarded is None else _guarded(guarded, obs)
        of_guarded = None if said is None else _errors(said, x)
        detected, alarmed_after, delay = _alarms(monitor, obs, estimate, between)
        there = specialist(estimator, shift.problem, specialist_steps, seed) if specialist_steps else None
        limit = bayes_limit_of(shift.problem, x, obs)
        cell = ShiftCell(
            family=shift.family,
            severity=shift.severity,
            seen=shift.seen,
            untouched=shift.untouched,
            calls=len(x),
            network_db=_db(errors, signal),
            baseline_db=_db(of_base, signal),
            guarded_db=None if of_guarded is None else _db(of_guarded, signal),
            peers_db={name: _peer_db(peer, x[:samples], obs[:samples]) for name, peer in beside.items()},
            limit_db=None if limit is None else db(limit),
            risk=_ratio(errors, of_base),
            guarded_risk=None if of_guarded is None else _ratio(of_guarded, of_base),
            detected=detected,
            alarmed_after=alarmed_after,
            delay=delay,
            in_fallback=fallen,
            specialist_db=None if there is None else _db(_errors(answers(there, obs), x), signal),
        )
        measured.append(cell)
        if on_cell is not None:
            on_cell(cell)
    if guarded is not None:
        guarded.reset()
    return ShiftTable(measured, named, None if monitor is None else monitor.alarm)


def _peers(estimator: Estimator, problem: Problem, peers: Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    named = peers_of(estimator, problem) if peers is None else dict(peers)
    return {name: peer for name, peer in named.items() if peer is not estimator}


def _baseline(
    given: Estimator | None,
    guarded: Guarded | None,
    peers: Mapping[str, Estimator],
    problem: Problem,
    samples: int,
    seed: int,
) -> tuple[str, Estimator]:
    """The estimator that risks are relative to, and what it is called."""
    base = given if given is not None else None if guarded is None else guarded.baseline
    if base is not None:
        return next((name for name, peer in peers.items() if peer is base), "the baseline"), base
    name = best_peer(peers, problem, samples, seed)
    return name, peers[name]


@torch.no_grad()
def best_peer(peers: Mapping[str, Estimator], problem: Problem, samples: int = 200, seed: int = 0) -> str:
    """The name of the peer that errs least, on tuning draws of the unshifted problem.

    Args:
        peers: Estimators by name.
        problem: The problem.
        samples: How many draws.
        seed: Their seed.

    Raises:
        ValueError: If there is no peer.
    """
    if not peers:
        raise ValueError("there is nothing to compare with; pass baseline=, guarded= or peers=.")
    x, obs = draw(problem, samples, seed, Stream.TUNING, 3)
    return min(peers, key=lambda name: _peer_db(peers[name], x, obs))


def _errors(estimate: Estimate, x: Tensor) -> Tensor:
    """Squared errors of each draw, infinite where an estimate is not a number."""
    return energies(estimate.x, x)[0].nan_to_num(nan=math.inf)


def _db(errors: Tensor, signal: Tensor) -> float:
    return db((errors.sum() / signal.sum()).item())


def _peer_db(peer: Estimator, x: Tensor, obs: Observation) -> float:
    slow = ability(peer, Costly)  # which says how many draws it can bear
    bearable = slice(None if slow is None else slow.at_most)
    errors = _errors(answers(peer, obs[bearable]), x[bearable])
    return _db(errors, energies(torch.zeros_like(x), x)[1][bearable])


def _ratio(part: Tensor, whole: Tensor) -> Ratio:
    if not (whole > 0).any() or not torch.isfinite(part + whole).all():
        value = (part.sum() / whole.sum()).item()
        value = 1.0 if torch.equal(part, whole) else math.inf if math.isnan(value) else value
        return Ratio(value, value, value)
    ratio, spread = ratio_of(part, whole)
    return Ratio(ratio, max(ratio - Z95 * spread, 0.0), ratio + Z95 * spread)


def _guarded(guarded: Guarded, obs: Observation) -> tuple[Estimate, float]:
    """Its estimates from a fresh start, and the share of calls in fallback."""
    guarded.reset()
    estimate = guarded(obs)
    return estimate, guarded.calls.in_fallback / guarded.calls.all


def _alarms(
    monitor: Monitor | None, obs: Observation, estimate: Estimate, between: float
) -> tuple[float | None, int | None, int | None]:
    """The share of strange calls, and the numbers of the calls at which martingale and CUSUM alarm first."""
    if monitor is None:
        return None, None, None
    p = monitor.p_values(obs, estimate).flatten()
    detected = (p <= monitor.alarm).double().mean().item()
    return detected, _first(monitor.watch(), p), _first(monitor.watch("cusum", between=between), p)


@runtime_checkable
class Watching(Protocol):
    """The state of an alarm over time.

    Example:
        >>> from fanfold.guard import MartingaleWatch
        >>> from fanfold.guard.shifts.shift_table import Watching
        >>> isinstance(MartingaleWatch.start(count=500), Watching)
        True
    """

    @property
    def alarmed(self) -> Tensor: ...

    def update(self, p: Tensor) -> "Watching": ...


def _first(state: Watching, p: Tensor) -> int | None:
    """The number of the first call, from one, that alarms."""
    for call, value in enumerate(p, start=1):
        state = state.update(value)
        if state.alarmed:
            return call
    return None
