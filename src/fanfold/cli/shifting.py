"""What shifts do to a trained run: `evaluate --shifts`."""

from collections.abc import Mapping

import torch
from torch import nn

from fanfold.cli.apply import monitor_for
from fanfold.cli.console import note
from fanfold.core.streams import Stream
from fanfold.core.suggest import did_you_mean
from fanfold.guard import Guarded, Monitor, ShiftTable, guarded, shift_table
from fanfold.guard.shifts import ShiftCell, best_peer
from fanfold.observation import Estimator
from fanfold.problems import Problem
from fanfold.problems.draws import draw, example_of
from fanfold.runs.directory import Run

ALARM = 0.01  # rate of false alarms of the monitor
REACHED = 1000  # draws that the reach of a guard is set on


@torch.no_grad()
def shifts_of_run(
    run: Run,
    net: nn.Module,
    problem: Problem,
    peers: Mapping[str, Estimator],
    *,
    samples: int,
    named: str | None = None,
    specialist_steps: int = 0,
) -> ShiftTable:
    """What every shift does to the network of a run, to its peers and to the network guarded by one of them.

    Args:
        run: The run, which keeps the monitor.
        net: Its network.
        problem: What its draws come from.
        peers: Its peers by name, itself among them or not.
        samples: Calls of each cell; peers see a fifth of them.
        named: The peer that is the baseline; the one that errs least without a shift if None.
        specialist_steps: Steps that the network goes on training in each cell, for a specialist; none if 0.

    Raises:
        ValueError: If there is no peer, or none of that name.
    """
    peers = {name: peer for name, peer in peers.items() if peer is not net}
    few = max(2, samples // 5)
    if named is None:
        named = best_peer(peers, problem, few)
        note(f"risks are relative to {named}, the peer that errs least without a shift; --baseline names another one")
    elif named not in peers:
        raise ValueError(f"there is no peer {named!r}; there are {', '.join(peers)}.{did_you_mean(named, peers)}")
    usual = monitor_for(run, net, example_of(problem, 2), ALARM, 1.0, note)
    return shift_table(
        net,
        problem,
        guarded=guard_around(net, peers[named], problem, usual),
        baseline=peers[named],
        peers=peers,
        monitor=usual,
        calls=samples,
        samples=few,
        specialist_steps=specialist_steps,
        on_cell=_say_measured,
    )


def _say_measured(cell: ShiftCell) -> None:
    note(f"{cell.family}, {cell.severity}: {cell.network_db:.2f} dB" if cell.shifted else "no shift is measured")


def guard_around(
    net: nn.Module, base: Estimator, problem: Problem, usual: Monitor | None, *, both: bool = False
) -> Guarded | None:
    """The network guarded: by losses where they can be compared, else by the monitor; None where neither is there.

    Args:
        net: The network.
        base: The baseline.
        problem: What its draws come from.
        usual: The monitor, if there is one.
        both: Whether the monitor watches where losses are compared too.
    """
    x, obs = draw(problem.held_out(), REACHED, 0, Stream.CALIBRATION, 2)
    judged = obs.noise_var is not None and (obs.A is not None or x.shape == obs.y.shape)
    if len(x) < 2 or not (judged or usual is not None):
        return None
    reach = min(0.999, 1 - 1 / len(x))
    if judged:
        return guarded(net, base, (x, obs), reach=reach, monitor=usual if both else None)
    return guarded(net, base, (x, obs), reach=reach, judge=None, monitor=usual)
